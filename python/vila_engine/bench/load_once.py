"""Loads a model in a process of its own, so that its time and its peak of memory are nobody else's.

`python -m vila_engine.bench.load_once MODEL --threads N --isa NAME [--kv-cache TYPE] [--answer]` prints one line of
JSON. "seconds" counts from before the load to the end of the first decode step; with --answer a question about a
picture follows before the peak is read, so that it is the peak of real use.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from vila_engine._core import InternalError
from vila_engine.bench.machine import kib_of
from vila_engine.bench.phases import PICTURE_SIZE, QUESTION_TOKENS
from vila_engine.bench.prompts import Prompts
from vila_engine.engine import KvCache, load


def measure(folder: str, threads: int, isa: str, kv_cache: KvCache = "f16", *, answer: bool) -> dict[str, Any]:
    """Loads and decodes in this process."""
    started = time.perf_counter()
    with load(folder, threads=threads, isa=isa, kv_cache=kv_cache, conv_mode="plain") as model:
        with model.stream("a", max_new_tokens=2, ignore_eos=True) as stream:
            pieces = sum(1 for _ in stream)
        seconds = time.perf_counter() - started
        if pieces != 2:
            raise InternalError(f"[bench] load: expected 2 tokens, got {pieces}")
        if answer:
            prompts = Prompts(model)
            question = "<image>" + prompts.text(QUESTION_TOKENS)
            model.generate(question, images=[prompts.picture(*PICTURE_SIZE)], max_new_tokens=2, ignore_eos=True)
        return {
            "seconds": seconds,
            "load_seconds": model.info["load_seconds"],
            "peak_bytes": kib_of("/proc/self/status", "VmHWM"),
            "huge_page_bytes": model.info["huge_page_bytes"],
        }


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--isa", required=True)
    parser.add_argument("--kv-cache", default="f16")
    parser.add_argument("--answer", action="store_true")
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.threads, args.isa, args.kv_cache, answer=args.answer)))


if __name__ == "__main__":
    main()
