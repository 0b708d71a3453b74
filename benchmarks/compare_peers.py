#!/usr/bin/env python3
"""Runs vila_engine and other programs side by side on the same shapes; prints medians and ratios.

    python benchmarks/compare_peers.py --work peers                     # 3B shape, llama.cpp and OpenVINO
    python benchmarks/compare_peers.py --work peers --preset 8b --programs llama_cpp --tasks decode --json
    python benchmarks/compare_peers.py --work peers --programs llama_cpp_avx2 --isa avx2
    python benchmarks/compare_peers.py --work peers --programs torch --tasks vision
    python benchmarks/compare_peers.py --work peers --busy              # again with one core taken

The other programs are installed below --work, each into an environment of its own, and their models are made there:
about 7 GB for 3B. What is there already is used again. Every program is loaded once; repetitions take turns, so that
all of them see the same moods of the machine. docs/PERFORMANCE.md says what is timed. Needs an installed vila_engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vila_engine._core import default_threads
from vila_engine.bench.folder import write_model
from vila_engine.bench.machine import describe_machine, usable_isas
from vila_engine.bench.phases import QUESTION_TOKENS
from vila_engine.bench.presets import PRESETS, preset_config

HERE = Path(__file__).resolve().parent / "peers"
OURS = "vila_engine"
TASKS = ("decode", "prefill", "vision", "first_token")
MB = 1e6

# Takes one core for as long as it runs: always the same one, so that it cannot step aside.
SPIN = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
while True:
    pass
"""


@dataclass(frozen=True)
class Peer:
    """A program beside vila_engine.

    Attributes:
        packages: What pip installs.
        tasks: Names of the tasks that it can run.
        from_source: Packages that are compiled here.
        variables: Environment of that build.
        options: Further arguments for pip.
        runner: Name of its file in benchmarks/peers and of its model; default: the program's own.
        is_default: Whether it runs when no programs are named.
    """

    packages: tuple[str, ...]
    tasks: tuple[str, ...]
    from_source: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    runner: str | None = None
    is_default: bool = False


def llama_cpp(*flags: str, is_default: bool = False) -> Peer:
    """llama.cpp with its picture encoder, compiled with these CMake flags."""
    common = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_BLAS=OFF", "-DLLAVA_BUILD=ON")
    return Peer(
        packages=("llama-cpp-python==0.3.35", "gguf>=0.17"),
        tasks=TASKS,
        from_source=("llama-cpp-python",),
        variables={"CMAKE_ARGS": " ".join((*common, *flags))},
        runner="llama_cpp",
        is_default=is_default,
    )


AVX2_FLAGS = ("-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_BMI2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON")
PEERS = {
    "llama_cpp": llama_cpp("-DGGML_NATIVE=ON", is_default=True),
    "llama_cpp_avx2": llama_cpp("-DGGML_NATIVE=OFF", "-DGGML_AVX512=OFF", *AVX2_FLAGS),
    "openvino": Peer(("openvino>=2025.2", "numpy"), ("decode", "prefill", "vision"), is_default=True),
    "torch": Peer(
        ("torch>=2.4", "numpy"), ("vision",), options=("--extra-index-url", "https://download.pytorch.org/whl/cpu")
    ),
}

