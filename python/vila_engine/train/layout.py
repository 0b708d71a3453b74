"""Random scenes of the kinds that tasks and the vision stage need: placing things so that they can be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scenes import (
    COLOUR_NAMES,
    SHAPES,
    Background,
    Item,
    Rng,
    Scene,
    contrasts,
    jitter_colour,
    random_background,
    random_sprite,
)
from .splits import word_is_held_out
from .world import TRAIN_FONTS, World


@dataclass(frozen=True)
class Side:
    """Which sides of the splits a scene is drawn from; the default is training.

    Attributes:
        drawings: `train`, `unseen_drawing` or `unseen_artist`.
        fonts: Names of the fonts in use.
        test_words: Draw words and digit strings that training never shows.
        test_compositions: Draw combinations that training never shows.
        test_templates: Ask with templates that training never uses.
        rough: How likely each of blur, noise, brightness and JPEG is.
        more: At most so many further questions about the same picture.
    """

    drawings: str = "train"
    fonts: tuple[str, ...] = TRAIN_FONTS
    test_words: bool = False
    test_compositions: bool = False
    test_templates: bool = False
    rough: float = 0.15
    more: int = 3


TRAIN = Side()


def pick(rng: Rng, items: list[int]) -> int:
    """One element, evenly."""
    return items[rng.integers(len(items))]


def pick_distinct(rng: Rng, items: list[int], count: int) -> list[int]:
    """Several different elements."""
    return [items[i] for i in rng.choice(len(items), count, replace=False)]


def finish(rng: Rng, background: Background, items: list[Item], side: Side) -> Scene:
    """Makes the scene and seeds its rough edges."""
    return Scene(background, tuple(items), int(rng.integers(1 << 31)), side.rough)


def scatter(rng: Rng, count: int, low: float, high: float) -> list[tuple[float, float, float]]:
    """Places `count` squares without overlap: (x, y, size) as fractions; sizes shrink until they fit."""
    while True:
        placed: list[tuple[float, float, float]] = []
        for share, across, down in rng.random((12 * count, 3)).tolist():
            size = low + (high - low) * share
            x, y = (size / 2 + (1 - size) * place for place in (across, down))
            if all(max(abs(x - a), abs(y - b)) > 0.48 * (size + s) for a, b, s in placed):
                placed.append((x, y, size))
                if len(placed) == count:
                    return placed
        low, high = low * 0.9, high * 0.9


def grid_cells(rng: Rng, count: int, cells: int = 3) -> list[tuple[float, float, float]]:
    """Places `count` squares in different cells of a grid: (x, y, size)."""
    places = []
    for cell in rng.choice(cells * cells, count, replace=False).tolist():
        size = float(rng.uniform(0.7, 0.98)) / cells
        slack = (1 / cells - size) / 2
        x = (cell % cells + 0.5) / cells + float(rng.uniform(-slack, slack))
        y = (cell // cells + 0.5) / cells + float(rng.uniform(-slack, slack))
        places.append((x, y, size))
    return places


def random_shape(rng: Rng, x: float, y: float, size: float, avoid: str, *, shape: str = "", colour: str = "") -> Item:
    """A coloured shape whose colour stands out from `avoid` (a colour name, or empty)."""
    names = [name for name in COLOUR_NAMES if not avoid or contrasts(name, avoid)]
    colour = colour or names[rng.integers(len(names))]
    shape = shape or SHAPES[rng.integers(len(SHAPES))]
    return Item("shape", shape, x, y, size, colour=colour, rgb=jitter_colour(rng, colour))


def plain_background(rng: Rng, colour: str = "") -> Background:
    """A flat background of a colour, any if none is named."""
    colour = colour or COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    rgb = jitter_colour(rng, colour)
    return Background("flat", colour, rgb, rgb)


def text_item(rng: Rng, text: str, background: Background, fonts: tuple[str, ...]) -> Item:
    """A line of text in a colour that stands out from the background's mean colour."""
    under = np.mean([background.rgb, background.second], axis=0)
    while True:
        colour = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
        rgb = jitter_colour(rng, colour)
        if abs(float(np.dot(np.array(rgb) - under, (0.3, 0.59, 0.11)))) > 70:
            break
    x, y = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.85)
    size = float(rng.uniform(0.16, 0.5))
    return Item("text", text, float(x), float(y), size, colour=colour, rgb=rgb, font=fonts[rng.integers(len(fonts))])


def random_string(rng: Rng, world: World, side: Side) -> str:
    """A word of 3 to 8 letters or 1 to 6 digits from the right side of the split."""
    if rng.random() < 0.6:
        words = world.test_words if side.test_words else world.train_words
        word = words[rng.integers(len(words))]
        return (word, word.upper(), word.capitalize())[rng.integers(3)]
    while True:
        length = int(rng.integers(1, 7))
        digits = "".join(str(d) for d in rng.integers(0, 10, length))
        if length < 3 or word_is_held_out(digits) == side.test_words:
            return digits


def vision_scene(world: World, rng: Rng, side: Side = TRAIN, zoom: float = 1.0) -> tuple[Scene, int]:
    """A scene for the vision stage and the concept that it shows alone (-1 if it shows several things).

    A third of the scenes hold one drawing; the rest hold many drawings, shapes or text.

    Args:
        world: What to draw.
        rng: Source of all choices.
        side: Sides of the splits.
        zoom: How much smaller the picture is than the model's; fewer and, relative to it, larger things are drawn.
    """
    concepts = world.concepts_with(side.drawings)
    kind = rng.random()
    background = random_background(rng)
    if kind < 0.3:
        concept = pick(rng, concepts)
        size = float(rng.uniform(0.3 * zoom, 0.98))
        x, y = (float(v) for v in rng.uniform(size / 2, 1 - size / 2, 2))
        item = random_sprite(world, rng, concept, (x, y, size), side.drawings)
        return finish(rng, background, [item], side), concept
    if kind < 0.75:
        cells = max(2, round(3 / zoom))
        count = int(rng.integers(2, cells * cells + 1))
        free = rng.random() < 0.5
        places = scatter(rng, count, 0.22 * zoom, 0.5 * zoom) if free else grid_cells(rng, count, cells)
        items = [random_sprite(world, rng, pick(rng, concepts), (x, y, s), side.drawings) for x, y, s in places]
        return finish(rng, background, items, side), -1
    if kind < 0.87:
        places = scatter(rng, int(rng.integers(1, 1 + round(5 / zoom))), 0.2 * zoom, 0.45 * zoom)
        items = [random_shape(rng, x, y, size, background.colour) for x, y, size in places]
        return finish(rng, background, items, side), -1
    text = random_string(rng, world, side)[: round(8 / zoom)]
    return finish(rng, background, [text_item(rng, text, background, side.fonts)], side), -1
