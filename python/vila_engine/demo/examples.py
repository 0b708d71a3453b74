"""The bundled examples: pictures with a question and the answer that is expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vila_engine._core import IoError
from vila_engine.evaluate.scorers import plain

FOLDER = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        question: The user's text.
        media: Picture files; the frames, for a video.
        video: Whether they are the frames of one video.
        expected: The answer that counts as right.
        accepted: Others that say the same.
    """

    question: str
    media: tuple[Path, ...]
    video: bool
    expected: str
    accepted: tuple[str, ...] = ()

    def accepts(self, answer: str) -> bool:
        """Whether an answer is the expected one or says the same, but for case, articles and punctuation."""
        return any(plain(answer) == plain(text) for text in (self.expected, *self.accepted))


def load_examples(folder: Path = FOLDER) -> list[Example]:
    """Reads the examples.

    Raises:
        IoError: this build carries none.
    """
    path = folder / "questions.jsonl"
    if not path.is_file():
        raise IoError(f"[demo] {folder}: expected the bundled examples, got none")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        Example(
            row["question"],
            tuple(folder / name for name in row["images"]),
            row["video"],
            row["answer"],
            () if row["task"] == "name" else tuple(row["accepted"]),  # keywords of a name are too wide
        )
        for row in rows
    ]
