"""Runs the examples or a question about one's own picture, and prints what happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vila_engine._core import IoError
from vila_engine.demo.examples import Example
from vila_engine.engine import Model, load
from vila_engine.results import Result

MODEL = Path(__file__).parent / "model"
KNOWS = (
    "The demo model is small. It knows drawings and simple scenes of the kinds it was trained on: names, numbers, "
    "colours, positions, short words, changes between two pictures and short videos. It does not know photographs."
)
NO_MODEL = (
    "[demo] expected the bundled model, got a build without one. docs/TRAINING.md says how to train it; any converted "
    "model can be shown with --model FOLDER"
)
MAX_NEW_TOKENS = 48
FOLLOW_UP = "Describe the picture."


@dataclass(frozen=True)
class Outcome:
    """An example with the answer that the model gave."""

    example: Example
    result: Result

    @property
    def correct(self) -> bool:
        """Whether it is the expected answer."""
        return self.example.accepts(self.result.text)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "question": self.example.question,
            "media": [path.name for path in self.example.media],
            "answer": self.result.text,
            "expected": self.example.expected,
            "correct": self.correct,
        }


def bundled_model(folder: Path | None = None, *, threads: int | None = None) -> tuple[Model, float]:
    """Loads the bundled model, or another one.

    Returns:
        The model and the seconds that loading took.

    Raises:
        IoError: this build carries no model.
    """
    path = folder or MODEL
    if folder is None and not (path / "config.json").is_file():
        raise IoError(NO_MODEL)
    start = time.perf_counter()
    model = load(path, threads=threads)
    return model, time.perf_counter() - start


def media_of(example: Example) -> dict[str, Any]:
    """The pictures of an example as arguments of `generate`."""
    return {"videos": [list(example.media)]} if example.video else {"images": list(example.media)}


def run_examples(
    model: Model, examples: Sequence[Example], tell: Callable[[str], None] = lambda _: None
) -> list[Outcome]:
    """Asks all examples; `tell` gets a line or two for each."""
    outcomes = []
    for number, example in enumerate(examples, 1):
        result = model.generate(example.question, **media_of(example), max_new_tokens=MAX_NEW_TOKENS)
        outcome = Outcome(example, result)
        outcomes.append(outcome)
        shown = f"video of {len(example.media)} frames" if example.video else ", ".join(p.name for p in example.media)
        tell(f"{number:2}. [{shown}] {example.question}")
        verdict = "as expected" if outcome.correct else f"expected: {example.expected}"
        tell(f"    {result.text}   ({verdict}; {speed(result)})")
    return outcomes


def speed(result: Result) -> str:
    """Tokens per second of the answer and milliseconds of the pictures, in words."""
    count, seconds = result.usage.completion_tokens - 1, result.timings.decode
    rate = f"{count / seconds:,.0f} tokens/s" if count > 0 and seconds > 0 else "one token"
    cached = f", {result.usage.cached_tokens} tokens from the cache" if result.usage.cached_tokens else ""
    return f"pictures {1000 * result.timings.image:.0f} ms, {rate}{cached}"


def follow_up(model: Model, example: Example, tell: Callable[[str], None]) -> tuple[Result, Result]:
    """Asks twice about one picture; the second question finds the picture in the cache."""
    chat = model.chat()
    first = chat.send(example.question, **media_of(example), max_new_tokens=MAX_NEW_TOKENS)
    second = chat.send(FOLLOW_UP, max_new_tokens=MAX_NEW_TOKENS)
    tell(f"Two questions about {example.media[0].name}; the picture is encoded once:")
    for question, result in ((example.question, first), (FOLLOW_UP, second)):
        tell(f"    {question}  {result.text}   ({speed(result)})")
    return first, second


def ask_own(model: Model, picture: Path, question: str, tell: Callable[[str], None]) -> Result:
    """Asks about the user's own picture."""
    if not picture.is_file():
        raise IoError(f"[demo] {picture}: expected a picture file, got no such file")
    result = model.generate(question, images=[picture], max_new_tokens=MAX_NEW_TOKENS)
    tell(f"{picture.name}: {question}")
    tell(f"    {result.text}   ({speed(result)})")
    return result
