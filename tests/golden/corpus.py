"""The text on which the fixtures' tokenizers are trained: sentences built here from word lists, and a few scripts.

Nothing comes from a published data set or tokenizer.
"""

from __future__ import annotations

import itertools

_WHO = ("A man", "A woman", "The child", "An old fisherman", "My neighbour", "The driver", "A small dog", "The cook")
_DOES = ("is looking at", "walks past", "paints", "carries", "stands behind", "points to", "is cleaning", "sells")
_WHAT = ("a red boat", "the yellow door", "three green apples", "a wooden chair", "the empty street", "a tall tower")
_WHERE = ("near the river", "in the kitchen", "on a rainy morning", "under the bridge", "at the station", "by the sea")

_QUESTIONS = (
    "What is in the picture?",
    "What is the colour of the door?",
    "Describe the image in two sentences.",
    "How many people are there, and what are they doing?",
    "Is the street wet or dry?",
    "Please describe what happens in this video.",
    "Where was this photo taken, and at what time of day?",
    "Which of the images shows a person?",
    "Can you read the sign on the wall?",
    "What's the difference between the first picture and the second one?",
)

_PROMPTS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "You are a helpful language and vision assistant.",
    "You are able to understand the visual content that the user provides,",
    "and assist the user with a variety of tasks using natural language.",
    "USER: the question ASSISTANT: the answer",
    "system user assistant Answer the questions.",
)

_OTHER_SCRIPTS = (
    "Ein Hund läuft über die Straße; es ist schön.",
    "Le café est fermé, où allez-vous ?",
    "Кошка спит на окне.",
    "Ένα μικρό πλοίο φεύγει νωρίς.",
    "猫が窓で眠っている。",
    "这张图片里有一只猫。",
    "यह एक नाव है।",
    "القطة تنام هنا.",
    "def area(w, h):\n    return w * h  # 12 x 34",
    "At 16:45 it costs 12.50, at 7:08 only 3.99!",
)


def sentences() -> list[str]:
    """Returns the training sentences, always the same and in the same order."""
    scenes = []
    for index, (who, does) in enumerate(itertools.product(_WHO, _DOES)):
        for step in range(3):
            what = _WHAT[(index + step) % len(_WHAT)]
            where = _WHERE[(index * 5 + step) % len(_WHERE)]
            scenes.append(f"{who} {does} {what} {where}.")
    return [*scenes, *(_QUESTIONS * 6), *(_PROMPTS * 40), *(_OTHER_SCRIPTS * 2)]
