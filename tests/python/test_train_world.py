"""The world that scenes are made of: its splits, and a small made-up one for the tests of training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import ImageFont
from vila_engine.train import splits
from vila_engine.train.concepts import CONCEPTS, CORE_CONCEPTS, Concept, plural, with_article
from vila_engine.train.templates import TEMPLATES, templates_of
from vila_engine.train.world import TEST_FONTS, TRAIN_FONTS, Drawing, World

WORDS = [
    "able",
    "bird",
    "cake",
    "door",
    "each",
    "fire",
    "good",
    "hand",
    "iron",
    "jump",
    "kind",
    "lamp",
    "moon",
    "nose",
    "open",
    "park",
    "quiz",
    "rain",
    "sand",
    "time",
    "under",
    "very",
    "wind",
    "year",
    "zero",
    "apple",
    "bread",
    "chair",
    "dream",
    "eagle",
    "field",
    "grass",
    "house",
    "ideal",
    "jolly",
    "knife",
    "light",
    "magic",
    "night",
]


def make_world(folder: Path, n_concepts: int = 40) -> World:
    """A world of random blots: 3 artists and an unseen one, a font, words and two easy-VQA pictures; no downloads."""
    rng = np.random.default_rng(0)
    concepts = tuple(CORE_CONCEPTS[:n_concepts])
    drawings, sprites = [], []
    for index, concept in enumerate(concepts):
        for artist in (*splits.TRAIN_ARTISTS, splits.UNSEEN_ARTIST):
            drawings.append(Drawing(len(sprites), index, artist, splits.drawing_is_held_out(concept.name, artist)))
            blot = np.zeros((96, 96, 4), np.uint8)
            blot[8:88, 8:88] = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 4)), 20, 0), 20, 1)
            blot[8:88, 8:88, 3] = 255
            sprites.append(blot)
    fonts = folder / "fonts"
    fonts.mkdir(parents=True, exist_ok=True)
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    for name in TRAIN_FONTS + TEST_FONTS:
        (fonts / f"{name}.font").write_bytes(font.font_bytes)
    glosses = [(c.name, f"something that is known as {c.name} to everybody") for c in concepts]
    questions = [(image, f"is there a {c} shape?", a) for image in (0, 1) for c, a in (("red", "yes"), ("blue", "no"))]
    pictures = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    synonyms = {c.name: [c.name] for c in concepts}
    return World(
        concepts, drawings, np.stack(sprites), synonyms, list(WORDS), glosses, pictures,
        {"train": questions, "test": questions}, fonts,
    )  # fmt: skip


def test_a_hash_decides_and_not_the_run() -> None:
    assert splits.fraction("word", "house") == pytest.approx(0.6080687730936988)
    shares = [splits.fraction("anything", i) for i in range(4000)]
    assert 0.48 < float(np.mean(shares)) < 0.52
    assert 0.08 < float(np.mean([splits.word_is_held_out(str(i)) for i in range(4000)])) < 0.12


def test_case_of_a_word_does_not_change_its_side() -> None:
    assert all(splits.word_is_held_out(w) == splits.word_is_held_out(w.upper()) for w in map(str, WORDS))


def test_every_concept_keeps_two_artists_and_loses_at_most_one() -> None:
    lost = Counter(c.name for c in CONCEPTS for a in splits.TRAIN_ARTISTS if splits.drawing_is_held_out(c.name, a))
    assert max(lost.values()) == 1
    assert 0.08 < len(lost) / len(CONCEPTS) < 0.16
    assert all(splits.drawing_is_held_out(c.name, splits.UNSEEN_ARTIST) for c in CONCEPTS)


@pytest.mark.parametrize("family", sorted(TEMPLATES))
def test_templates_are_split_without_overlap(family: str) -> None:
    train, test = set(templates_of(family, False)), set(templates_of(family, True))
    assert not train & test and train | test == set(TEMPLATES[family])
    assert len(test) == round(0.2 * len(TEMPLATES[family])) > 0


def test_drawings_of_a_side_are_disjoint(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    rows = {side: {d.row for c in world.concepts_with(side) for d in world.drawings_of(c, side)}
            for side in ("train", "unseen_drawing", "unseen_artist")}  # fmt: skip
    assert not rows["train"] & rows["unseen_drawing"] and not rows["train"] & rows["unseen_artist"]
    assert sum(map(len, rows.values())) == len(world.drawings)
    assert not set(world.train_words) & set(world.test_words)


def test_there_are_enough_concepts_and_their_names_are_unique() -> None:
    assert len(CORE_CONCEPTS) >= 250
    for choice in (CONCEPTS, CORE_CONCEPTS):
        assert len({concept.name for concept in choice}) == len(choice)


@pytest.mark.parametrize(
    ("noun", "many", "article"),
    [("fox", "foxes", "a fox"), ("mouse", "mice", "a mouse"), ("owl", "owls", "an owl"),
     ("unicorn", "unicorns", "a unicorn"),
     ("teddy bear", "teddy bears", "a teddy bear"), ("strawberry", "strawberries", "a strawberry"),
     ("monkey", "monkeys", "a monkey"), ("hourglass", "hourglasses", "an hourglass")],
)  # fmt: skip
def test_grammar(noun: str, many: str, article: str) -> None:
    assert (plural(noun), with_article(noun)) == (many, article)


def test_articles_follow_the_sound() -> None:
    """Every name with a doubtful first letter, looked at one by one, and further words of the definitions."""
    an = (
        "hourglass,octopus,olive,onion,open book,orange,orange book,orange heart,orangutan,otter,owl,ox,eagle,egg,"
        "eggplant,electric plug,elephant,envelope,exclamation mark,umbrella,up arrow"
    )
    a = (
        "hamburger,hammer,hamster,handbag,hatching chick,hedgehog,helicopter,helmet,herb,hibiscus,hippopotamus,"
        "hockey stick,honey pot,hook,horse,hospital,hot air balloon,hot dog,hot pepper,hotel,house,hut,unicorn"
    )
    doubtful = {c.name for c in CONCEPTS if c.countable and c.name[0].lower() in "hoeu"}
    assert doubtful == {*an.split(","), *a.split(",")}
    for nouns in (an, "hour,heir,honour,usher,utmost,urn,onerous,unimportant"):
        assert all(with_article(noun) == f"an {noun}" for noun in nouns.split(","))
    for nouns in (a, "union,unit,use,usual,using,utensil,urine,one-way,ewe,yo-yo,T-shirt"):
        assert all(with_article(noun) == f"a {noun}" for noun in nouns.split(","))


def test_things_without_plural_have_no_article() -> None:
    assert Concept("rice", "food", ()).phrase == "rice" and not Concept("grapes", "fruit", ()).countable
