#!/usr/bin/env python3
"""Measures what prompt lookup saves on the bundled demo model: forward passes, and the time of decoding.

    python benchmarks/prompt_lookup.py [--json] [--proposed 4]

Three kinds of conversation about the demo's pictures: text that is read from a picture, the same thing asked again in
later turns, and answers in the form of JSON whose first ones are given. Answers are greedy and must be the same with
and without lookup; repetitions take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import vila_engine
from vila_engine.demo.examples import load_examples
from vila_engine.demo.show import bundled_model
from vila_engine.media import load_image

Turns = list[vila_engine.ChatMessage]


@dataclass(frozen=True)
class Row:
    """One kind of conversation; `passes` are forward passes with lookup, `speedup` is time without over time with."""

    kind: str
    tokens: int
    passes: int
    proposed: int
    accepted: int
    speedup: float


def told(*turns: str) -> Turns:
    """Messages of user and assistant in turns, the user first."""
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)]


def conversations(model: vila_engine.Model, pictures: Sequence[Path]) -> dict[str, list[tuple[Path, Turns]]]:
    """What is asked, by kind; earlier answers are the model's own but for those in JSON."""
    asked: dict[str, list[tuple[Path, Turns]]] = {"text in a picture": [], "asked again": [], "JSON": []}
    for path in pictures:
        caption = model.generate(told("Describe the picture."), images=[load_image(path)]).text
        once = ("Describe the picture.", caption, "Describe the scene.")
        asked["asked again"] += [(path, told(*once)), (path, told(*once, caption, "Write a caption."))]
        known = ("Describe it as JSON.", json.dumps({"caption": caption}), "Describe it as JSON again.")
        asked["JSON"] += [
            (path, told(*known)),
            (path, told(*known, json.dumps({"caption": caption}), "Again, please.")),
        ]
        asked["text in a picture"] += [(path, told(text)) for text in ("What does it say?", "Read the text.")]
    return asked


def measure(
    model: vila_engine.Model, kind: str, asked: Sequence[tuple[Path, Turns]], proposed: int, repeats: int
) -> Row:
    """Runs one kind of conversation in turns with and without lookup."""
    seconds: dict[int, list[float]] = {0: [], proposed: []}
    totals = {name: 0 for name in ("tokens", "proposed", "accepted")}
    for repeat in range(repeats + 1):
        spent = {0: 0.0, proposed: 0.0}
        for path, turns in asked:
            answers = {}
            for most in (0, proposed) if repeat % 2 else (proposed, 0):
                result = model.generate(turns, images=[load_image(path)], prompt_lookup=most)
                answers[most] = result.token_ids
                spent[most] += result.timings.decode
                if repeat == 0 and most:
                    totals["tokens"] += result.usage.completion_tokens
                    totals["proposed"] += result.usage.proposed_tokens
                    totals["accepted"] += result.usage.accepted_tokens
            if answers[0] != answers[proposed]:
                raise SystemExit(f"prompt_lookup: {path.name}: expected {answers[0]}, got {answers[proposed]}")
        for most, value in spent.items():
            seconds[most].append(value)
    medians = {most: statistics.median(values[1:]) for most, values in seconds.items()}
    passes = totals["tokens"] - totals["accepted"]
    speedup = medians[0] / medians[proposed]
    return Row(kind, totals["tokens"], passes, totals["proposed"], totals["accepted"], speedup)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposed", type=int, default=4, help="most tokens that a step proposes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    pictures = [example.media[0] for example in load_examples() if len(example.media) == 1]
    model, _ = bundled_model(threads=args.threads)
    with model:
        rows = [
            measure(model, kind, asked, args.proposed, args.repeats)
            for kind, asked in conversations(model, pictures).items()
        ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    print(f"{'conversation':20}{'tokens':>8}{'passes':>8}{'proposed':>10}{'accepted':>10}{'decoding is':>14}")
    for row in rows:
        figures = f"{row.tokens:8}{row.passes:8}{row.proposed:10}{row.accepted:10}{row.speedup:12.2f} x"
        print(f"{row.kind:20}{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
