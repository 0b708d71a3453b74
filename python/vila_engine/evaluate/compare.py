"""Several runs of one set side by side: the quality table, with a paired test of each run against the first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vila_engine._core import InvalidArgument, IoError
from vila_engine.evaluate.report import Line, counted, summarise

Rows = dict[str, dict[str, Any]]


def read_run(folder: Path) -> Rows:
    """Reads the answers of a finished run, by question.

    Raises:
        IoError: the folder holds no run.
        InvalidArgument: the run is not finished.
    """
    path = folder / "answers.jsonl"
    if not path.is_file():
        raise IoError(f"[eval] {folder}: expected the results of a run with answers.jsonl, got none")
    header, *rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    if len(rows) != header["questions"]:
        count = header["questions"]
        raise InvalidArgument(f"[eval] {folder}: expected {count} answers, got {len(rows)}; go on with the run")
    return {row["id"]: row for row in rows}


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """The two-sided exact McNemar test: how likely so uneven a split of the changed verdicts is by chance.

    Args:
        one: Whether each answer of the first run is right.
        other: The same for the second, question by question.
    """
    lost = sum(a and not b for a, b in zip(one, other, strict=True))
    won = sum(b and not a for a, b in zip(one, other, strict=True))
    count = lost + won
    tail = sum(math.comb(count, k) for k in range(min(lost, won) + 1)) / 2**count
    return float(min(1.0, 2 * tail))


def verdicts(one: Rows, other: Rows) -> tuple[list[bool], list[bool]]:
    """Whether each answer of two runs of the same questions is right; the questions of the total only."""
    keys = [row["id"] for row in counted(list(one.values()))]
    return [one[key]["score"] >= 1 for key in keys], [other[key]["score"] >= 1 for key in keys]


def compare(runs: dict[str, Rows]) -> dict[str, Any]:
    """Figures of each run per task and split, and the test of its total against the first run's.

    Args:
        runs: Name of a run to its answers; all of the same questions.

    Returns:
        `{"runs": {name: {"lines": {"task, split": Line}, "p": float}}}`; the first run has no `p`.

    Raises:
        InvalidArgument: the runs answer different questions.
    """
    names = list(runs)
    first = runs[names[0]]
    result: dict[str, Any] = {}
    for name, rows in runs.items():
        if rows.keys() != first.keys():
            raise InvalidArgument(
                f"[eval] {name}: expected the {len(first)} questions of {names[0]}, got {len(rows)} of which "
                f"{len(rows.keys() & first.keys())} are the same"
            )
        lines = {f"{line.task}, {line.split}": line for line in summarise([rows[key] for key in first])}
        result[name] = {"lines": lines}
        if name != names[0]:
            result[name]["p"] = mcnemar(*verdicts(first, rows))
    return {"runs": result}


def _cell(line: Line) -> str:
    return f"{100 * line.score:.1f} ({100 * line.low:.1f} to {100 * line.high:.1f})"


def _figure(line: Line, name: str) -> str:
    value = getattr(line, name)
    if value is None:
        return "-"
    if name == "flips":
        return f"{100 * value[0]:.2f} %"
    return f"{value[0]:.4f} ({value[1]:.4f} to {value[2]:.4f})"


def markdown(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown table: scores in percent with their intervals, then the other figures."""
    runs: dict[str, Any] = comparison["runs"]
    names = list(runs)
    first = runs[names[0]]["lines"]
    rows = [["task, split", "n", *names], ["---"] * (2 + len(names))]
    for key, line in first.items():
        rows.append([key, str(line.count), *(_cell(runs[name]["lines"][key]) for name in names)])
    for title, figure in (
        ("NLL of a gold token, nats", "nll"), ("KL from the reference, nats", "kl"), ("answers that flipped", "flips"),
    ):  # fmt: skip
        rows.append([title, "", *(_figure(runs[name]["lines"]["all, all"], figure) for name in names)])
    tests = [f"{runs[name]['p']:.3f}" if "p" in runs[name] else "-" for name in names]
    rows.append([f"p against {names[0]} (McNemar)", "", *tests])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
