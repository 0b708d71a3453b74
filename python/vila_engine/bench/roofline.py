"""The roofline picture: what was reached between the roofs of memory and arithmetic (Williams et al., CACM 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vila_engine._core import InvalidArgument
from vila_engine.bench.table import figure_of, label_of

GIGA = 1e9
INK, GRID, INTEGER, FLOAT = "#222222", "#d8d8d8", "#2a6f97", "#b5651d"
MARKERS = {"decode": "o", "prefill": "s", "vision": "^", "first_token": "D"}
COLORS = {"decode": "#1b7f5c", "prefill": "#2a6f97", "vision": "#b5651d", "first_token": "#7a4f9a"}


def check_plot(path: Path) -> None:
    """Refuses before a long run what would fail at its end.

    Raises:
        InvalidArgument: the file would be no PNG, or its folder is missing.
        ImportError: matplotlib is missing.
    """
    if path.suffix.lower() != ".png":
        raise InvalidArgument(f"[bench] plot: expected a name that ends with .png, got {path}")
    if not path.absolute().parent.is_dir():
        raise InvalidArgument(f"[bench] plot: expected an existing folder, got {path.absolute().parent}")
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise ImportError("[bench] --plot: expected matplotlib, got none: pip install 'vila_engine[bench]'") from error


def draw_roofline(report: dict[str, Any], path: Path) -> None:
    """Draws one panel for each instruction set and number of threads.

    Args:
        report: What `run_bench` returned.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    panels = report["machine"]["limits"]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 6.4 * columns, 0.6 + 4.8 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    span = _span(report)
    for axis, limits in zip(axes, panels, strict=False):
        results = [result for result in report["results"] if _same(result, limits) and result["phase"] in MARKERS]
        _draw_roofs(axis, limits, span)
        for result in results:
            _draw_result(axis, result)
        axis.set_title(f"{limits['isa']}, {limits['threads']} thread{'s' * (limits['threads'] > 1)}", color=INK)
        if results:
            axis.legend(loc="lower right", fontsize="small", framealpha=0.95, title="figure, share of its limit")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("multiply-adds for each byte read from memory", color=INK)
    figure.supylabel("10⁹ multiply-adds per second", color=INK)
    figure.suptitle(
        f"{report['model']['source'] or 'model'} on {report['machine']['cpu']}", color=INK, fontsize="large"
    )
    figure.savefig(path, dpi=130, format="png")


def _same(result: dict[str, Any], limits: dict[str, Any]) -> bool:
    return bool(result["isa"] == limits["isa"] and result["threads"] == limits["threads"])


def _intensity(result: dict[str, Any]) -> float:
    work = result["work"]
    return float((work["dot_macs"] + work["fma_macs"]) / work["n_bytes"])


def _rate(result: dict[str, Any]) -> float:
    """Multiply-adds per second that were reached."""
    work = result["work"]
    macs = float(work["dot_macs"] + work["fma_macs"])
    if result["unit"] == "seconds":
        return macs / float(result["median"])
    return macs / float(work["tokens"]) * float(result["median"])


def _span(report: dict[str, Any]) -> tuple[float, float]:
    """The range of intensities that holds all points and the ridges of all roofs."""
    points = [_intensity(result) for result in report["results"] if result["phase"] in MARKERS]
    ridges = [
        limits[roof] / limits["read_bytes_per_second"]
        for limits in report["machine"]["limits"]
        for roof in ("dot_macs_per_second", "fma_macs_per_second")
    ]
    return min(points + ridges) / 2.5, max(points + ridges) * 4


def _draw_roofs(axis: Any, limits: dict[str, Any], span: tuple[float, float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter  # type: ignore[import-not-found,unused-ignore]

    bandwidth = limits["read_bytes_per_second"]
    for name, label, color in (
        ("dot_macs_per_second", "integer dot product", INTEGER),
        ("fma_macs_per_second", "f32 multiply-add", FLOAT),
    ):
        peak = limits[name]
        ridge = peak / bandwidth
        axis.plot([ridge, span[1]], [peak / GIGA] * 2, color=color, linewidth=1.8, zorder=2)
        above = peak >= max(limits["dot_macs_per_second"], limits["fma_macs_per_second"])
        axis.annotate(
            f"{label}: {peak / GIGA:.0f}", (span[1], peak / GIGA), xytext=(-4, 4 if above else -4),
            textcoords="offset points", ha="right", va="bottom" if above else "top", color=color, fontsize="small",
        )  # fmt: skip
    top = max(limits["dot_macs_per_second"], limits["fma_macs_per_second"]) / bandwidth
    axis.plot([span[0], top], [span[0] * bandwidth / GIGA, top * bandwidth / GIGA], color=INK, linewidth=1.8, zorder=2)
    beside = 0.8 * min(limits["dot_macs_per_second"], limits["fma_macs_per_second"]) / bandwidth
    axis.annotate(
        f"memory: {bandwidth / GIGA:.1f} GB/s", (beside, beside * bandwidth / GIGA), xytext=(6, -2),
        textcoords="offset points", ha="left", va="top", color=INK, fontsize="small",
    )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(*span)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    for numbers in (axis.xaxis, axis.yaxis):
        numbers.set_major_formatter("{x:g}")
    axis.grid(color=GRID, linewidth=0.6, which="major")
    axis.tick_params(colors=INK)


def _draw_result(axis: Any, result: dict[str, Any]) -> None:
    """A point with its spread, and a thin line to the limit that it has."""
    x, y = _intensity(result), _rate(result) / GIGA
    share = result["share_of_limit"]
    color = COLORS[result["phase"]]
    axis.plot([x, x], [y, y / share], color=color, linewidth=1, linestyle=":", zorder=3)
    axis.plot([x], [y / share], color=color, marker="_", markersize=9, linestyle="none", zorder=3)
    label = f"{label_of(result)}: {figure_of(result, result['median'])}, {100 * share:.0f} %"
    axis.plot(
        [x], [y], color=color, marker=MARKERS[result["phase"]], markersize=7, markeredgecolor="white",
        linestyle="none", label=label, zorder=4,
    )  # fmt: skip
