"""Runs the phases for every instruction set and number of threads."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vila_engine._core import InternalError, InvalidArgument
from vila_engine.bench.folder import matrix_formats_of, write_model
from vila_engine.bench.limits import ModelWork
from vila_engine.bench.machine import describe_machine, measure_limits, usable_isas
from vila_engine.bench.phases import PHASES, Bench, Measured, Meter, Phase, Tick
from vila_engine.convert.conversion import Weights
from vila_engine.engine import KvCache, load

Report = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        phases: Names of phases.
        threads: Numbers of threads; empty: the engine's choice.
        isas: Kernel tables, "all" for each usable one; empty: the engine's choice.
        repeats: Repetitions of each figure, after one that does not count.
        prompt_tokens: Lengths of prompts for "prefill".
        contexts: Tokens in the cache for "decode".
        decode_tokens: Tokens that a repetition of "decode" generates.
        kv_cache: Type of cached keys and values.
    """

    phases: Sequence[Phase] = PHASES
    threads: Sequence[int] = ()
    isas: Sequence[str] = ()
    repeats: int = 5
    prompt_tokens: Sequence[int] = (128, 256, 512)
    contexts: Sequence[int] = (256, 2048)
    decode_tokens: int = 32
    kv_cache: KvCache = "f16"


@dataclass(frozen=True)
class _Config:
    """One column of the report: a model folder on an instruction set with a number of threads."""

    folder: Path
    work: ModelWork
    isa: str
    threads: int
    kv_cache: KvCache
    max_context: int


@dataclass
class _Run:
    results: list[Report] = field(default_factory=list)
    limits: list[Report] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_bench(folder: Path, options: Options, tick: Tick = lambda *_: None) -> Report:
    """Measures a model folder.

    Args:
        folder: The model.
        options: What to measure.
        tick: Called with a label, steps done and steps in all.

    Returns:
        "results", one entry for each figure; "machine"; "model"; "notes" (docs/PERFORMANCE.md says what they hold).

    Raises:
        InvalidArgument: an option is wrong.
        UnsupportedError: the machine cannot run a kernel table.
    """
    _check(options)
    machine = describe_machine()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # This checks the folder, and says what is in it.
    with load(folder, memory="mapped", kv_cache=options.kv_cache, conv_mode="plain") as model:
        info = model.info
    work = ModelWork(config, matrix_formats_of(folder), info["file_bytes"], options.kv_cache)
    isas = usable_isas() if "all" in options.isas else list(options.isas) or [info["isa"]]
    run = _Run()
    for isa in isas:
        for threads in options.threads or [info["threads"]]:
            _measure(_Config(folder, work, isa, threads, options.kv_cache, info["max_context"]), options, run, tick)
    described = (
        "source", "llm", "vision", "projector", "weight_bytes", "file_bytes", "max_context", "kv_cache",
        "kv_cache_bytes_per_token",
    )  # fmt: skip
    return {
        "results": run.results,
        "machine": {**machine, "limits": run.limits},
        "model": {name: info[name] for name in described},
        "notes": run.notes,
    }


