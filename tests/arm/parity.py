#!/usr/bin/env python3
"""Runs the goldens on this machine and under emulated ARM CPUs and compares every number bit for bit.

Each golden is converted to each weight format here. vila-digest then prints hashes of pixels, features, rows, prompts,
logits and greedy tokens: built for this machine, and built for ARM under qemu-aarch64 with a CPU model for each ARM
table. The texts must be equal (the tables of one machine are compared by other tests). For each CPU model it is also
checked which tables are offered, that a forced table without its CPU is refused, and that the emulator does raise an
illegal instruction where the CPU model lacks it: otherwise nothing would be proved.

    python tests/arm/parity.py NATIVE_BUILD ARM_BUILD [--scratch FOLDER] [GOLDEN_DIR...]
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vila_engine.convert import convert
from vila_engine.convert.conversion import Weights
from vila_engine.media import load_image

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS: tuple[Weights, ...] = ("f32", "f16", "int8", "int4")
GREEDY_TOKENS = 16
SIGILL = 4


@dataclass(frozen=True)
class Cpu:
    """A CPU model of qemu and the kernel tables that must be usable on it, best first."""

    model: str
    tables: tuple[str, ...]


# The Raspberry Pi 4's, the Raspberry Pi 5's, and one with everything (i8mm as in Cortex-A710 and Neoverse V1).
CPUS = (
    Cpu("cortex-a72", ("neon", "scalar")),
    Cpu("cortex-a76", ("neon_dotprod", "neon", "scalar")),
    Cpu("max", ("neon_i8mm", "neon_dotprod", "neon", "scalar")),
)
ARM_TABLES = CPUS[-1].tables
# Which of tests/arm/probe.cpp's instructions each model must refuse.
ILLEGAL = {"cortex-a72": ("sdot", "smmla"), "cortex-a76": ("smmla",), "max": ()}


def escape(text: str) -> str:
    """As vila-digest reads it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def write_pictures(folder: Path, golden: Path, names: set[str]) -> None:
    """PPM copies, decoded as the Python package does it."""
    for name in names:
        target = folder / f"{name}.ppm"
        if not target.exists():
            pixels = load_image(golden / name)
            target.write_bytes(b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())


def prepare(golden: Path, scratch: Path) -> list[str]:
    """Converts a golden to all weight formats; the lines of vila-digest's script for it."""
    manifest = json.loads((golden / "manifest.json").read_text(encoding="utf-8"))
    pictures = golden / manifest["images"]
    write_pictures(scratch, pictures, {name for case in manifest["cases"] for name in case["images"]})
    by_mode: dict[str, list[str]] = {}
    for case in manifest["cases"]:
        lines = by_mode.setdefault(case.get("conv", manifest["config"]["conv"]), [])
        lines.append(f"case {case['name']}")
        roles = ("user", "assistant")
        lines += [f"message {roles[i % 2]} {escape(text)}" for i, text in enumerate(case["turns"]) if text is not None]
        lines += [f"image {scratch / name}.ppm" for name in case["images"]]
        lines.append(f"run {GREEDY_TOKENS}")
    script = []
    for weights in WEIGHTS:
        model = scratch / f"{golden.name}-{weights}"
        convert(golden / "checkpoint", model, weights=weights, force=True)
        for mode, lines in by_mode.items():
            script += [f"model {model} {mode} {'f32' if weights == 'f32' else 'f16'}", *lines]
    return script


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a changed environment."""
    env = {key: value for key, value in os.environ.items() if key not in {"VILA_ISA", "QEMU_CPU"}} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=1200)


class Emulated:
    """Programs of the ARM build on one CPU model."""

    def __init__(self, build: Path, cpu: Cpu) -> None:
        self.build, self.cpu = build, cpu

    def run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program, named by its path in the build folder."""
        command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(self.build / program), *arguments]
        return run(command, QEMU_CPU=self.cpu.model, **environment)

    def problems(self) -> list[str]:
        """What is wrong with the choice of tables, or with the emulator itself, on this CPU model."""
        found = []
        expected = [f"{name} {'usable' if name in self.cpu.tables else 'not usable here'}" for name in ARM_TABLES]
        expected[expected.index(f"{self.cpu.tables[0]} usable")] += " chosen"
        listed = self.run("cpp/apps/vila-inspect").stdout.splitlines()[:-1]
        if listed != expected:
            found.append(f"expected the tables {expected}, got {listed}")
        for name in ARM_TABLES:
            forced = self.run("cpp/apps/vila-inspect", VILA_ISA=name)
            if name in self.cpu.tables and f"{name} usable chosen" not in forced.stdout:
                found.append(f"VILA_ISA={name} does not choose it: {forced.stdout}{forced.stderr}")
            if name not in self.cpu.tables and (forced.returncode != 1 or "cannot run" not in forced.stderr):
                found.append(f"VILA_ISA={name} is not refused: {forced.stdout}{forced.stderr}")
        for instruction in ("fmla", "sdot", "smmla"):
            code = self.run("tests/cpp/kernels/arm_probe", instruction).returncode
            wanted = -SIGILL if instruction in ILLEGAL[self.cpu.model] else 0
            if code != wanted:
                found.append(f"{instruction} ends with {code}, expected {wanted}")
        return found


def check_cpu(machine: Emulated, script: Path, expected: str) -> bool:
    """Compares the digests on one CPU model; prints one line, and the first differences."""
    problems = machine.problems()
    start = time.monotonic()
    found = machine.run("cpp/apps/vila-digest", str(script), "1")
    same = found.returncode == 0 and found.stdout == expected
    if not same:
        problems.append(found.stderr)
        problems += list(difflib.unified_diff(expected.splitlines(), found.stdout.splitlines(), n=0, lineterm=""))[:20]
    name = f"{machine.cpu.model}, {machine.cpu.tables[0]}"
    lines = [f"{name:28} {'equal bits' if same else 'DIFFERENT'} {time.monotonic() - start:7.1f} s", *problems]
    print("\n".join(lines), flush=True)
    return not problems


def main(argv: list[str]) -> int:
    """Prints one line per comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("native", type=Path, metavar="NATIVE_BUILD")
    parser.add_argument("arm", type=Path, metavar="ARM_BUILD")
    parser.add_argument("goldens", type=Path, nargs="*", metavar="GOLDEN_DIR")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "arm_parity")
    args = parser.parse_args(argv)
    goldens = args.goldens or sorted(path.parent for path in (ROOT / "tests/golden").glob("*/manifest.json"))
    goldens = [golden.resolve() for golden in goldens if (golden / "checkpoint").is_dir()]
    args.scratch.mkdir(parents=True, exist_ok=True)
    script = args.scratch.resolve() / "script.txt"
    script.write_text(
        "\n".join(line for golden in goldens for line in prepare(golden, script.parent)) + "\n", encoding="utf-8"
    )
    native = run([str(args.native.resolve() / "cpp/apps/vila-digest"), str(script), "2"])
    if native.returncode != 0:
        print(native.stderr, file=sys.stderr)
        return 1
    n_models = sum(line.startswith("model") for line in script.read_text(encoding="utf-8").splitlines())
    print(
        f"{len(goldens)} goldens, {n_models} models, {native.stdout.count(' ids ')} runs, on CPUs of qemu:", flush=True
    )
    machines = [Emulated(args.arm.resolve(), cpu) for cpu in CPUS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda machine: check_cpu(machine, script, native.stdout), machines))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
