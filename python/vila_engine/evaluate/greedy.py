"""Where two models answer greedily with other tokens, and by how little the first of them preferred its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import InvalidArgument
from vila_engine.evaluate.items import Item

NextLogits = Callable[[Item, Sequence[int]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """One question that two models answer with other tokens.

    Attributes:
        item: The question.
        texts: Both answers.
        place: The first token that differs, from 0; everything before is equal.
        tokens: The two tokens.
        margin: Logit of the first model for its own token less that for the other one; a draw is 0.
    """

    item: Item
    texts: tuple[str, str]
    place: int
    tokens: tuple[int, int]
    margin: float


class GreedyComparison:
    """The greedy answers of two models to the same questions, token by token.

    A difference with a margin of the size of rounding errors is a draw that rounding decided; a larger one is a defect.

    Args:
        items: The questions.
        one: Rows of the first model's run by question; `ids` are the tokens of an answer, its end included.
        other: The same of the second model.

    Raises:
        InvalidArgument: a run lacks a question.
    """

    def __init__(self, items: Sequence[Item], one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
        for rows in (one, other):
            missing = [item.id for item in items if item.id not in rows]
            if missing:
                raise InvalidArgument(
                    f"[greedy] expected an answer to all {len(items)} questions, got none to {missing}"
                )
        self.items, self._one, self._other = items, one, other

    def differences(self, next_logits: NextLogits) -> list[Difference]:
        """All questions with other tokens, the largest margin first.

        Args:
            next_logits: The first model's logits `[V]` behind a question and the first tokens of an answer.
        """
        found = []
        for item in self.items:
            mine, theirs = self._one[item.id], self._other[item.id]
            if mine["ids"] == theirs["ids"]:
                continue
            place = next(i for i, (a, b) in enumerate(zip(mine["ids"], theirs["ids"], strict=False)) if a != b)
            tokens = mine["ids"][place], theirs["ids"][place]
            logits = next_logits(item, mine["ids"][:place])
            margin = float(logits[tokens[0]]) - float(logits[tokens[1]])
            found.append(Difference(item, (mine["text"], theirs["text"]), place, tokens, margin))
        return sorted(found, key=lambda difference: -difference.margin)
