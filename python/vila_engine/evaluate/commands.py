"""The commands `vila-engine eval` and `vila-engine eval-compare`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vila_engine.evaluate.chart import draw_chart
from vila_engine.evaluate.compare import compare, markdown, read_run
from vila_engine.evaluate.items import Item, load_items
from vila_engine.evaluate.report import as_json, chart_rows, summarise, table
from vila_engine.evaluate.runner import Answerer, evaluate

OpenTorch = Callable[[Path], Answerer]


def _progress(items: Iterable[Item], total: int, done: int) -> Iterator[Item]:
    """Shows how far the run has come on stderr."""
    for count, item in enumerate(items, done):
        if count % 10 == 0:
            print(f"\r\x1b[K{count} of {total} questions", end="", file=sys.stderr, flush=True)
        yield item
    print("\r\x1b[K", end="", file=sys.stderr)


def add_commands(commands: Any, open_torch: OpenTorch | None = None) -> None:
    """Adds `eval` and `eval-compare` to the subcommands.

    Args:
        commands: What `ArgumentParser.add_subparsers` returned.
        open_torch: Opens a published folder as a PyTorch model, for `--torch`.
    """
    text = "ask a model the questions of a set and score the answers"
    parser: argparse.ArgumentParser = commands.add_parser("eval", help=text, description=text)
    parser.add_argument("model", type=Path, help="model folder; with --torch a published folder")
    parser.add_argument("--set", type=Path, required=True, help="folder with questions.jsonl and pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results; a killed run goes on")
    parser.add_argument("--task", action="append", default=[], help="only this task; may be repeated")
    parser.add_argument("--split", action="append", default=[], help="only this split; may be repeated")
    parser.add_argument("--limit", type=int, help="at most so many questions of each task and split")
    parser.add_argument("--quality", action="store_true", help="likelihood of the gold answers too")
    parser.add_argument("--reference", type=Path, help="results of another model, with --quality: divergence and flips")
    parser.add_argument("--torch", action="store_true", help="evaluate the PyTorch model of a published folder")
    parser.add_argument("--threads", type=int, help="compute threads; physical cores if not given")
    parser.add_argument("--isa", help="kernels to use; VILA_ISA or the best if not given")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=lambda args: _run(args, open_torch))
    text = "put the results of several runs side by side; the first is what the others are tested against"
    parser = commands.add_parser("eval-compare", help=text, description=text)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of eval, of the same questions")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file to write")
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    text = markdown(compare({path.name: read_run(path) for path in args.runs}))
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def _open(args: argparse.Namespace, open_torch: OpenTorch | None) -> Answerer:
    if args.torch:
        if open_torch is None:
            raise ImportError("[eval] --torch: expected the extra vila_engine[train], got none")
        return open_torch(args.model)
    from vila_engine.engine import load

    return load(args.model, threads=args.threads, isa=args.isa)


def _run(args: argparse.Namespace, open_torch: OpenTorch | None) -> int:
    items = load_items(args.set, args.task, args.split, args.limit)
    model = _open(args, open_torch)
    show = _progress if sys.stderr.isatty() and not args.json else None
    rows = evaluate(model, items, args.output, quality=args.quality, reference=args.reference, progress=show)
    lines = summarise(rows)
    report = as_json(lines, rows, model.info)
    (args.output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (args.output / "report.md").write_text(table(lines) + "\n", encoding="utf-8")
    draw_chart(chart_rows(lines), f"{model.info.get('source')}: {len(rows)} questions", args.output / "chart.png")
    print(json.dumps(report) if args.json else table(lines))
    return 0