@contextlib.contextmanager
def preset_folder(
    preset: str, weights: Weights, vision_weights: Weights | None, keep: Path | None, tick: Tick
) -> Iterator[Path]:
    """A model folder of a preset's shape, removed at the end unless `keep` names the folder to keep it in."""

    def tell(done: int, total: int) -> None:
        tick("writing MB", done // 1_000_000, total // 1_000_000)

    name = f"{preset}-{weights}" + (f"-vision-{vision_weights}" if vision_weights else "")
    with contextlib.ExitStack() as stack:
        home = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vila-bench-")))
        write_model(preset, home / name, weights=weights, vision_weights=vision_weights, progress=tell)
        yield home / name


def _check(options: Options) -> None:
    unknown = [phase for phase in options.phases if phase not in PHASES]
    if unknown or not options.phases:
        raise InvalidArgument(
            f"[bench] phases: expected some of {', '.join(PHASES)}, got {', '.join(unknown) or 'none'}"
        )
    numbers = {
        "threads": options.threads,
        "repeats": [options.repeats],
        "prompt_tokens": options.prompt_tokens,
        "contexts": options.contexts,
        "decode_tokens": [options.decode_tokens],
    }
    for name, values in numbers.items():
        if any(value < 1 for value in values):
            raise InvalidArgument(f"[bench] {name}: expected at least 1, got {min(values)}")


def _measure(config: _Config, options: Options, run: _Run, tick: Tick) -> None:
    """All phases of one configuration."""

    def told(label: str, done: int, total: int) -> None:
        tick(f"{config.isa}, {config.threads} threads: {label}", done, total)

    meter = Meter(lambda: measure_limits(config.isa, config.threads), options.repeats, told)
    named = {"isa": config.isa, "threads": config.threads}
    run.results += [{**_entry(figure), **named} for figure in _figures(config, options, run.notes, meter)]
    if meter.best:
        run.limits.append({**named, **vars(meter.best)})


def _figures(config: _Config, options: Options, notes: list[str], meter: Meter) -> Iterator[Measured]:
    if "load" in options.phases:  # first, so that the memory of this process does not hold the model as well
        yield _load_phase(config, meter)
    if set(options.phases) == {"load"}:
        return

    def fits(what: str, tokens: int, more: int) -> bool:
        if tokens + more <= config.max_context:
            return True
        note = f"{what} {tokens} left out: the model's context is {config.max_context} tokens"
        if note not in notes:
            notes.append(note)
        return False

    with load(
        config.folder, threads=config.threads, isa=config.isa, kv_cache=config.kv_cache, conv_mode="plain"
    ) as model:
        bench = Bench(model, config.work, meter)
        if "vision" in options.phases:
            yield bench.vision()
        if "prefill" in options.phases:
            yield from (bench.prefill(n) for n in options.prompt_tokens if fits("prefill", n, 2))
        if "decode" in options.phases:
            n_new = options.decode_tokens
            yield from (bench.decode(n, n_new) for n in options.contexts if fits("decode", n, n_new + 1))
        if "first_token" in options.phases:
            yield bench.first_token()


def _load_phase(config: _Config, meter: Meter) -> Measured:
    """Loads in processes of their own; the first one brings the file into memory and gives the peak of real use."""
    runs: list[Report] = []

    def once() -> float:
        runs.append(_load_in_own_process(config, answer=not runs))
        seconds: float = runs[-1]["seconds"]
        return seconds

    readings = meter.repeat("load", once)
    details = {
        "load_seconds": statistics.median(run["load_seconds"] for run in runs[1:]),
        "peak_bytes": runs[0]["peak_bytes"],
        "huge_page_bytes": runs[0]["huge_page_bytes"],
    }
    return Measured("load", "seconds", readings, [config.work.load()], details=details)


def _load_in_own_process(config: _Config, *, answer: bool) -> Report:
    command = [sys.executable, "-m", "vila_engine.bench.load_once", str(config.folder)]
    command += ["--threads", str(config.threads), "--isa", config.isa]
    command += ["--kv-cache", config.kv_cache, *(["--answer"] if answer else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InternalError(f"[bench] load: expected exit status 0, got {done.returncode}: {last}")
    figures: Report = json.loads(done.stdout.splitlines()[-1])
    return figures


def _entry(figure: Measured) -> Report:
    """A figure as it is printed by --json."""
    total = sum((work for work in figure.work[1:]), figure.work[0])
    return {
        "phase": figure.phase,
        figure.unit: figure.median,
        "unit": figure.unit,
        "median": figure.median,
        "min": min(figure.values),
        "max": max(figure.values),
        "values": figure.values,
        "limit": figure.limit,
        "share_of_limit": statistics.median(figure.shares),
        "shares": figure.shares,
        "bound": figure.bound,
        "work": {**vars(total), "tokens": figure.tokens},
        **figure.details,
    }
