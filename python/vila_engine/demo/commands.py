"""The command `vila-engine demo`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vila_engine.demo.examples import load_examples
from vila_engine.demo.show import KNOWS, ask_own, bundled_model, follow_up, run_examples


def add_commands(commands: Any) -> None:
    """Adds `demo` to the subcommands; `commands` is what `ArgumentParser.add_subparsers` returned."""
    text = "show the bundled model on bundled pictures, or on one of yours"
    parser: argparse.ArgumentParser = commands.add_parser("demo", help=text, description=f"{text}. {KNOWS}")
    parser.add_argument("picture", nargs="?", type=Path, help="your own picture")
    parser.add_argument("--query", default="What is in this picture?", help="question about your own picture")
    parser.add_argument("--model", type=Path, help="another model folder; the bundled model if not given")
    parser.add_argument("--threads", type=int, help="compute threads; physical cores if not given")
    parser.add_argument("--json", action="store_true", help="print the examples as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    def tell(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    model, seconds = bundled_model(args.model, threads=args.threads)
    with model:
        tell(f"loaded in {seconds:.2f} s ({model.info['isa']}, {model.info['threads']} threads)")
        tell(KNOWS)
        if args.picture is not None:
            result = ask_own(model, args.picture, args.query, tell)
            if args.json:
                print(json.dumps({"question": args.query, "media": [args.picture.name], "answer": result.text}))
            return 0
        examples = load_examples()
        outcomes = run_examples(model, examples, tell)
        if args.json:
            print(json.dumps({"examples": [outcome.as_dict() for outcome in outcomes]}, ensure_ascii=False))
            return 0
        tell(f"{sum(outcome.correct for outcome in outcomes)} of {len(outcomes)} as expected")
        follow_up(model, next(example for example in examples if len(example.media) == 1), tell)
    return 0
