#!/usr/bin/env python3
"""Runs vila_engine and other programs side by side on the same shapes; prints medians and ratios.

    python benchmarks/compare_peers.py --work peers                     # 3B shape, llama.cpp and OpenVINO
    python benchmarks/compare_peers.py --work peers --preset 8b --programs llama_cpp --json

The other programs are installed below --work, each into an environment of its own, and their models are made there:
about 6 GB for 3B. What is there already is used again. Every program is loaded once; repetitions take turns, so that
all of them see the same moods of the machine. docs/PERFORMANCE.md says what is timed. Needs an installed vila_engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vila_engine._core import default_threads
from vila_engine.bench.folder import write_model
from vila_engine.bench.machine import describe_machine
from vila_engine.bench.presets import PRESETS, preset_config

HERE = Path(__file__).resolve().parent / "peers"
OURS = "vila_engine"


@dataclass(frozen=True)
class Peer:
    """How a program is installed: packages, some of them from source, and variables for their build."""

    packages: tuple[str, ...]
    from_source: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


PEERS = {
    "llama_cpp": Peer(
        ("llama-cpp-python==0.3.35", "gguf>=0.17"),
        ("llama-cpp-python",),
        {"CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_BLAS=OFF -DLLAVA_BUILD=OFF"},
    ),
    "openvino": Peer(("openvino>=2025.2", "numpy")),
}


@dataclass(frozen=True)
class Task:
    """What is timed: the command for a worker, and the tokens that its seconds cover."""

    name: str
    command: str
    tokens: int


class Worker:
    """A program with its model, in a process of its own."""

    def __init__(self, name: str, python: Path, model: Path, threads: int) -> None:
        self.name = name
        command = [str(python), str(HERE / f"run_{name}.py"), "serve", str(model), "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello: dict[str, Any] = self._answer()

    def seconds(self, task: Task) -> float:
        """Runs a task once."""
        assert self.process.stdin is not None
        self.process.stdin.write(task.command + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()  # closes both pipes

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.close()
            raise SystemExit(f"compare_peers: {self.name} ended with status {status}")
        return json.loads(line)


def install(name: str, work: Path, jobs: int) -> Path:
    """The interpreter of a program's environment, made when it is missing."""
    folder = work / name
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    peer = PEERS[name]
    tell(f"installing {', '.join(peer.packages)}")
    venv.create(folder, with_pip=True)
    source = [word for package in peer.from_source for word in ("--no-binary", package)]
    variables = {**os.environ, **peer.variables, "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs)}
    subprocess.run([python, "-m", "pip", "install", "--quiet", *source, *peer.packages], env=variables, check=True)
    done.touch()
    return python


def make_model(name: str, python: Path, work: Path, preset: str) -> Path:
    """A program's model of a shape, made when it is missing."""
    if name == OURS:
        path = work / "models" / f"{preset}-int4"
        write_model(preset, path)
        return path
    path = work / "models" / f"{preset}.{name}"
    if path.exists():
        return path
    tell(f"making the {preset} shape for {name}")
    shape, partial = path.with_suffix(".json"), path.with_suffix(".partial")
    shape.write_text(json.dumps(preset_config(preset)["llm"]), encoding="utf-8")
    subprocess.run([python, HERE / f"run_{name}.py", "make", shape, partial], check=True)
    partial.rename(path)
    return path


def measure(workers: Sequence[Worker], tasks: Sequence[Task], repeats: int) -> list[dict[str, Any]]:
    """Tokens per second of each task and program: repetitions take turns, the first of each does not count."""
    results = []
    for task in tasks:
        rates: dict[str, list[float]] = {worker.name: [] for worker in workers}
        for i in range(repeats + 1):
            for worker in workers if i % 2 else workers[::-1]:  # nobody always follows the same one
                tell(f"{task.name}, {worker.name}, {i} of {repeats}", passing=True)
                rates[worker.name].append(task.tokens / worker.seconds(task))
        for worker in workers:
            values = rates[worker.name][1:]
            results.append({
                "task": task.name, "program": worker.name, "tokens_per_second": statistics.median(values),
                "min": min(values), "max": max(values), "values": values,
            })  # fmt: skip
    tell("", passing=True)
    return results


def ratios(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster vila_engine is than each other program: ratios of medians."""
    medians = {(result["task"], result["program"]): result["tokens_per_second"] for result in results}
    return [
        {"task": task, "program": program, "ratio": medians[task, OURS] / rate}
        for (task, program), rate in medians.items()
        if program != OURS
    ]


def report(results: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    by_key = {(entry["task"], entry["program"]): entry["ratio"] for entry in found}
    lines = ["| task | program | tokens/s | min | max | vila_engine is |", "|---|---|---|---|---|---|"]
    for result in results:
        ratio = by_key.get((result["task"], result["program"]))
        numbers = " | ".join(f"{result[name]:.2f}" for name in ("tokens_per_second", "min", "max"))
        last = "" if ratio is None else f"{ratio:.2f} x"
        lines.append(f"| {result['task']} | {result['program']} | {numbers} | {last} |")
    return "\n".join(lines)


def tell(text: str, *, passing: bool = False) -> None:
    """Progress on stderr; a passing line only on a terminal, where the next one takes its place."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="" if passing else "\n", file=sys.stderr, flush=True)
    elif not passing:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(names: Sequence[str], work: Path, preset: str, threads: int, jobs: int) -> Iterator[list[Worker]]:
    """All programs, loaded; they end with the block."""
    (work / "models").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        workers = []
        for name in names:
            python = Path(sys.executable) if name == OURS else install(name, work, jobs)
            model = make_model(name, python, work, preset)
            tell(f"loading {name}")
            workers.append(Worker(name, python, model, threads))
            stack.callback(workers[-1].close)
        yield workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and models; it is kept")
    parser.add_argument("--preset", choices=PRESETS, default="3b")
    parser.add_argument("--programs", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompt-tokens", nargs="*", type=int, default=[256])
    parser.add_argument("--contexts", nargs="*", type=int, default=[256])
    parser.add_argument("--decode-tokens", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compile jobs when installing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    if min(args.repeats, args.threads, args.decode_tokens, *args.prompt_tokens, *args.contexts) < 1:
        parser.error("expected numbers of at least 1")
    tasks = [Task(f"decode {n}", f"decode {n} {args.decode_tokens}", args.decode_tokens) for n in args.contexts]
    tasks += [Task(f"prefill {n}", f"prefill {n}", n) for n in args.prompt_tokens]
    machine = describe_machine()
    with started([OURS, *args.programs], args.work.absolute(), args.preset, args.threads, args.jobs) as workers:
        results = measure(workers, tasks, args.repeats)
        programs = {worker.name: worker.hello for worker in workers}
    found = ratios(results)
    if args.json:
        print(json.dumps({"results": results, "ratios": found, "programs": programs, "machine": machine}))
    else:
        load = machine["load_average"]
        print(f"{machine['cpu']}, {args.threads} threads, load {load:.1f} at the start, {args.preset} shape\n")
        print(report(results, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
