"""How an answer is scored: a small class per kind of question, 0 to 1, with the name of the measure."""

from __future__ import annotations

import re
from collections import Counter
from typing import Protocol

from vila_engine.evaluate.items import Item


class Scorer(Protocol):
    """Scores one answer."""

    measure: str

    def score(self, item: Item, text: str) -> float:
        """The share of the answer that is right, 0 to 1."""


def plain(text: str) -> str:
    """Lower case without punctuation, articles and doubled spaces: the form in which answers are compared."""
    text = re.sub(r"[^\w\s]", " ", text.lower())
    words = [word for word in text.split() if word not in ("a", "an", "the")]
    return " ".join(words)


class ExactMatch:
    """1 if the answer is the gold answer or an accepted one, compared in their plain form."""

    measure = "exact match"

    def score(self, item: Item, text: str) -> float:
        """See the class."""
        return float(plain(text) in {plain(gold) for gold in (item.answer, *item.accepted)})


class KeywordMatch(ExactMatch):
    """As `ExactMatch`, for names whose accepted others are the drawing's keywords, some of them wide."""

    measure = "keyword match"


class StrictMatch:
    """1 if the answer is the gold answer itself; accepted others do not count."""

    measure = "exact match"

    def score(self, item: Item, text: str) -> float:
        """See the class."""
        return float(plain(text) == plain(item.answer))


class WordF1:
    """Harmonic mean of precision and recall of the words, for sentences that are right in part."""

    measure = "word F1"

    def score(self, item: Item, text: str) -> float:
        """See the class."""
        gold, found = Counter(plain(item.answer).split()), Counter(plain(text).split())
        common = sum((gold & found).values())
        if not common:
            return float(not gold and not found)
        precision, recall = common / sum(found.values()), common / sum(gold.values())
        return 2 * precision * recall / (precision + recall)


class AsGivenMatch:
    """1 if the text is the same but for case, for text that is read from a picture."""

    measure = "exact match"

    def score(self, item: Item, text: str) -> float:
        """See the class."""
        return float(text.strip().lower() == item.answer.strip().lower())


SCORERS: dict[str, Scorer] = {"read": AsGivenMatch(), "name": StrictMatch()}
EXTRA_SCORERS: dict[str, Scorer] = {"caption": WordF1(), "name": KeywordMatch()}
DEFAULT = ExactMatch()


def scorer_of(task: str) -> Scorer:
    """The main scorer of a task."""
    return SCORERS.get(task, DEFAULT)
