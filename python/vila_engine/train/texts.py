"""Text without pictures: task T11, and the documents of the language stage.

A document of the language stage is a definition, a conversation of T11, or a conversation about a picture that is told
in words instead of shown. From the last kind the language model learns the forms of questions and answers, and to
count and compare, before it ever sees a picture.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from .concepts import KIND_NOUN, with_article
from .facts import NUMBERS, Turn, background_phrase, noun, phrase, place_of, sentence
from .layout import TRAIN, Side
from .scenes import Rng, Scene
from .tasks import PICTURE_TASKS, Sample
from .templates import ask
from .world import World

OPPOSITES = tuple(
    pair.split("/")
    for pair in [
        "hot/cold",
        "big/small",
        "long/short",
        "high/low",
        "fast/slow",
        "old/new",
        "young/old",
        "good/bad",
        "light/dark",
        "day/night",
        "up/down",
        "left/right",
        "open/closed",
        "full/empty",
        "hard/soft",
        "wet/dry",
        "clean/dirty",
        "rich/poor",
        "strong/weak",
        "happy/sad",
        "early/late",
        "first/last",
        "near/far",
        "inside/outside",
        "thick/thin",
        "wide/narrow",
        "loud/quiet",
        "sweet/sour",
        "heavy/light",
        "easy/difficult",
        "true/false",
        "right/wrong",
        "black/white",
        "begin/end",
        "push/pull",
        "buy/sell",
        "come/go",
        "win/lose",
        "love/hate",
        "question/answer",
        "north/south",
        "east/west",
        "summer/winter",
        "friend/enemy",
        "alive/dead",
        "sharp/blunt",
        "smooth/rough",
        "top/bottom",
        "front/back",
        "give/take",
        "ask/answer",
        "sit/stand",
        "laugh/cry",
        "remember/forget",
        "always/never",
        "more/less",
        "all/none",
        "above/below",
        "yes/no",
        "arrive/leave",
    ]
)
FIXED = (
    ("Hello!", "Hello! Show me a picture and ask me about it."),
    ("Hi.", "Hello! Show me a picture and ask me about it."),
    ("What can you do?", "I can name drawings, count, compare two pictures, read short words and watch short videos."),
    ("Who are you?", "I am a small visual language model. I know drawings, not photographs."),
    ("What are you?", "I am a small visual language model. I know drawings, not photographs."),
    ("What can I ask you?", "What is this? How many are there? Where is it? What changed? What does it say?"),
    ("Thank you.", "You are welcome."),
    ("Goodbye.", "Goodbye!"),
    ("Do you know photographs?", "No. I was trained on drawings and simple scenes only."),
)


def text_turn(world: World, rng: Rng, side: Side) -> Turn:
    """A question that needs no picture."""
    family = ("define", "sort", "example", "opposite", "sum", "difference", "fixed")[
        rng.choice(7, p=(0.2, 0.2, 0.1, 0.15, 0.15, 0.15, 0.05))
    ]
    test = side.test_templates
    if family == "fixed":
        question, answer = FIXED[rng.integers(len(FIXED))]
        return Turn(question, answer, (), family)
    if family == "define":
        word, gloss = world.concept_glosses[rng.integers(len(world.concept_glosses))]
        return Turn(ask(rng, family, test, a=with_article(word), word=word), sentence(gloss), (), family)
    if family == "sort":
        concept = world.concepts[rng.integers(len(world.concepts))]
        return Turn(ask(rng, family, test, a=concept.phrase), KIND_NOUN[concept.kind], (), family)
    if family == "example":
        concept = world.concepts[rng.integers(len(world.concepts))]
        fellows = tuple(sentence(c.phrase) for c in world.concepts if c.kind == concept.kind)
        return Turn(ask(rng, family, test, kind=KIND_NOUN[concept.kind]), sentence(concept.phrase), fellows, family)
    if family == "opposite":
        pair = OPPOSITES[rng.integers(len(OPPOSITES))]
        word, answer = pair if rng.random() < 0.5 else pair[::-1]
        both = tuple(b if a == word else a for a, b in OPPOSITES if word in (a, b))
        return Turn(ask(rng, family, test, word=word), answer, both, family)
    left, right = (int(n) for n in rng.integers(0, 20, 2))
    if family == "difference":
        left += right
    answer = str(left + right if family == "sum" else left - right)
    return Turn(ask(rng, family, test, left=str(left), right=str(right)), answer, (), family)


def text_task(world: World, rng: Rng, side: Side) -> Sample:
    """T11: one to three questions without pictures."""
    count = int(rng.integers(1, 4)) if side.more else 1
    return Sample("text", (), tuple(text_turn(world, rng, side) for _ in range(count)))


def tell(world: World, scene: Scene) -> str:
    """A scene in words: what is where, on what."""
    counts = Counter(noun(item) for item in scene.items if item.kind != "text")
    parts = []
    for item in scene.items:
        if item.kind == "text":
            parts.append(f'the text "{item.name}"')
        elif counts[noun(item)] == 1:
            place = place_of(item)
            parts.append(phrase(world, item) + (f" at the {place}" if place else ""))
    for name, number in counts.items():
        if number > 1:
            item = next(item for item in scene.items if noun(item) == name)
            many = world.concepts[item.concept].plural if item.kind == "sprite" else f"{name}s"
            parts.append(f"{NUMBERS[number]} {many}")
    what = ", ".join(parts) if parts else "nothing"
    return f"{what}, on {background_phrase(scene)}."


def told(world: World, sample: Sample) -> Sample | None:
    """The sample with its pictures told in words; None where that would not carry what is asked."""
    if sample.task in ("easy-vqa", "in-context", "video"):
        return None
    scenes = [scene for scene in sample.scenes if isinstance(scene, Scene)]
    lines = [f"Picture: {tell(world, scene)}" for scene in scenes]
    first = sample.turns[0]
    turn = Turn("\n".join([*lines, first.question]), first.answer, first.accepted, first.family)
    return Sample(sample.task, (), (turn, *sample.turns[1:]))


def language_document(world: World, rng: Rng) -> Sample | str:
    """One document of the language stage."""
    kind = rng.random()
    if kind < 0.3:
        word, gloss = world.glosses[rng.integers(len(world.glosses))]
        return f"{word}: {gloss}."
    if kind < 0.5:
        return text_task(world, rng, TRAIN)
    names = sorted(PICTURE_TASKS)
    while True:
        sample = told(world, PICTURE_TASKS[names[rng.integers(len(names))]](world, rng, TRAIN))
        if sample is not None:
            return sample


def corpus(world: World, count: int, seed: int) -> list[str]:
    """Lines for the training of the tokenizer: all definitions and the turns of `count` documents."""
    lines = [f"{word}: {gloss}." for word, gloss in world.glosses]
    for index in range(count):
        document = language_document(world, np.random.default_rng([seed, 2, index]))
        if isinstance(document, Sample):
            for turn in document.turns:
                lines += [*turn.question.split("\n"), turn.answer]
    return lines
