"""The phases of a benchmark: each measures one task several times and puts the machine's limit beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from vila_engine._core import InternalError
from vila_engine.bench.limits import Limits, ModelWork, Work
from vila_engine.bench.prompts import Prompts
from vila_engine.engine import Model
from vila_engine.results import Result

Phase = Literal["vision", "prefill", "decode", "first_token", "load"]
Unit = Literal["seconds", "tokens_per_second"]
Tick = Callable[[str, int, int], None]

PHASES: tuple[Phase, ...] = ("vision", "prefill", "decode", "first_token", "load")
QUESTION_TOKENS = 60
PICTURE_SIZE = (640, 480)
ODD_TOKENS = 4  # of a prompt, which a tokenizer may make the same in two prompts


@dataclass
class Measured:
    """One figure.

    Attributes:
        phase: What was measured.
        unit: "seconds" (less is better) or "tokens_per_second".
        values: One per repetition.
        work: What a repetition needs at least: per token for "decode", in all else; a list of tasks that follow each
            other.
        tokens: Tokens that `work` covers when the unit is a rate.
        details: What else belongs to the figure.
    """

    phase: Phase
    unit: Unit
    values: list[float]
    work: list[Work]
    tokens: int = 1
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle of all repetitions."""
        return statistics.median(self.values)

    def limit(self, limits: Limits) -> float:
        """The best possible figure in the same unit."""
        seconds = sum(work.seconds(limits) for work in self.work)
        return seconds if self.unit == "seconds" else self.tokens / seconds

    def share(self, limits: Limits) -> float:
        """The share of the limit that was reached: 1 is all."""
        limit = self.limit(limits)
        return limit / self.median if self.unit == "seconds" else self.median / limit


class Bench:
    """Measures a loaded model.

    Args:
        model: Loaded with the chat template "plain".
        work: Counts what its tasks need.
        repeats: Repetitions of each figure.
        tick: Called with a label, repetitions done and repetitions in all.
    """

    def __init__(self, model: Model, work: ModelWork, repeats: int, tick: Tick) -> None:
        self._model = model
        self._work = work
        self._repeats = repeats
        self._tick = tick
        self._prompts = Prompts(model)
        self._run(self._prompts.text(32), 2)  # memory is touched, threads are up, clocks too

    def vision(self) -> Measured:
        """Encoding one picture, already of the tower's size, to rows of the language model."""
        side = self._model.info["vision"]["image_size"]

        def once() -> float:
            picture = self._prompts.picture(side, side)
            started = time.perf_counter()
            self._model.encode_image(picture)
            return time.perf_counter() - started

        details = {"image_size": side, "tiles": self._work.tiles, "tokens": self._work.tokens_per_image}
        return Measured("vision", "seconds", self._repeat("vision", once), [self._work.vision()], details=details)

    def prefill(self, tokens: int) -> Measured:
        """Running a new prompt of `tokens` tokens."""

        def once() -> float:
            result = self._run(self._prompts.text(tokens), 1)
            computed: int = result.usage.prompt_tokens - result.usage.cached_tokens
            if abs(computed - tokens) > ODD_TOKENS:
                raise InternalError(f"[bench] expected a prompt of {tokens} new tokens, got {result.usage}")
            return computed / result.timings.prefill

        work = [self._work.prefill(tokens, self._prompts.n_cached)]
        values = self._repeat(f"prefill {tokens}", once)
        return Measured("prefill", "tokens_per_second", values, work, tokens, {"prompt_tokens": tokens})

    def decode(self, context: int, new_tokens: int) -> Measured:
        """Generating `new_tokens` tokens after `context` others; the limit is that of the middle one."""
        text = self._prompts.text(context - self._prompts.n_cached)

        def once() -> float:
            result = self._run(text, new_tokens + 1)  # the first token comes from the prompt
            steps = result.usage.completion_tokens - 1
            if result.usage.prompt_tokens != context or steps != new_tokens:
                raise InternalError(f"[bench] expected {context} and {new_tokens} tokens, got {result.usage}")
            return steps / result.timings.decode

        values = self._repeat(f"decode {context}", once)
        work = [self._work.decode(context + (new_tokens - 1) / 2)]
        details = {"context": context, "new_tokens": new_tokens}
        return Measured("decode", "tokens_per_second", values, work, details=details)

    def first_token(self) -> Measured:
        """From the question about a new picture to the first piece of the answer, everything included."""
        parts: list[Result] = []

        def once() -> float:
            text = "<image>" + self._prompts.text(QUESTION_TOKENS)
            picture = self._prompts.picture(*PICTURE_SIZE)
            started = time.perf_counter()
            with self._model.stream(text, images=[picture], max_new_tokens=1, ignore_eos=True) as stream:
                next(stream)
                seconds = time.perf_counter() - started
                parts.append(stream.result())
                return seconds

        values = self._repeat("first_token", once)
        usage = parts[-1].usage
        work = [self._work.vision(), self._work.prefill(usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens)]
        details = {
            "prompt_tokens": usage.prompt_tokens,
            "image_tokens": usage.image_tokens,
            "image_seconds": statistics.median(part.timings.image for part in parts[1:]),
            "prefill_seconds": statistics.median(part.timings.prefill for part in parts[1:]),
        }
        return Measured("first_token", "seconds", values, work, details=details)

    def _repeat(self, label: str, once: Callable[[], float]) -> list[float]:
        """Repeats after one run that does not count."""
        values = []
        for i in range(self._repeats + 1):
            self._tick(label, i, self._repeats + 1)
            values.append(once())
        return values[1:]

    def _run(self, text: str, tokens: int) -> Result:
        return self._model.generate(text, max_new_tokens=tokens, ignore_eos=True)
