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


@dataclass(frozen=True)
class Reading:
    """What one repetition took, and the better of the machine's limits just before and just after it."""

    value: float
    limits: Limits


class Meter:
    """Repeats tasks between measurements of the limits.

    A shared machine has moods: its memory was twice as fast within seconds. A limit that was measured at another time
    says nothing about a repetition.

    Args:
        measure: Measures the limits.
        repeats: Repetitions that count.
        tick: Called with a label, repetitions done and repetitions in all.
    """

    def __init__(self, measure: Callable[[], Limits], repeats: int, tick: Tick) -> None:
        self._measure = measure
        self._repeats = repeats
        self._tick = tick
        self.best: Limits | None = None  # of all measurements

    def repeat(self, label: str, once: Callable[[], float]) -> list[Reading]:
        """Repeats after one run that does not count."""
        self._tick(label, 0, self._repeats + 1)
        once()
        readings = []
        before = self._look()
        for i in range(self._repeats):
            self._tick(label, i + 1, self._repeats + 1)
            value = once()
            after = self._look()
            readings.append(Reading(value, before.best(after)))
            before = after
        return readings

    def _look(self) -> Limits:
        limits = self._measure()
        self.best = limits if self.best is None else self.best.best(limits)
        return limits


@dataclass
class Measured:
    """One figure.

    Attributes:
        phase: What was measured.
        unit: "seconds" (less is better) or "tokens_per_second".
        readings: One per repetition.
        work: What a repetition needs at least: per token for "decode", in all else; a list of tasks that follow each
            other.
        tokens: Tokens that `work` covers when the unit is a rate.
        details: What else belongs to the figure.
    """

    phase: Phase
    unit: Unit
    readings: list[Reading]
    work: list[Work]
    tokens: int = 1
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """One figure per repetition."""
        return [reading.value for reading in self.readings]

    @property
    def median(self) -> float:
        """The middle of all repetitions."""
        return statistics.median(self.values)

    @property
    def limits(self) -> list[float]:
        """The best possible figure of each repetition, in the same unit."""
        seconds = [sum(work.seconds(reading.limits) for work in self.work) for reading in self.readings]
        return seconds if self.unit == "seconds" else [self.tokens / time for time in seconds]

    @property
    def limit(self) -> float:
        """The middle of the limits."""
        return statistics.median(self.limits)

    @property
    def shares(self) -> list[float]:
        """The share of its own limit that each repetition reached: 1 is all."""
        pairs = zip(self.values, self.limits, strict=True)
        return [limit / value if self.unit == "seconds" else value / limit for value, limit in pairs]

    @property
    def bound(self) -> str:
        """What bounds most repetitions: "memory" or "compute"."""
        total = sum((work for work in self.work[1:]), self.work[0])
        return statistics.mode(total.bound(reading.limits) for reading in self.readings)


class Bench:
    """Measures a loaded model.

    Args:
        model: Loaded with the chat template "plain".
        work: Counts what its tasks need.
        meter: Repeats them.
    """

    def __init__(self, model: Model, work: ModelWork, meter: Meter) -> None:
        self._model = model
        self._work = work
        self._meter = meter
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
        return Measured("vision", "seconds", self._meter.repeat("vision", once), [self._work.vision()], details=details)

    def prefill(self, tokens: int) -> Measured:
        """Running a new prompt of `tokens` tokens."""

        def once() -> float:
            result = self._run(self._prompts.text(tokens), 1)
            computed: int = result.usage.prompt_tokens - result.usage.cached_tokens
            if abs(computed - tokens) > ODD_TOKENS:
                raise InternalError(f"[bench] expected a prompt of {tokens} new tokens, got {result.usage}")
            return computed / result.timings.prefill

        work = [self._work.prefill(tokens, self._prompts.n_cached)]
        readings = self._meter.repeat(f"prefill {tokens}", once)
        return Measured("prefill", "tokens_per_second", readings, work, tokens, {"prompt_tokens": tokens})

    def decode(self, context: int, new_tokens: int) -> Measured:
        """Generating `new_tokens` tokens after `context` others; the limit is that of the middle one."""
        text = self._prompts.text(context - self._prompts.n_cached)

        def once() -> float:
            result = self._run(text, new_tokens + 1)  # the first token comes from the prompt
            steps = result.usage.completion_tokens - 1
            if result.usage.prompt_tokens != context or steps != new_tokens:
                raise InternalError(f"[bench] expected {context} and {new_tokens} tokens, got {result.usage}")
            return steps / result.timings.decode

        readings = self._meter.repeat(f"decode {context}", once)
        work = [self._work.decode(context + (new_tokens - 1) / 2)]
        details = {"context": context, "new_tokens": new_tokens}
        return Measured("decode", "tokens_per_second", readings, work, details=details)

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

        readings = self._meter.repeat("first_token", once)
        usage = parts[-1].usage
        work = [self._work.vision(), self._work.prefill(usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens)]
        details = {
            "prompt_tokens": usage.prompt_tokens,
            "image_tokens": usage.image_tokens,
            "image_seconds": statistics.median(part.timings.image for part in parts[1:]),
            "prefill_seconds": statistics.median(part.timings.prefill for part in parts[1:]),
        }
        return Measured("first_token", "seconds", readings, work, details=details)

    def _run(self, text: str, tokens: int) -> Result:
        return self._model.generate(text, max_new_tokens=tokens, ignore_eos=True)
