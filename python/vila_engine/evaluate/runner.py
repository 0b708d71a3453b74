"""Asks a model all questions of a set and writes what it said.

Every answer is appended to `answers.jsonl` at once, so that a killed run goes on where it was. Questions about the same
pictures come one after the other: the engine finds the pictures in its cache and does not encode them again. A model
that answers in batches gets the same batches in every run of the same questions, resumed or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vila_engine._core import InvalidArgument
from vila_engine.evaluate.items import Item
from vila_engine.evaluate.metrics import divergence, log_softmax
from vila_engine.evaluate.scorers import EXTRA_SCORERS, scorer_of
from vila_engine.media import load_image

MAX_NEW_TOKENS = 48
Messages = list[dict[str, str]]


class Answerer(Protocol):
    """What is evaluated: `vila_engine.Model`, or a PyTorch model behind the same methods."""

    info: dict[str, Any]

    def generate(self, query: Any, *, images: Any = (), videos: Any = (), max_new_tokens: int = 16) -> Any:
        """The greedy answer: an object with `text` and `token_ids`."""

    def prompt_ids(self, query: Any, *, images: Any = (), videos: Any = ()) -> list[int]:
        """The prompt's ids; pictures are only counted, videos are numbers of frames."""

    def logits(self, query: Any, *, images: Any = (), videos: Any = ()) -> npt.NDArray[np.float32]:
        """Logits at every place of the prompt `[T, V]`."""


@dataclass(frozen=True)
class Gold:
    """What a model thinks of the gold answer: its length in tokens and the log probabilities `[tokens, V]`."""

    nll: float
    tokens: int
    log_probabilities: npt.NDArray[np.float64]

    @classmethod
    def of(cls, logits: npt.ArrayLike, ids: Sequence[int]) -> Gold:
        """From the logits `[tokens, V]` that predict the answer's ids."""
        rows = log_softmax(logits)
        return cls(-float(rows[np.arange(len(ids)), ids].sum()), len(ids), rows)


@dataclass(frozen=True)
class Reply:
    """What a model says to one question.

    Attributes:
        text: The greedy answer.
        token_ids: Its ids, the end token included.
        gold: What the model thinks of the gold answer, where that was asked for.
        counts: Token counts of the pictures, where the model gives them.
    """

    text: str
    token_ids: list[int]
    gold: Gold | None = None
    counts: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class BatchAnswerer(Protocol):
    """A model that is quicker when it is asked several questions at once."""

    info: dict[str, Any]
    batch: int

    def replies(self, items: Sequence[Item], quality: bool) -> list[Reply]:
        """The greedy answers of at most `batch` questions, in their order; with `quality` the gold answers too."""


class OneByOne:
    """An `Answerer` as a `BatchAnswerer` of one question at a time."""

    batch = 1

    def __init__(self, model: Answerer) -> None:
        self.model, self.info = model, model.info

    def replies(self, items: Sequence[Item], quality: bool) -> list[Reply]:
        """See `BatchAnswerer`."""
        return [self._reply(item, quality) for item in items]

    def _reply(self, item: Item, quality: bool) -> Reply:
        media = media_of(item)
        question = [{"role": "user", "content": item.question}]
        result = self.model.generate(question, **media, max_new_tokens=MAX_NEW_TOKENS)
        usage = getattr(result, "usage", None)
        counts = {} if usage is None else {"image_tokens": usage.image_tokens, "cached_tokens": usage.cached_tokens}
        gold = gold_answer(self.model, item, media) if quality else None
        return Reply(result.text, list(result.token_ids), gold, counts)


def media_of(item: Item) -> dict[str, Any]:
    """The pictures of an item as arguments of `generate`."""
    pictures = [load_image(path) for path in item.images]
    return {"videos": [pictures]} if item.video else {"images": pictures}


def told(item: Item) -> tuple[Messages, Messages]:
    """The question alone, and the question with the gold answer."""
    asked: Messages = [{"role": "user", "content": item.question}]
    return asked, [*asked, {"role": "assistant", "content": item.answer}]


