"""The wordings of all questions. A fifth of each family is kept for tests (`splits.split_templates`).

`{a}` is a noun phrase with its article ("a fox"), `{the}` the same with "the", `{many}` a plural, `{place}` a relation
such as "to the left of", `{colour}` and `{shape}` a name.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .splits import split_templates

TEMPLATES: dict[str, tuple[str, ...]] = {
    "name": (
        "What is in this picture?", "Name the object.", "What is this?", "What do you see?",
        "What does the picture show?",
        "Which thing is shown here?", "What can be seen in the picture?", "Tell me what this is.", "What is shown?",
        "Can you name this?",
        "What object is this?", "What is it?", "What thing do you see here?", "Identify the object.",
        "What is this a picture of?", "What does this image show?", "Say what this is.", "What do we see here?",
        "What is in the image?", "What is drawn here?", "Which object is in the picture?", "What is this a drawing of?",
    ),
    "kind": (
        "What kind of thing is it?", "Is it an animal, food, or what else?", "What sort of thing is this?",
        "To which group does it belong?", "What category is this?",
    ),
    "caption": (
        "Describe the picture.", "Describe this image.", "What is going on in the picture?", "Write a caption.",
        "Please describe what you see.", "Give a short description of the picture.", "Caption this picture.",
        "Describe the scene.", "Say in one sentence what is in the picture.", "What does the whole picture look like?",
        "Describe what is in the picture.",
        "Tell me about this picture.", "Give a caption for this image.", "Describe the image in one sentence.",
        "Summarize the picture.", "What does the image look like?", "Please write a short caption.",
        "Can you describe the picture?", "Explain what is shown in the picture.",
        "Describe it.",
    ),
    "count": (
        "How many {many} are there?", "How many {many} do you see?", "Count the {many}.",
        "What is the number of {many}?",
        "How many {many} are in the picture?", "Tell me how many {many} there are.", "How many {many} can you count?",
        "How many {many} does the picture show?", "Please count the {many}.", "The number of {many} is?",
        "How many {many}?", "How many {many} are in the image?", "How many {many} are shown?",
        "How many {many} can be seen?", "Give the number of {many}.", "How often do you see {many}?",
        "What number of {many} is there?", "Say how many {many} you can find.", "Are there {many}, and how many?",
        "How many {many} appear in the picture?",
    ),
    "colour": (
        "What colour is {the}?", "What color is {the}?", "Which colour does {the} have?", "Name the colour of {the}.",
        "{The} has which colour?", "Tell me the color of {the}.", "In what colour is {the} drawn?",
        "The colour of {the}?",
        "What is the colour of {the}?", "What is the color of {the}?", "Which color is {the}?",
        "Say the colour of {the}.", "What color does {the} have?", "Is {the} red, blue or what colour?",
        "How is {the} coloured?",
    ),
    "shape": (
        "What shape is {colour}?", "Which shape is {colour}?", "What is the {colour} shape?",
        "Name the {colour} shape.",
        "What shape does the {colour} thing have?", "Tell me the shape of the {colour} thing.",
        "Which form has the {colour} object?", "The {colour} thing has what shape?",
        "What {colour} shape do you see?", "Which {colour} shape is there?", "What form is the {colour} thing?",
        "Say which shape is {colour}.",
    ),
    "background": (
        "What colour is the background?", "What color is the background?", "Name the colour of the background.",
        "Which colour is behind it?", "What is the background colour?", "The background has which color?",
        "What color does the background have?", "Tell me the colour of the background.",
        "On which colour are the things?", "Which color is the background?", "What is the color behind everything?",
        "Say the background colour.",
    ),
    "where": (
        "Where is {the}?", "Where in the picture is {the}?", "In which part of the picture is {the}?",
        "Where do you see {the}?", "What is the position of {the}?", "Find {the}.", "Where can {the} be found?",
        "In what corner or side is {the}?", "Locate {the}.", "Tell me where {the} is.",
        "Where in the image is {the}?", "Where is {the} located?", "In which part of the image is {the}?",
        "Say where {the} is.", "What place does {the} have in the picture?", "Where is {the} in this picture?",
        "At which side or corner is {the}?", "Give the position of {the}.",
    ),
    "beside": (
        "What is {place} {the}?", "Which thing is {place} {the}?", "What do you see {place} {the}?",
        "Name the thing {place} {the}.", "What can be found {place} {the}?", "Tell me what is {place} {the}.",
        "{Place} {the} there is what?", "What object is {place} {the}?",
        "What is there {place} {the}?", "What lies {place} {the}?", "Which object is {place} {the}?",
        "Say what is {place} {the}.", "What is located {place} {the}?", "What thing is directly {place} {the}?",
        "What do we find {place} {the}?",
    ),
    "relation": (
        "Is {the} {place} {other}?", "Is {the} located {place} {other}?", "Do you see {the} {place} {other}?",
        "Can {the} be found {place} {other}?", "Would you say {the} is {place} {other}?",
        "Does {the} lie {place} {other}?",
        "Is {the} somewhere {place} {other}?", "Is {the} to be seen {place} {other}?",
        "Is it true that {the} is {place} {other}?", "Does the picture show {the} {place} {other}?",
        "Is {the} {place} {other}, yes or no?", "{The} is {place} {other}, right?",
    ),
    "exists": (
        "Is there {a}?", "Do you see {a}?", "Is there {a} in the picture?", "Does the picture show {a}?",
        "Can you see {a}?", "Is {a} in this picture?", "Is {a} visible?", "Does {a} appear in the image?",
        "Is any part of the picture {a}?", "Do you find {a} here?",
        "Is there {a} in the image?", "Can {a} be seen?", "Does the image contain {a}?", "Is {a} shown?",
        "Does this picture have {a} in it?", "Do we see {a}?", "Is {a} there?", "Yes or no: is there {a}?",
        "Can you find {a}?", "Is {a} among the things in the picture?", "Could you find {a} here?",
        "Is there {a} somewhere?", "Is {a} somewhere in the picture?",
    ),
    "changed": (
        "What changed?", "What is the difference?", "What has changed between the two pictures?",
        "Compare the two pictures.", "What is different in the second picture?", "How do the two pictures differ?",
        "Which change do you see?", "What happened from the first picture to the second?", "Spot the difference.",
        "Tell me what is not the same.",
        "What was changed?", "What is new in the second picture?", "What is the difference between the two pictures?",
        "How is the second picture different from the first?", "Find the difference.", "What is different?",
        "Describe the change.", "What did change from the first image to the second?", "Did anything change?",
        "Say what has changed.",
    ),
    "direction": (
        "Which way does {the} move?", "In which direction does {the} move?", "Where does {the} go?",
        "How does {the} move?", "What is the direction of {the}?", "Which direction does {the} take?",
        "{The} moves in which direction?", "From where to where does {the} move?",
        "Where is {the} moving?", "In what direction is {the} moving?", "Which way is {the} going?",
        "Describe how {the} moves.", "Where does {the} move to?", "Tell me the direction in which {the} moves.",
        "Which way does {the} go?",
    ),
    "moves": (
        "What moves?", "Which thing moves?", "What is moving?", "Which object is moving in the video?",
        "Name the thing that moves.", "What does not stay in its place?", "Which of them moves?", "Tell me what moves.",
        "Which object moves?", "What is in motion?", "Say which thing moves.", "What changes its place?",
        "What moves in the video?",
    ),
    "appears": (
        "What appears?", "Which thing appears?", "What comes into the picture?", "What shows up in the video?",
        "Name the thing that appears.", "What is new at the end?",
        "What turns up?", "Which object appears?", "What appears in the video?", "What was not there at the start?",
        "Say what appears.", "What suddenly is there?", "What pops up?", "What enters?",
    ),
    "disappears": (
        "What disappears?", "Which thing disappears?", "What goes away?", "What is gone at the end?",
        "Name the thing that disappears.", "What vanishes in the video?",
        "Which object disappears?", "What disappears in the video?", "What is missing at the end?",
        "Say what disappears.", "Which thing is gone at the end?", "What is suddenly gone?",
    ),
    "order": (
        "What is shown first and what last?", "In which order do things appear?",
        "What comes first and what comes later?",
        "Name what you see, in order.", "What does the video show, one after the other?",
        "Tell me the order of the things.",
        "What comes first and what comes next?", "What do you see first, and what then?",
        "Describe what happens in the video.", "What happens in the video?", "What is shown, and in what order?",
        "Say what comes first and what last.",
    ),
    "read": (
        "What does it say?", "Read the text.", "What is written here?", "What is the text in the picture?",
        "Which word or number is this?", "Can you read it?", "Please read what is written.", "What do the letters say?",
        "What text do you see?", "Write down the text.",
        "What is written in the picture?", "What does the text say?", "What word or number do you see?", "Read it.",
        "What text is shown?", "Which letters or digits are there?", "Read out the text in the image.",
        "What does the sign say?", "Please read it to me.", "Tell me what is written.", "What letters do you see?",
        "What is the word?",
    ),
    "define": (
        "What is {a}?", "What does {word} mean?", "Define {word}.", "Explain the word {word}.",
        "What is meant by {word}?",
        "Tell me the meaning of {word}.",
    ),
    "sort": (
        "What kind of thing is {a}?", "Is {a} an animal, food, or what else?", "What sort of thing is {a}?",
        "To which group does {a} belong?", "What category is {a}?",
    ),
    "example": (
        "Name {kind}.", "Give an example of {kind}.", "Can you name {kind}?", "Tell me the name of {kind}.",
        "What is an example of {kind}?",
    ),
    "opposite": (
        "What is the opposite of {word}?", "Name the opposite of {word}.", "Which word is the opposite of {word}?",
        "Tell me the opposite of {word}.", "The opposite of {word} is?",
    ),
    "sum": (
        "What is {left} plus {right}?", "Add {left} and {right}.", "{left} + {right} = ?",
        "How much is {left} + {right}?",
        "What do {left} and {right} make?", "Compute {left} + {right}.",
    ),
    "difference": (
        "What is {left} minus {right}?", "Take {right} from {left}.", "{left} - {right} = ?",
        "How much is {left} - {right}?", "Subtract {right} from {left}.", "Compute {left} - {right}.",
    ),
}  # fmt: skip


@lru_cache(maxsize=256)
def templates_of(family: str, test: bool) -> tuple[str, ...]:
    """The wordings of a family on one side of the split."""
    return tuple(split_templates(TEMPLATES[family])[1 if test else 0])


def ask(rng: np.random.Generator, family: str, test: bool, **words: str) -> str:
    """Words a question; `The` and `Place` are filled with the capitalised forms of `the` and `place`."""
    choices = templates_of(family, test)
    text = choices[rng.integers(len(choices))]
    capitals = {key.capitalize(): value[:1].upper() + value[1:] for key, value in words.items()}
    return text.format(**words, **capitals)
