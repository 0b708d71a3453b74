"""Asks a model all questions of a set and writes what it said.

Every answer is appended to `answers.jsonl` at once, so that a killed run goes on where it was. Questions about the same
pictures come one after the other: the engine finds the pictures in its cache and does not encode them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


def media_of(item: Item) -> dict[str, Any]:
    """The pictures of an item as arguments of `generate`."""
    pictures = [load_image(path) for path in item.images]
    return {"videos": [pictures]} if item.video else {"images": pictures}


def gold_answer(model: Answerer, item: Item, media: dict[str, Any]) -> Gold:
    """How likely the gold answer is, its end included: negative log likelihood in nats, and the distributions."""
    asked: Messages = [{"role": "user", "content": item.question}]
    told: Messages = [*asked, {"role": "assistant", "content": item.answer}]
    counts: dict[str, Any] = {"videos": [len(item.images)]} if item.video else {"images": len(item.images)}
    ids = model.prompt_ids(told, **counts)[len(model.prompt_ids(asked, **counts)) :]
    logits = model.logits(told, **media)[-1 - len(ids) : -1]
    rows = log_softmax(logits)
    return Gold(-float(rows[np.arange(len(ids)), ids].sum()), len(ids), rows)


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
    model: Answerer,
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
        folder: Where `answers.jsonl` and, with `quality`, `gold/ID.npy` are written.
        quality: Measure the likelihood of the gold answers too.
        reference: Folder of another model's run with `quality`: adds the divergence from it and whether the answer
            flipped.
        progress: Wraps the questions that are left, given how many there are in all and how many are done.

    Returns:
        One row per question: id, task, split, answer, gold, score and the other figures.

    Raises:
        InvalidArgument: the folder holds a run of another model or set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = {"model": str(model.info.get("source")), "quality": quality, "questions": len(items)}
    path = folder / "answers.jsonl"
    rows = _done(path, header)
    known = {row["id"] for row in rows}
    theirs = _reference(reference)
    left: Iterable[Item] = [item for item in items if item.id not in known]
    if progress is not None:
        left = progress(left, len(items), len(rows))
    with path.open("a", encoding="utf-8") as stream:
        for item in left:
            row = _ask(model, item)
            if quality:
                row |= _measure(model, item, folder / "gold", reference)
            if item.id in theirs:
                row["flipped"] = row["text"] != theirs[item.id]["text"]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            rows.append(row)
    return rows


def _ask(model: Answerer, item: Item) -> dict[str, Any]:
    question = [{"role": "user", "content": item.question}]
    result = model.generate(question, **media_of(item), max_new_tokens=MAX_NEW_TOKENS)
    row: dict[str, Any] = {
        "id": item.id, "task": item.task, "split": item.split, "text": result.text, "gold": item.answer,
        "score": scorer_of(item.task).score(item, result.text),
    }  # fmt: skip
    extra = EXTRA_SCORERS.get(item.task)
    if extra is not None:
        row["extra"] = extra.score(item, result.text)
    usage = getattr(result, "usage", None)
    if usage is not None:
        row |= {"image_tokens": usage.image_tokens, "cached_tokens": usage.cached_tokens}
    return row


def _measure(model: Answerer, item: Item, folder: Path, reference: Path | None) -> dict[str, Any]:
    gold = gold_answer(model, item, media_of(item))
    folder.mkdir(exist_ok=True)
    mine = gold.log_probabilities.astype(np.float32)
    np.save(folder / f"{item.id}.npy", mine)
    row: dict[str, Any] = {"nll": gold.nll, "tokens": gold.tokens}
    if reference is not None:
        theirs = np.load(reference / "gold" / f"{item.id}.npy")
        row["kl"] = float(divergence(log_softmax(theirs), log_softmax(mine)).mean())  # sums to one again after rounding
    return row
