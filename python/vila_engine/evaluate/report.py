"""What a run amounts to: figures per task and split, as JSON, as a table and as rows of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vila_engine.evaluate.metrics import bootstrap, wilson
from vila_engine.evaluate.scorers import EXTRA_SCORERS, scorer_of

REPORT_ONLY = ("photograph",)
"""Splits of what the model was never meant to know; they have a line of their own and no part in the total."""


@dataclass(frozen=True)
class Line:
    """Figures of one task and split.

    Attributes:
        score: Mean of the main scorer, with the 95 % interval `low` to `high`.
        extra: Mean of the second scorer, where the task has one; `extra_measure` names it.
        nll: Mean negative log likelihood of a token of the gold answers, in nats, with its interval.
        kl: Mean divergence from the reference, in nats per token, with its interval.
        flips: Share of answers that differ from the reference's, with its interval.
    """

    task: str
    split: str
    count: int
    measure: str
    score: float
    low: float
    high: float
    extra_measure: str | None = None
    extra: float | None = None
    nll: tuple[float, float, float] | None = None
    kl: tuple[float, float, float] | None = None
    flips: tuple[float, float, float] | None = None


def _mean(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (sum(values) / len(values), *bootstrap(values)) if values else None


def _line(task: str, split: str, rows: list[dict[str, Any]]) -> Line:
    scores = [float(row["score"]) for row in rows]
    share = sum(scores) / len(scores)
    low, high = wilson(sum(scores), len(scores))
    extras = [float(row["extra"]) for row in rows if "extra" in row]
    second = EXTRA_SCORERS.get(task)
    flipped = [float(row["flipped"]) for row in rows if "flipped" in row]
    return Line(
        task, split, len(rows), scorer_of(task).measure, share, low, high,
        extra_measure=second.measure if second and extras else None,
        extra=sum(extras) / len(extras) if extras else None,
        nll=_mean([row["nll"] / row["tokens"] for row in rows if "nll" in row]),
        kl=_mean([row["kl"] for row in rows if "kl" in row]),
        flips=(sum(flipped) / len(flipped), *wilson(sum(flipped), len(flipped))) if flipped else None,
    )  # fmt: skip


def counted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the total: all but those of `REPORT_ONLY` splits, unless there are no others."""
    return [row for row in rows if row["split"] not in REPORT_ONLY] or list(rows)


def summarise(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """A line per task and split in order of their names, and the total; see `counted`."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["split"]), []).append(row)
    lines = [_line(task, split, members) for (task, split), members in sorted(groups.items())]
    return [*lines, _line("all", "all", counted(rows))] if rows else []


def as_json(lines: Sequence[Line], rows: Sequence[dict[str, Any]], model: dict[str, Any]) -> dict[str, Any]:
    """The report as plain values."""
    seen = sum(row.get("image_tokens", 0) for row in rows)
    return {
        "model": {key: model.get(key) for key in ("source", "isa", "conv_mode", "weight_bytes", "threads")},
        "questions": len(rows),
        "picture_tokens": seen,
        "cached_tokens": sum(row.get("cached_tokens", 0) for row in rows),
        "lines": [asdict(line) for line in lines],
    }


def table(lines: Sequence[Line]) -> str:
    """The lines as a table for a terminal or a Markdown page; only columns that have figures."""
    columns = ["task", "split", "n", "score", "95 % interval"]
    optional = (("NLL", "nll"), ("KL", "kl"), ("flips", "flips"))
    present = [(title, name) for title, name in optional if any(getattr(line, name) for line in lines)]
    head = [*columns, *(title for title, _ in present)]
    body = []
    for line in lines:
        cells = [line.task, line.split, str(line.count), f"{100 * line.score:.1f} %"]
        cells.append(f"{100 * line.low:.1f} to {100 * line.high:.1f}")
        for _, name in present:
            value = getattr(line, name)
            cells.append("-" if value is None else f"{100 * value[0]:.1f} %" if name == "flips" else f"{value[0]:.4f}")
        body.append(cells)
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([row(head), row(["-" * width for width in widths]), *map(row, body)])


def chart_rows(lines: Sequence[Line]) -> list[tuple[str, float, float, float]]:
    """The lines for `draw_chart`."""
    return [(f"{line.task}, {line.split} ({line.count})", line.score, line.low, line.high) for line in lines]
