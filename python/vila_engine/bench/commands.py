"""The command `vila-engine bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from vila_engine._core import InvalidArgument
from vila_engine.bench.phases import PHASES, Tick
from vila_engine.bench.presets import PRESETS
from vila_engine.bench.runner import Options, preset_folder, run_bench
from vila_engine.convert.conversion import WEIGHTS

DEFAULT_PRESET = "3b"
EXAMPLES = """examples:
  vila-engine bench
  vila-engine bench --preset 8b --only decode --threads 1 2 --keep models
  vila-engine bench --only prefill vision --isa all --json
  vila-engine bench MODEL --plot roofline.png"""
DESCRIPTION = """Measures encoding a picture, prefill, decoding, the time to the first token, loading and peak memory.
Beside each figure stands the machine's limit, measured in the same run. A preset has random weights of a true shape:
speed does not depend on their values. docs/PERFORMANCE.md says how everything is counted."""


def add_commands(commands: Any) -> None:
    """Adds `bench` to the subcommands; `commands` is what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench", help="measure speed beside the machine's limits", description=DESCRIPTION, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=_run)
    parser.add_argument("model", nargs="?", type=Path, help="model folder; a preset if not given")
    parser.add_argument("--preset", choices=PRESETS, help=f"shape of random weights ({DEFAULT_PRESET} if not given)")
    parser.add_argument("--weights", choices=WEIGHTS, help="of a preset's language model (int4 if not given)")
    parser.add_argument("--vision-weights", choices=WEIGHTS, help="of a preset's tower; as convert chooses it")
    parser.add_argument("--only", nargs="+", choices=PHASES, default=list(PHASES), metavar="PHASE", help=_choices())
    parser.add_argument("--threads", nargs="+", type=int, default=[], help="thread counts; physical cores")
    parser.add_argument(
        "--isa", nargs="+", default=[], metavar="NAME", help='kernels (see inspect); "all": each usable'
    )
    parser.add_argument(
        "--kv-cache", choices=("f16", "int8"), default="f16", help="type of cached keys and values (f16)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each figure (5)")
    parser.add_argument(
        "--prompt-tokens", nargs="+", type=int, default=Options.prompt_tokens, metavar="N",
        help="lengths for prefill (128 256 512)",
    )  # fmt: skip
    parser.add_argument(
        "--contexts", nargs="+", type=int, default=Options.contexts, metavar="N",
        help="tokens before those that are decoded (256 2048)",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a roofline picture (PNG)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep a preset's model there and use it again")


def _choices() -> str:
    return f"phases: {', '.join(PHASES)} (all)"


def _run(args: argparse.Namespace) -> int:
    options = Options(
        phases=args.only,
        threads=args.threads,
        isas=args.isa,
        repeats=args.repeats,
        prompt_tokens=args.prompt_tokens,
        contexts=args.contexts,
        kv_cache=args.kv_cache,
    )
    if args.plot is not None:
        from vila_engine.bench.roofline import check_plot, draw_roofline

        check_plot(args.plot)
    with _told() as tick, _model(args, tick) as folder:
        report = run_bench(folder, options, tick)
    if args.plot is not None:
        draw_roofline(report, args.plot)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        from vila_engine.bench.table import report_table

        print(report_table(report))
    return 0


def _model(args: argparse.Namespace, tick: Tick) -> contextlib.AbstractContextManager[Path]:
    """The folder that the command line names, or a preset's."""
    names = ("preset", "weights", "vision_weights", "keep")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
    if args.model is None:
        return preset_folder(
            args.preset or DEFAULT_PRESET, args.weights or "int4", args.vision_weights, args.keep, tick
        )
    if given:
        raise InvalidArgument(f"[bench] expected a model folder or a preset, got {args.model} and {', '.join(given)}")
    return contextlib.nullcontext(args.model)


@contextlib.contextmanager
def _told() -> Any:
    """A function that tells progress on stderr if that is a terminal; the line is gone at the end."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return

    def tick(label: str, done: int, total: int) -> None:
        print(f"\r\x1b[K{label} {done}/{total}", end="", file=sys.stderr, flush=True)

    try:
        yield tick
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
