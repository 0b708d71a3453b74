"""Questions with gold answers, as they lie in a folder: `questions.jsonl` beside the pictures that it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vila_engine._core import InvalidArgument, IoError


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: Unique within the set.
        task: What is asked for; chooses the scorer.
        split: Which side of the training's splits it comes from, such as `seen` or `unseen_artist`.
        images: Picture files; the frames, for a video.
        video: Whether the pictures are the frames of one video.
        question: The user's text; may hold `<image>` marks.
        answer: The gold answer.
        accepted: Other answers that count as right.
    """

    id: str
    task: str
    split: str
    images: tuple[Path, ...]
    video: bool
    question: str
    answer: str
    accepted: tuple[str, ...] = ()


def load_items(
    folder: Path, tasks: Sequence[str] = (), splits: Sequence[str] = (), limit: int | None = None
) -> list[Item]:
    """Reads a set.

    Args:
        folder: Holds `questions.jsonl` and the pictures.
        tasks: Only these tasks; all if empty.
        splits: Only these splits; all if empty.
        limit: At most so many items of each task and split, the first ones.

    Returns:
        The items, those about the same pictures next to each other.

    Raises:
        IoError: there is no such set.
        InvalidArgument: a line cannot be read, or a task or split is not in the set.
    """
    path = folder / "questions.jsonl"
    if not path.is_file():
        raise IoError(f"[eval] {folder}: expected a set with questions.jsonl, got none")
    items = [_item(folder, number, line) for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)]
    for what, wanted, there in (
        ("task", tasks, {item.task for item in items}),
        ("split", splits, {item.split for item in items}),
    ):
        unknown = sorted(set(wanted) - there)
        if unknown:
            expected, got = ", ".join(sorted(there)), ", ".join(unknown)
            raise InvalidArgument(f"[eval] {what}: expected some of {expected}, got {got}")
    items = [i for i in items if (not tasks or i.task in tasks) and (not splits or i.split in splits)]
    counts: dict[tuple[str, str], int] = {}
    kept = []
    for item in items:
        counts[item.task, item.split] = counts.get((item.task, item.split), 0) + 1
        if limit is None or counts[item.task, item.split] <= limit:
            kept.append(item)
    order = {item.images: index for index, item in reversed(list(enumerate(kept)))}
    return sorted(kept, key=lambda item: order[item.images])


def _item(folder: Path, number: int, line: str) -> Item:
    try:
        row = json.loads(line)
        return Item(
            str(row["id"]), str(row["task"]), str(row["split"]), tuple(folder / name for name in row["images"]),
            bool(row.get("video", False)), str(row["question"]), str(row["answer"]), tuple(row.get("accepted", ())),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        where = f"{folder}/questions.jsonl:{number}"
        raise InvalidArgument(f"[eval] {where}: expected a question, got {error!r}") from error
