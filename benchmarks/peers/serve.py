"""What the programs that are compared have in common: commands come on stdin, seconds go to stdout, one JSON line each.

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


class Program(Protocol):
    """A loaded model of one program."""

    def hello(self) -> dict[str, Any]:
        """Version and settings, for the report."""

    def prefill(self, tokens: int) -> float:
        """Seconds to run a new prompt of `tokens` tokens."""

    def decode(self, context: int, tokens: int) -> float:
        """Seconds to generate `tokens` tokens, one by one, after `context` others."""


def main(make: Callable[[dict[str, Any], Path], None], load: Callable[[Path, int], Program]) -> None:
    """`make SHAPE.json FILE` writes a model of a shape; `serve FILE --threads N` answers until stdin ends.

    Args:
        make: Writes a model: the "llm" section of a vila_engine config.json, and where to write.
        load: Loads it with a number of threads.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("make", "serve"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.verb == "make":
        shape, target = args.paths
        make(json.loads(shape.read_text(encoding="utf-8")), target)
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the program itself prints is no answer
    program = load(args.paths[0], args.threads)
    print(json.dumps(program.hello()), file=answers, flush=True)
    for line in sys.stdin:
        task, *numbers = line.split()
        seconds = getattr(program, task)(*map(int, numbers))
        print(json.dumps(seconds), file=answers, flush=True)