Unit = Literal["tokens_per_second", "seconds"]
Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is timed: a name for the report, the command for a worker, the tokens that its seconds cover.

    Without tokens the seconds themselves are the figure.
    """

    name: str
    command: str
    tokens: int | None = None

    @property
    def kind(self) -> str:
        """One of TASKS."""
        return self.command.split()[0]

    @property
    def unit(self) -> Unit:
        """What its figures are in."""
        return "seconds" if self.tokens is None else "tokens_per_second"

    def figure(self, seconds: float) -> float:
        """Seconds in this unit."""
        return seconds if self.tokens is None else self.tokens / seconds


class Worker:
    """A program with its model, in a process of its own."""

    def __init__(self, name: str, python: Path, model: Path, threads: int, isa: str | None = None) -> None:
        self.name = name
        self.tasks = TASKS if name == OURS else PEERS[name].tasks
        command = [str(python), str(runner(name)), "serve", str(model), "--threads", str(threads)]
        variables = os.environ if isa is None else {**os.environ, "VILA_ISA": isa}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )
        self.hello: dict[str, Any] = self._answer()

    def seconds(self, task: Task) -> float:
        """Runs a task once."""
        return float(self._ask(task.command))

    def peak_bytes(self) -> int | None:
        """The largest resident set so far, mapped weights included; None where the system does not tell."""
        found: int | None = self._ask("memory")
        return found

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()  # closes both pipes

    def _ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.close()
            raise SystemExit(f"compare_peers: {self.name} ended with status {status}")
        return json.loads(line)


def runner(name: str) -> Path:
    """The file that runs a program."""
    own = OURS if name == OURS else PEERS[name].runner or name
    return HERE / f"run_{own}.py"


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
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *source, *peer.options, *peer.packages], env=variables, check=True
    )
    done.touch()
    return python


def make_model(name: str, python: Path, work: Path, preset: str) -> Path:
    """A program's model of a shape, made when it is missing."""
    if name == OURS:
        path = work / "models" / f"{preset}-int4"
        write_model(preset, path)
        return path
    own = PEERS[name].runner or name
    path = work / "models" / f"{preset}-{own}"
    if path.exists():
        return path
    tell(f"making the {preset} shape for {own}")
    shape, partial = path.with_suffix(".json"), path.with_suffix(".partial")
    shape.write_text(json.dumps(preset_config(preset)), encoding="utf-8")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that failed
    subprocess.run([python, runner(name), "make", shape, partial], check=True)
    partial.rename(path)
    return path


def measure(workers: Sequence[Worker], tasks: Sequence[Task], repeats: int, *, busy: bool = False) -> list[Result]:
    """Figures of each task and program that can run it: repetitions take turns, the first of each does not count.

    Args:
        workers: The programs.
        tasks: What they do.
        repeats: Repetitions of each.
        busy: Whether a core is taken from all of them.
    """
    results = []
    for task in tasks:
        able = [worker for worker in workers if task.kind in worker.tasks]
        figures: dict[str, list[float]] = {worker.name: [] for worker in able}
        with core_taken() if busy else contextlib.nullcontext():
            for i in range(repeats + 1):
                for worker in able if i % 2 else able[::-1]:  # nobody always follows the same one
                    tell(f"{task.name}, {worker.name}, {i} of {repeats}", passing=True)
                    figures[worker.name].append(task.figure(worker.seconds(task)))
        for worker in able:
            values = figures[worker.name][1:]
            results.append({
                "task": task.name, "program": worker.name, "busy": busy, "unit": task.unit,
                "median": statistics.median(values), "min": min(values), "max": max(values), "values": values,
            })  # fmt: skip
    tell("", passing=True)
    return results


@contextlib.contextmanager
def core_taken() -> Iterator[None]:
    """Another process computes on one core, without an end, during the block."""
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ratios(results: Sequence[Result]) -> list[dict[str, Any]]:
    """How many times faster vila_engine is than each other program: ratios of medians."""
    ours = {(result["task"], result["busy"]): result["median"] for result in results if result["program"] == OURS}
    found = []
    for result in results:
        if result["program"] != OURS:
            ratio = ours[result["task"], result["busy"]] / result["median"]
            faster = 1 / ratio if result["unit"] == "seconds" else ratio
            found.append({"task": result["task"], "program": result["program"], "busy": result["busy"],
                          "ratio": faster})  # fmt: skip
    return found


