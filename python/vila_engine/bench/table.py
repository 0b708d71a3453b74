"""A benchmark's report as text."""

from __future__ import annotations

from typing import Any

HEADER = ("phase", "isa", "threads", "median", "min", "max", "", "limit", "share", "bound by")
GIGA, MEGA, KILO = 1e9, 1e6, 1e3


def report_table(report: dict[str, Any]) -> str:
    """The machine, its limits, and a line for each figure."""
    machine, model = report["machine"], report["model"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {(machine['memory_bytes'] or 0) / GIGA:.0f} GB, "
        f"huge pages {machine['transparent_huge_pages'] or 'unknown'}, load {machine['load_average']:.1f} at the start",
        f"{model['source'] or 'unnamed model'}: {model['file_bytes'] / MEGA:,.1f} MB, "
        + ", ".join(f"{n / MEGA:,.1f} MB {name}" for name, n in sorted(model["weight_bytes"].items()) if "p16" in name)
        + f", {model['kv_cache']} cache of {model['kv_cache_bytes_per_token'] / KILO:,.1f} kB a token",
    ]
    for limit in machine["limits"]:
        lines.append(
            f"limits of {limit['isa']}, {limit['threads']} threads: {limit['read_bytes_per_second'] / GIGA:.1f} GB/s, "
            f"dot {limit['dot_macs_per_second'] / GIGA:.0f} and f32 fma {limit['fma_macs_per_second'] / GIGA:.0f} "
            f"GMAC/s"
        )
    rows = [_row(result) for result in report["results"]]
    lines += ["", *_aligned([HEADER, *rows])]
    for result in report["results"]:
        if result.get("peak_bytes"):
            lines.append(
                f"peak memory when it answers about a picture ({result['isa']}, {result['threads']} threads): "
                f"{result['peak_bytes'] / MEGA:,.0f} MB"
            )
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])


def label_of(result: dict[str, Any]) -> str:
    """A figure's name: "decode 256"."""
    size = result.get("context", result.get("prompt_tokens") if result["phase"] == "prefill" else None)
    name = str(result["phase"]).replace("_", " ")
    return f"{name} {size}" if size else name


def figure_of(result: dict[str, Any], value: float) -> str:
    """A value with its unit."""
    return f"{value:.3g} s" if result["unit"] == "seconds" else f"{value:.3g} tokens/s"


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    numbers = [f"{result[name]:.4g}" for name in ("median", "min", "max")]
    return (
        label_of(result),
        result["isa"],
        str(result["threads"]),
        *numbers,
        "s" if result["unit"] == "seconds" else "tokens/s",
        f"{result['limit']:.4g}",
        f"{100 * result['share_of_limit']:.0f} %",
        result["bound"],
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Numbers to the right, words to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = {2, 3, 4, 5, 7, 8}

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(cells)).rstrip()

    return [line(row) for row in rows]
