#!/usr/bin/env python3
"""Counts instructions per multiply-accumulate of the integer products under qemu-aarch64, ours and llama.cpp's.

A program runs one product once and three times; qemu's execution log with one instruction per entry is counted, and
half of the difference is one product. There is no ARM hardware in this: instructions are a stand-in for time, and say
nothing about memory. With --llama, the folder of llama.cpp's sources (the one with ggml/ in it), its kernels for Q4_0
and Q8_0 are compiled by the same compiler with -O3 for the same CPU level and counted alike; nothing of it is kept.

    make build PRESET=aarch64-qemu
    python benchmarks/arm_instructions.py build/aarch64-qemu [--llama FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

QEMU = [
    "qemu-aarch64",
    "-L",
    "/usr/aarch64-linux-gnu",
    "-cpu",
    "max",
    "-singlestep",
    "-d",
    "exec,nochain",
    "-D",
    "/dev/stdout",
]
LEVELS = {"neon": "armv8-a", "neon_dotprod": "armv8.2-a+dotprod", "neon_i8mm": "armv8.2-a+dotprod+i8mm"}


@dataclass(frozen=True)
class Work:
    """A kind of product, with llama.cpp's kernels for it by level."""

    name: str
    kind: str
    m: int
    n: int
    k: int
    llama: dict[str, tuple[str, ...]]


# Their repacked kernels need dotprod; without it they run the plain vector dot. The 8x8 forms need SVE of 256 bits.
WORK = (
    Work(
        "int4 decode", "w4", 1, 64, 1024,
        {"neon": ("vec_dot_q4_0",), "neon_dotprod": ("gemv_q4_0_4x4", "gemv_q4_0_4x8", "vec_dot_q4_0"),
         "neon_i8mm": ("gemv_q4_0_4x4", "gemv_q4_0_4x8", "vec_dot_q4_0")},
    ),
    Work(
        "int4 prefill", "w4", 64, 128, 512,
        {"neon": ("vec_dot_q4_0",), "neon_dotprod": ("gemm_q4_0_4x4",), "neon_i8mm": ("gemm_q4_0_4x8",)},
    ),
    Work(
        "int8 vision", "w8", 64, 128, 512,
        {"neon": ("vec_dot_q8_0",), "neon_dotprod": ("gemm_q8_0_4x4",), "neon_i8mm": ("gemm_q8_0_4x8",)},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Instructions per multiply-accumulate."""

    work: str
    table: str
    ours: float
    llama: float | None
    llama_kernel: str | None


def instructions(command: list[str]) -> int:
    """Entries of qemu's execution log."""
    count = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | grep -c ^Trace', "-", *QEMU, *command],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(count.stdout)


def per_mac(before: list[str], work: Work) -> float:
    """Of a program called as BEFORE REPETITIONS M N K."""
    shape = [str(work.m), str(work.n), str(work.k)]
    once, thrice = (instructions([*before, repetitions, *shape]) for repetitions in ("1", "3"))
    return (thrice - once) / 2 / (work.m * work.n * work.k)


def build_llama(sources: Path, folder: Path, level: str) -> str:
    """The program that calls llama.cpp's kernels, compiled for one level; what it does not call stays unresolved."""
    ggml = sources / "ggml"
    cpu = ggml / "src/ggml-cpu"
    flags = ["-O3", "-DNDEBUG", "-D_GNU_SOURCE", "-w", f"-march={level}"]
    flags += [f"-I{path}" for path in (ggml / "include", ggml / "src", cpu)]
    target = folder / level
    target.mkdir()
    parts = []
    for compiler, source in (("g++", cpu / "arch/arm/repack.cpp"), ("gcc", cpu / "arch/arm/quants.c")):
        parts.append(str(target / f"{source.stem}.o"))
        subprocess.run([f"aarch64-linux-gnu-{compiler}", *flags, "-c", str(source), "-o", parts[-1]], check=True)
    program = str(target / "program")
    main_file = Path(__file__).with_name("arm_instructions_llama.cpp")
    link = ["-static", "-Wl,--unresolved-symbols=ignore-all", "-o", program]
    subprocess.run(["aarch64-linux-gnu-g++", "-std=c++20", "-O2", "-w", str(main_file), *parts, *link], check=True)
    return program


def main(argv: list[str]) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, metavar="ARM_BUILD")
    parser.add_argument("--llama", type=Path, help="folder of llama.cpp's sources")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args(argv)
    program = str(args.build / "tests/cpp/kernels/arm_instructions")
    rows = []
    print(f"{'work':14}{'table':14}{'ours':>8}{'llama.cpp':>11}{'ratio':>7}  best of theirs")
    with tempfile.TemporaryDirectory() as scratch:
        theirs = {}
        if args.llama:
            theirs = {table: build_llama(args.llama, Path(scratch), level) for table, level in LEVELS.items()}
        for work in WORK:
            for table in LEVELS:
                ours = per_mac([program, table, work.kind], work)
                found = {name: per_mac([theirs[table], name], work) for name in work.llama[table]} if theirs else {}
                best = min(found, key=lambda name: found[name]) if found else None
                row = Row(work.name, table, ours, found[best] if best else None, best)
                rows.append(row)
                compared = f"{row.llama:11.4f}{ours / row.llama:7.2f}  {best}" if row.llama else ""
                print(f"{work.name:14}{table:14}{ours:8.4f}{compared}", flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
