"""Prompts of an exact number of tokens, and pictures that no cache has seen."""

from __future__ import annotations

import string
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vila_engine._core import InvalidArgument
from vila_engine.engine import Model

FILLERS = (" x", " a", " the", " and", "x", "\n", ",")


class Prompts:
    """Makes prompts for a model that was loaded with the chat template "plain".

    Every prompt starts with another word, so that the engine's cache of the last prompt holds the begin token at most.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._first_words = _words()
        self._random = np.random.default_rng(0)
        self._filler = self._find_filler()
        self.n_cached = len(model.prompt_ids("a")) - self._count("a")

    def text(self, n_tokens: int) -> str:
        """A new prompt of `n_tokens` tokens besides those that the template puts in front.

        Raises:
            InvalidArgument: the tokenizer makes no text of exactly this length from the words tried.
        """
        for _ in range(200):
            word = next(self._first_words)
            missing = n_tokens - self._count(word)
            text = word + self._filler * missing
            if missing >= 0 and self._count(text) == n_tokens:
                return text
        raise InvalidArgument(f"[bench] expected a tokenizer that can make a text of {n_tokens} tokens, got none")

    def picture(self, width: int, height: int) -> npt.NDArray[np.uint8]:
        """A new picture of random pixels, [height, width, 3]."""
        return self._random.integers(0, 256, (height, width, 3), np.uint8)

    def _find_filler(self) -> str:
        """A text that adds one token each time it is appended."""
        for filler in FILLERS:
            if self._count("a" + filler * 32) == self._count("a") + 32:
                return filler
        raise InvalidArgument(f"[bench] expected a tokenizer that knows one of {FILLERS}, got another")

    def _count(self, text: str) -> int:
        return len(self._model.tokenizer.encode(text, add_special=False))


def _words() -> Iterator[str]:
    """All words of one letter, then of two letters, and so on."""
    words = [""]
    while True:
        words = [word + letter for word in words for letter in string.ascii_lowercase]
        yield from words
