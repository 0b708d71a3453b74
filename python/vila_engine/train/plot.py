"""Loss curves as a picture."""

from __future__ import annotations

from pathlib import Path


def draw_curves(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Draws each logged figure over the steps: losses on a logarithmic scale on the left, shares on the right."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("agg")
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    names = sorted({name for row in history for name in row} - {"step", "grad_norm"})
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in names:
        points = [(row["step"], row[name]) for row in history if name in row]
        axis = right if name.startswith("right_") else left
        axis.plot([x for x, _ in points], [y for _, y in points], label=name.removeprefix("right_"), linewidth=1)
    left.set_yscale("log")
    left.set_ylabel("loss")
    right.set_ylabel("share of right answers")
    right.set_ylim(0, 1)
    for axis in (left, right):
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.get_lines():
            axis.legend(fontsize="small")
    figure.suptitle(title)
    temporary = path.with_suffix(".part.png")
    figure.savefig(temporary, dpi=90)
    temporary.replace(path)
