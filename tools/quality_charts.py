"""The two charts of docs/QUALITY.md: exact match by task and split, and what each weight format costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vila_engine.evaluate.report import Line

FIRST, LAST = "#4c72b0", "#dd8452"
GRID = {"color": "#d8d8d8", "linewidth": 0.8}


def _figure(width: float, height: float) -> Any:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_tasks(lines: dict[str, list[Line]], labels: dict[str, str], path: Path) -> None:
    """A point with its interval per task and split, for the first and the last run."""
    names = next(iter(lines)), list(lines)[-1]
    rows = [line for line in lines[names[0]] if line.task != "all"]
    figure = _figure(9, 1 + 0.27 * len(rows))
    axis = figure.subplots()
    for name, colour, shift in zip(names, (FIRST, LAST), (-0.14, 0.14), strict=True):
        own = lines[name][: len(rows)]
        middle = [100 * line.score for line in own]
        low = [100 * max(0.0, line.score - line.low) for line in own]
        high = [100 * max(0.0, line.high - line.score) for line in own]
        places = [index + shift for index in range(len(own))]
        axis.errorbar(middle, places, xerr=[low, high], fmt="o", color=colour, markersize=4, label=labels[name])
    axis.set_yticks(range(len(rows)), [f"{line.task}, {line.split.replace('_', ' ')} ({line.count})" for line in rows])
    axis.invert_yaxis()
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xlabel("exact match, % (95 % interval)")
    axis.grid(axis="x", **GRID)
    axis.set_axisbelow(True)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, 1.06), ncols=2, frameon=False)
    figure.savefig(path, dpi=100)


def draw_formats(lines: dict[str, list[Line]], labels: dict[str, str], path: Path) -> None:
    """Divergence and flipped answers of each run against the first, with intervals."""
    names = list(lines)[1:]
    totals = [lines[name][-1] for name in names]
    figure = _figure(9, 2.6)
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, figures, scale, title in (
        (left, [line.kl for line in totals], 1.0, "KL from fp32, nats per token"),
        (right, [line.flips for line in totals], 100.0, "answers that flipped, %"),
    ):
        for place, value in enumerate(figures):
            if value is None:
                continue
            middle, low, high = (scale * number for number in value)
            axis.barh(place, middle, color=LAST, height=0.55)
            axis.plot([low, high], [place, place], color="black", linewidth=1.2)
            axis.annotate(f" {middle:.2g}", (high, place), va="center", fontsize=9)
        axis.set_xlabel(title)
        axis.grid(axis="x", **GRID)
        axis.set_axisbelow(True)
        axis.margins(x=0.15)
    left.set_xscale("log")
    right.set_xlim(left=0)
    left.set_yticks(range(len(names)), [labels[name] for name in names])
    left.invert_yaxis()
    figure.savefig(path, dpi=100)
