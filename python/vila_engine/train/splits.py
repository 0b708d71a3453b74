"""Who sees what: the held-out splits, decided by a hash of the thing itself and never by the sample.

The same drawing, composition, template or word is therefore on the same side in every run, whatever the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

TRAIN_ARTISTS = ("noto", "fluent-emoji-flat", "twemoji")
UNSEEN_ARTIST = "fxemoji"
DRAWING_SHARE = 0.12
COMPOSITION_SHARE = 0.10
TEMPLATE_SHARE = 0.20
WORD_SHARE = 0.10


def fraction(*key: object) -> float:
    """Maps a key to [0, 1), evenly and for ever the same (BLAKE2b of its parts)."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2.0**64


def drawing_is_held_out(concept: str, artist: str) -> bool:
    """Whether this artist's drawings of a concept are kept from training: 12 % of the concepts lose one artist."""
    if artist == UNSEEN_ARTIST:
        return True
    if fraction("drawing", concept) >= DRAWING_SHARE:
        return False
    return TRAIN_ARTISTS[int(fraction("artist", concept) * len(TRAIN_ARTISTS))] == artist


def composition_is_held_out(*parts: object) -> bool:
    """Whether a combination such as (fox, left of, cup), (fox, 3) or (red, circle) is kept from training."""
    return fraction("composition", *parts) < COMPOSITION_SHARE


def word_is_held_out(word: str) -> bool:
    """Whether a word or a digit string is kept from training pictures of text."""
    return fraction("word", word.lower()) < WORD_SHARE


def split_templates(templates: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits question templates into training and test ones: the fifth with the least hashes is for the test."""
    count = round(len(templates) * TEMPLATE_SHARE)
    test = set(sorted(templates, key=lambda text: fraction("template", text))[:count])
    return [t for t in templates if t not in test], [t for t in templates if t in test]


def choose_by_side(items: Sequence[T], is_test: Sequence[bool], test: bool) -> list[T]:
    """The items of one side of a split."""
    return [item for item, flag in zip(items, is_test, strict=True) if flag == test]
