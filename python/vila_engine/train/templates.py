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
    ),
    "kind": (
        "What kind of thing is it?", "Is it an animal, food, or what else?", "What sort of thing is this?",
        "To which group does it belong?", "What category is this?",
    ),
    "caption": (
        "Describe the picture.", "Describe this image.", "What is going on in the picture?", "Write a caption.",
        "Please describe what you see.", "Give a short description of the picture.", "Caption this picture.",
        "Describe the scene.", "Say in one sentence what is in the picture.", "What does the whole picture look like?",
    ),
    "count": (
        "How many {many} are there?", "How many {many} do you see?", "Count the {many}.",
        "What is the number of {many}?",
        "How many {many} are in the picture?", "Tell me how many {many} there are.", "How many {many} can you count?",
        "How many {many} does the picture show?", "Please count the {many}.", "The number of {many} is?",
    ),
    "colour": (
        "What colour is {the}?", "What color is {the}?", "Which colour does {the} have?", "Name the colour of {the}.",
        "{The} has which colour?", "Tell me the color of {the}.", "In what colour is {the} drawn?",
        "The colour of {the}?",
    ),
    "shape": (
        "What shape is {colour}?", "Which shape is {colour}?", "What is the {colour} shape?",
        "Name the {colour} shape.",
        "What shape does the {colour} thing have?", "Tell me the shape of the {colour} thing.",
        "Which form has the {colour} object?", "The {colour} thing has what shape?",
    ),
    "background": (
        "What colour is the background?", "What color is the background?", "Name the colour of the background.",
        "Which colour is behind it?", "What is the background colour?", "The background has which color?",
    ),
    "where": (
        "Where is {the}?", "Where in the picture is {the}?", "In which part of the picture is {the}?",
        "Where do you see {the}?", "What is the position of {the}?", "Find {the}.", "Where can {the} be found?",
        "In what corner or side is {the}?", "Locate {the}.", "Tell me where {the} is.",
    ),
    "beside": (
        "What is {place} {the}?", "Which thing is {place} {the}?", "What do you see {place} {the}?",
        "Name the thing {place} {the}.", "What can be found {place} {the}?", "Tell me what is {place} {the}.",
        "{Place} {the} there is what?", "What object is {place} {the}?",
    ),
    "relation": (
        "Is {the} {place} {other}?", "Is {the} located {place} {other}?", "Do you see {the} {place} {other}?",
        "Can {the} be found {place} {other}?", "Would you say {the} is {place} {other}?",
        "Does {the} lie {place} {other}?",
    ),
    "exists": (
        "Is there {a}?", "Do you see {a}?", "Is there {a} in the picture?", "Does the picture show {a}?",
        "Can you see {a}?", "Is {a} in this picture?", "Is {a} visible?", "Does {a} appear in the image?",
        "Is any part of the picture {a}?", "Do you find {a} here?",
    ),
    "changed": (
        "What changed?", "What is the difference?", "What has changed between the two pictures?",
        "Compare the two pictures.", "What is different in the second picture?", "How do the two pictures differ?",
        "Which change do you see?", "What happened from the first picture to the second?", "Spot the difference.",
        "Tell me what is not the same.",
    ),
    "direction": (
        "Which way does {the} move?", "In which direction does {the} move?", "Where does {the} go?",
        "How does {the} move?", "What is the direction of {the}?", "Which direction does {the} take?",
        "{The} moves in which direction?", "From where to where does {the} move?",
    ),
    "moves": (
        "What moves?", "Which thing moves?", "What is moving?", "Which object is moving in the video?",
        "Name the thing that moves.", "What does not stay in its place?", "Which of them moves?", "Tell me what moves.",
    ),
    "appears": (
        "What appears?", "Which thing appears?", "What comes into the picture?", "What shows up in the video?",
        "Name the thing that appears.", "What is new at the end?",
    ),
    "disappears": (
        "What disappears?", "Which thing disappears?", "What goes away?", "What is gone at the end?",
        "Name the thing that disappears.", "What vanishes in the video?",
    ),
    "order": (
        "What is shown first and what last?", "In which order do things appear?",
        "What comes first and what comes later?",
        "Name what you see, in order.", "What does the video show, one after the other?",
        "Tell me the order of the things.",
    ),
    "read": (
        "What does it say?", "Read the text.", "What is written here?", "What is the text in the picture?",
        "Which word or number is this?", "Can you read it?", "Please read what is written.", "What do the letters say?",
        "What text do you see?", "Write down the text.",
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
