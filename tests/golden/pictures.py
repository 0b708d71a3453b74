"""Draws the fixtures' pictures: gradients and shapes without noise, so that the PNG files stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

N_FRAMES = 8


def _gradient(width: int, height: int, low: tuple[int, int, int], high: tuple[int, int, int]) -> Image.Image:
    """A gradient: red runs with x, green with y, blue with both, in integer steps."""
    x = np.arange(width, dtype=np.int64)[None, :]
    y = np.arange(height, dtype=np.int64)[:, None]
    positions = (x * 255 // (width - 1) + 0 * y, y * 255 // (height - 1) + 0 * x, (x + y) * 255 // (width + height - 2))
    pixels: npt.NDArray[np.uint8] = np.stack(
        [low[c] + (high[c] - low[c]) * positions[c] // 255 for c in range(3)], axis=-1
    ).astype(np.uint8)
    return Image.fromarray(pixels, "RGB")


def _wide() -> Image.Image:
    image = _gradient(181, 97, (20, 90, 140), (120, 220, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 70, 181, 97), fill=(60, 120, 50))
    draw.polygon([(30, 70), (60, 25), (90, 70)], fill=(150, 60, 40))
    draw.ellipse((130, 10, 160, 40), fill=(250, 220, 60))
    draw.line((100, 96, 180, 60), fill=(240, 240, 240), width=3)
    return image


def _tall() -> Image.Image:
    image = _gradient(75, 190, (200, 40, 60), (30, 180, 90))
    draw = ImageDraw.Draw(image)
    draw.rectangle((25, 60, 50, 180), fill=(40, 40, 90))
    draw.ellipse((22, 20, 53, 58), fill=(230, 190, 160))
    for step in range(5):
        draw.line((25, 75 + 20 * step, 50, 75 + 20 * step), fill=(250, 250, 250))
    return image


def _square() -> Image.Image:
    image = _gradient(120, 120, (250, 250, 250), (90, 60, 30))
    draw = ImageDraw.Draw(image)
    for step in range(4):
        draw.rectangle((10 + 14 * step, 10 + 14 * step, 110 - 14 * step, 110 - 14 * step), outline=(10, 60 * step, 200))
    return image


def _gray() -> Image.Image:
    image = _gradient(99, 63, (0, 0, 0), (255, 255, 255)).getchannel("G")
    ImageDraw.Draw(image).ellipse((30, 10, 70, 50), fill=220)
    return image


def _rgba() -> Image.Image:
    image = _gradient(64, 88, (0, 200, 200), (250, 20, 90))
    alpha = _gradient(64, 88, (255, 0, 0), (0, 255, 0)).getchannel("R")
    image.putalpha(alpha)
    return image


def _frame(index: int) -> Image.Image:
    image = _gradient(96, 72, (30, 30, 60 + 20 * index), (90, 200, 220))
    left = 4 + 10 * index
    ImageDraw.Draw(image).ellipse((left, 40 - 4 * index, left + 18, 58 - 4 * index), fill=(250, 120, 20))
    return image


def draw_all() -> dict[str, Image.Image]:
    """Returns all pictures by file name."""
    pictures = {"wide.png": _wide(), "tall.png": _tall(), "square.png": _square()}
    pictures |= {"gray.png": _gray(), "rgba.png": _rgba()}
    return pictures | {f"frame_{index}.png": _frame(index) for index in range(N_FRAMES)}


def write_all(folder: Path) -> None:
    """Writes all pictures as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in draw_all().items():
        picture.save(folder / name, optimize=True)