def report(results: Sequence[Result], found: Sequence[dict[str, Any]]) -> str:
    """The results as a table in Markdown, with the speed that is kept where a core was taken."""
    by_key = {(entry["task"], entry["program"], entry["busy"]): entry["ratio"] for entry in found}
    free = {(result["task"], result["program"]): result["median"] for result in results if not result["busy"]}
    lines = ["| task | program | median | min | max | vila_engine is | kept |", "|---|---|---|---|---|---|---|"]
    for result in results:
        task, program, busy = result["task"], result["program"], result["busy"]
        ratio = by_key.get((task, program, busy))
        numbers = " | ".join(f"{result[name]:.2f}" for name in ("median", "min", "max"))
        last = "" if ratio is None else f"{ratio:.2f} x"
        change = result["median"] / free[task, program]
        kept = f"{1 / change if result['unit'] == 'seconds' else change:.0%}" if busy else ""
        label = f"{task}, {'s' if result['unit'] == 'seconds' else 'tokens/s'}{', one core taken' if busy else ''}"
        lines.append(f"| {label} | {program} | {numbers} | {last} | {kept} |")
    return "\n".join(lines)


def memory_report(peaks: dict[str, int | None]) -> str:
    """Peak memory of the programs as a table in Markdown."""
    lines = ["| program | peak memory, MB |", "|---|---|"]
    lines += [f"| {name} | {'unknown' if peak is None else f'{peak / MB:.0f}'} |" for name, peak in peaks.items()]
    return "\n".join(lines)


def tell(text: str, *, passing: bool = False) -> None:
    """Progress on stderr; a passing line only on a terminal, where the next one takes its place."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="" if passing else "\n", file=sys.stderr, flush=True)
    elif not passing:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(
    names: Sequence[str], work: Path, preset: str, *, threads: int, jobs: int, isa: str | None
) -> Iterator[list[Worker]]:
    """All programs, loaded; they end with the block."""
    (work / "models").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        workers = []
        for name in names:
            python = Path(sys.executable) if name == OURS else install(name, work, jobs)
            model = make_model(name, python, work, preset)
            tell(f"loading {name}")
            workers.append(Worker(name, python, model, threads, isa))
            stack.callback(workers[-1].close)
        yield workers


def plan(args: argparse.Namespace) -> list[Task]:
    """The tasks that the command line asks for."""
    tasks = {
        "decode": [Task(f"decode {n}", f"decode {n} {args.decode_tokens}", args.decode_tokens) for n in args.contexts],
        "prefill": [Task(f"prefill {n}", f"prefill {n}", n) for n in args.prompt_tokens],
        "vision": [Task("vision", "vision")],
        "first_token": [Task("first token", f"first_token {QUESTION_TOKENS}")],
    }
    return [task for name in args.tasks for task in tasks[name]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and models; it is kept")
    parser.add_argument("--preset", choices=PRESETS, default="3b")
    default = [name for name, peer in PEERS.items() if peer.is_default]
    parser.add_argument("--programs", nargs="+", choices=PEERS, default=default)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--isa", choices=usable_isas(), help="kernel table of vila_engine; default: the best")
    parser.add_argument("--busy", action="store_true", help="a second pass while another process takes one core")
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
    machine, tasks = describe_machine(), plan(args)
    names, work = [OURS, *args.programs], args.work.absolute()
    with started(names, work, args.preset, threads=args.threads, jobs=args.jobs, isa=args.isa) as workers:
        results = measure(workers, tasks, args.repeats)
        if args.busy:
            results += measure(workers, tasks, args.repeats, busy=True)
        peaks = {worker.name: worker.peak_bytes() for worker in workers}
        programs = {worker.name: {**worker.hello, "peak_bytes": peaks[worker.name]} for worker in workers}
    found = ratios(results)
    if args.json:
        print(json.dumps({"results": results, "ratios": found, "programs": programs, "machine": machine}))
    else:
        load = machine["load_average"]
        print(f"{machine['cpu']}, {args.threads} threads, load {load:.1f} at the start, {args.preset} shape\n")
        print(f"{report(results, found)}\n\n{memory_report(peaks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
