"""A bar chart with error bars as a PNG, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WIDTH, ROW, LEFT, RIGHT, TOP = 900, 26, 300, 120, 56
BAR, LINE, TEXT, GRID = (70, 120, 180), (30, 50, 90), (20, 20, 20), (215, 215, 215)


def draw_chart(rows: Sequence[tuple[str, float, float, float]], title: str, path: Path) -> None:
    """Draws a horizontal bar per row.

    Args:
        rows: Label, share, and the two ends of its interval, each 0 to 1.
        title: Written above.
        path: The PNG to write.
    """
    from PIL import Image, ImageDraw, ImageFont

    height = TOP + ROW * len(rows) + 40
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((16, 14), title, fill=TEXT, font=large)
    span = WIDTH - LEFT - RIGHT
    for percent in range(0, 101, 20):
        at = LEFT + span * percent // 100
        draw.line((at, TOP - 4, at, height - 30), fill=GRID)
        draw.text((at, height - 24), f"{percent} %", fill=TEXT, font=small, anchor="mt")
    for index, (label, share, low, high) in enumerate(rows):
        middle = TOP + ROW * index + ROW // 2
        draw.text((LEFT - 10, middle), label, fill=TEXT, font=small, anchor="rm")
        draw.rectangle((LEFT, middle - 8, LEFT + span * share, middle + 8), fill=BAR)
        ends = LEFT + span * low, LEFT + span * high
        draw.line((ends[0], middle, ends[1], middle), fill=LINE, width=2)
        for x in ends:
            draw.line((x, middle - 5, x, middle + 5), fill=LINE, width=2)
        draw.text((LEFT + span + 10, middle), f"{100 * share:.1f} %", fill=TEXT, font=small, anchor="lm")
    image.save(path)