def gold_ids(model: Answerer, item: Item) -> list[int]:
    """The ids of the gold answer behind its question, the end token included."""
    counts: dict[str, Any] = {"videos": [len(item.images)]} if item.video else {"images": len(item.images)}
    asked, answered = told(item)
    return model.prompt_ids(answered, **counts)[len(model.prompt_ids(asked, **counts)) :]


def gold_answer(model: Answerer, item: Item, media: dict[str, Any]) -> Gold:
    """How likely the gold answer is, its end included: negative log likelihood in nats, and the distributions."""
    ids = gold_ids(model, item)
    return Gold.of(model.logits(told(item)[1], **media)[-1 - len(ids) : -1], ids)


def _done(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers of an earlier run with the same header; a line that a kill cut off is dropped."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    if not rows or rows[0] != header:
        found = rows[0] if rows else "an empty file"
        raise InvalidArgument(f"[eval] {path}: expected a run of {header}, got {found}; choose another output folder")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows[1:]


def _reference(folder: Path | None) -> dict[str, dict[str, Any]]:
    if folder is None:
        return {}
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text("utf-8").splitlines()]
    return {row["id"]: row for row in rows[1:]}


def evaluate(
    model: Answerer | BatchAnswerer,
    items: Sequence[Item],
    folder: Path,
    *,
    quality: bool = False,
    reference: Path | None = None,
    progress: Callable[[Iterable[Item], int, int], Iterable[Item]] | None = None,
) -> list[dict[str, Any]]:
    """Asks all questions, or those that an earlier run in the same folder has left.

    Args:
        model: What answers.
        items: The questions; see `load_items`.
        folder: Where `answers.jsonl` is written and, with `quality` and no reference, `gold/ID.npy`.
        quality: Measure the likelihood of the gold answers too.
        reference: Folder of another model's run with `quality`: adds the divergence from it and whether the answer
            flipped.
        progress: Wraps the questions that are left, given how many there are in all and how many are done.

    Returns:
        One row per question: id, task, split, answer, its ids, gold, score and the other figures.

    Raises:
        InvalidArgument: the folder holds a run of another model or set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = {"model": str(model.info.get("source")), "quality": quality, "questions": len(items)}
    path = folder / "answers.jsonl"
    rows = _done(path, header)
    known = {row["id"] for row in rows}
    theirs = _reference(reference)
    replies = _replies(model if isinstance(model, BatchAnswerer) else OneByOne(model), items, known, quality)
    left: Iterable[Item] = [item for item in items if item.id not in known]
    if progress is not None:
        left = progress(left, len(items), len(rows))
    with path.open("a", encoding="utf-8") as stream:
        for item, reply in zip(left, replies, strict=True):
            row = _row(item, reply)
            if reply.gold is not None:
                row |= _measure(item, reply.gold, folder / "gold", reference)
            if item.id in theirs:
                row["flipped"] = row["text"] != theirs[item.id]["text"]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            rows.append(row)
    return rows


def _replies(model: BatchAnswerer, items: Sequence[Item], known: set[str], quality: bool) -> Iterator[Reply]:
    """Replies to the items that are not known; a batch of which some are is asked again as a whole."""
    for start in range(0, len(items), model.batch):
        together = items[start : start + model.batch]
        if any(item.id not in known for item in together):
            for item, reply in zip(together, model.replies(together, quality), strict=True):
                if item.id not in known:
                    yield reply


def _row(item: Item, reply: Reply) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item.id, "task": item.task, "split": item.split, "text": reply.text, "ids": reply.token_ids,
        "gold": item.answer, "score": scorer_of(item.task).score(item, reply.text),
    }  # fmt: skip
    extra = EXTRA_SCORERS.get(item.task)
    if extra is not None:
        row["extra"] = extra.score(item, reply.text)
    return row | reply.counts


def _measure(item: Item, gold: Gold, folder: Path, reference: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"nll": gold.nll, "tokens": gold.tokens}
    mine = gold.log_probabilities.astype(np.float32)
    if reference is None:
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{item.id}.npy", mine)
    else:
        theirs = np.load(reference / "gold" / f"{item.id}.npy")
        row["kl"] = float(divergence(log_softmax(theirs), log_softmax(mine)).mean())  # sums to one again after rounding
    return row
