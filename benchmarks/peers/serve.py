"""What the programs that are compared have in common: commands come on stdin, answers go to stdout, one JSON line each.

This file and its neighbours run in environments of their own: they import the standard library and their program only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

STATUS = Path("/proc/self/status")


class Program(Protocol):
    """A loaded model of one program; it has those of the tasks that compare_peers.py lists for it."""

    def hello(self) -> dict[str, Any]:
        """Version and settings, for the report."""

    def prefill(self, tokens: int) -> float:
        """Seconds to run a new prompt of `tokens` tokens."""

    def decode(self, context: int, tokens: int) -> float:
        """Seconds to generate `tokens` tokens, one by one, after `context` others."""

    def vision(self) -> float:
        """Seconds from a new picture of the tower's size to rows of the language model's width."""

    def first_token(self, question: int) -> float:
        """Seconds from a new picture of the tower's size and `question` tokens to the logits of the first answer."""


def main(make: Callable[[dict[str, Any], Path], None], load: Callable[[Path, int], Program]) -> None:
    """`make SHAPE.json FOLDER` writes a model of a shape; `serve FOLDER --threads N` answers until stdin ends.

    A command is the name of a task and its numbers, or `memory`: the peak resident set in bytes, null if unknown.

    Args:
        make: Writes a model into a new folder: the sections "llm" to "video" of a vila_engine config.json, and where.
        load: Loads it with a number of threads.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("make", "serve"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.verb == "make":
        shape, folder = args.paths
        folder.mkdir()
        make(json.loads(shape.read_text(encoding="utf-8")), folder)
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the program itself prints is no answer
    program = load(args.paths[0], args.threads)
    print(json.dumps(program.hello()), file=answers, flush=True)
    for line in sys.stdin:
        task, *numbers = line.split()
        answer = peak_memory() if task == "memory" else getattr(program, task)(*map(int, numbers))
        print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> int | None:
    """The largest resident set of this process in bytes, mapped files included; None where the system has no /proc."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def image_rows(shape: dict[str, Any]) -> int:
    """Rows that mlp_downsample makes of a picture: one for each 2 x 2 patches of the grid, padded to an even side."""
    grid: int = shape["vision"]["image_size"] // shape["vision"]["patch_size"]
    return ((grid + 1) // 2) ** 2
