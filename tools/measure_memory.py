#!/usr/bin/env python3
"""Measures the peak memory of converting a checkpoint and of running what was converted; prints a Markdown table.

    python tools/random_checkpoint.py 3b -o /tmp/random-3b
    python tools/measure_memory.py /tmp/random-3b --scratch /tmp/measured

Every figure comes from a process of its own. "peak" is the largest resident set (VmHWM), "private" the part of it that
is not pages of a mapped file at the end of the run. Running is held to 1.15 x weight file + KV cache + 300 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MEGA = 1e6
WEIGHT_FACTOR = 1.15
ALLOWANCE = 300_000_000
PICTURE_SIDE = 640
PROC_UNIT = 1024  # /proc counts in KiB

Figures = dict[str, float]


def memory_now() -> Figures:
    """Bytes of this process by the names of /proc/self/status: VmHWM (peak), RssAnon, RssFile, ..."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "Rss")))
    return {name.rstrip(":"): int(value) * PROC_UNIT for name, value, _ in fields}


def convert_once(source: str, destination: str, weights: str) -> Figures:
    """Converts in this process."""
    from vila_engine.convert import convert

    begin = memory_now()["VmHWM"]
    started = time.perf_counter()
    convert(source, destination, weights=weights)  # type: ignore[arg-type]  # from the command line below
    return {"seconds": time.perf_counter() - started, "before": begin, **memory_now()}


def run_once(model_folder: str, memory: str, kv_cache: str, tokens: int) -> Figures:
    """Describes a picture in this process."""
    import numpy as np
    import vila_engine

    begin = memory_now()["VmHWM"]
    picture = np.random.default_rng(0).integers(0, 256, (PICTURE_SIDE, PICTURE_SIDE, 3), np.uint8)
    started = time.perf_counter()
    with vila_engine.load(model_folder, memory=memory, kv_cache=kv_cache) as model:  # type: ignore[arg-type]
        stream = model.stream("<image>\nWhat is this?", images=[picture], max_new_tokens=tokens, ignore_eos=True)
        with stream:
            result = stream.result()
        now = memory_now()
        times, usage = result.timings, result.usage
        cache = model.info["kv_cache_bytes_per_token"] * (usage.prompt_tokens + usage.completion_tokens)
        return {
            "seconds": time.perf_counter() - started,
            "before": begin,
            "cache": cache,
            "context": model.info["max_context"],
            "prompt": usage.prompt_tokens,
            "image_seconds": times.image,
            "prefill_seconds": times.prefill,
            "decode_seconds": times.decode,
            **now,
        }


def in_own_process(task: str, *arguments: str) -> Figures:
    """Runs one of the two functions above in a new interpreter; its peak is nobody else's."""
    command = [sys.executable, __file__, "--task", task, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"{task} {' '.join(arguments)}: expected exit status 0, got {done.returncode} {last}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(header: str, rows: list[list[Any]]) -> str:
    """A Markdown table; numbers are bytes, shown in megabytes of 10^6."""
    lines = [header, "|".join(["", *("---" for _ in rows[0]), ""])]
    for row in rows:
        cells = (f"{cell / MEGA:,.0f}" if isinstance(cell, int | float) else cell for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(source: Path, scratch: Path, forms: list[str], tokens: int) -> bool:
    """Prints both tables; returns whether every run kept the bound."""
    conversions, runs, ok = [], [], True
    source_bytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    for form in forms:
        folder = scratch / form
        if not folder.exists():
            figures = in_own_process("convert", str(source), str(folder), form)
            size = (folder / "model.safetensors").stat().st_size
            conversions.append([form, source_bytes, size, figures["VmHWM"], f"{figures['seconds']:.0f} s"])
            print(f"converted to {form}", file=sys.stderr)
        size = (folder / "model.safetensors").stat().st_size
        for memory in ("fast", "mapped"):
            figures = in_own_process("run", str(folder), memory, "f16", str(tokens))
            bound = WEIGHT_FACTOR * size + figures["cache"] + ALLOWANCE
            ok &= figures["VmHWM"] <= bound
            runs.append([
                f"{form}, {memory}", size, figures["cache"], figures["VmHWM"],
                figures["RssAnon"] + figures.get("RssShmem", 0), bound,
                "yes" if figures["VmHWM"] <= bound else "no",
            ])  # fmt: skip
            print(f"ran {form} {memory}: {figures}", file=sys.stderr)
    if conversions:
        print(table("| weights | checkpoint MB | weight file MB | peak MB | time |", conversions), end="\n\n")
    print(table("| weights, memory | weight file MB | KV cache MB | peak MB | private MB | bound MB | kept |", runs))
    return ok


def main() -> int:
    """Runs the command line; the exit status is 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint in the published layout")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the converted models; they stay there")
    parser.add_argument("--weights", nargs="+", choices=("f32", "f16", "int8", "int4"), default=["int4", "int8"])
    parser.add_argument("--tokens", type=int, default=16, help="generated tokens")
    args = parser.parse_args()
    needed = 2 * sum(path.stat().st_size for path in args.source.rglob("*") if path.is_file())
    args.scratch.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(args.scratch).free < needed:
        parser.error(f"--scratch: expected {needed:,} free bytes, got {shutil.disk_usage(args.scratch).free:,}")
    return 0 if measure(args.source, args.scratch, args.weights, args.tokens) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        kind, arguments = sys.argv[2], sys.argv[3:]
        found = convert_once(*arguments) if kind == "convert" else run_once(*arguments[:3], int(arguments[3]))
        print(json.dumps(found))
        sys.exit(0)
    sys.exit(main())
