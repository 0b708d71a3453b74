"""The compositor: a scene is a plain description, and rendering it is a pure function of that description.

Backgrounds, drawings, coloured shapes and text are put together with Pillow at the resolution of the model. For the
vision stage the renderer also says what every patch shows.
"""

from __future__ import annotations

import colorsys
import io
import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .world import SPRITE_SIDE, World

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int16]
Rng = np.random.Generator

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40), "orange": (245, 140, 25), "yellow": (250, 220, 50), "green": (50, 160, 60),
    "blue": (45, 90, 215), "purple": (130, 60, 170), "pink": (250, 150, 190), "brown": (125, 80, 45),
    "black": (20, 20, 20), "white": (245, 245, 245), "gray": (135, 135, 135),
}  # fmt: skip
COLOUR_NAMES = tuple(COLOURS)
SHAPES = ("circle", "square", "triangle", "rectangle", "oval", "pentagon", "hexagon", "cross")
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
IGNORED = -100
_CLASH = {("red", "orange"), ("orange", "yellow"), ("white", "gray"), ("black", "gray"), ("red", "pink"),
          ("brown", "orange"), ("blue", "purple"), ("black", "brown"), ("brown", "red"), ("white", "pink"),
          ("white", "yellow"), ("pink", "purple"), ("brown", "gray"), ("black", "purple"),
          ("black", "blue")}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """Something placed on the canvas.

    Attributes:
        kind: `sprite`, `shape` or `text`.
        name: Concept name, shape name or the text itself.
        x, y: Centre as a fraction of the canvas.
        size: Longer side (for text: height) as a fraction of the canvas.
        row: Row in `World.sprites`, of a sprite.
        concept: Index into `World.concepts`, of a sprite.
        colour: Colour name, of a shape or text.
        rgb: Its exact colour.
        angle: Rotation in degrees, counter-clockwise.
        gain: Factors on red, green and blue, of a sprite.
        font: Name of the font, of text.
    """

    kind: str
    name: str
    x: float
    y: float
    size: float
    row: int = 0
    concept: int = 0
    colour: str = ""
    rgb: tuple[int, int, int] = (0, 0, 0)
    angle: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    font: str = ""


@dataclass(frozen=True)
class Background:
    """What lies behind the items: `kind` is flat, gradient, stripes, checker, spots or noise."""

    kind: str
    colour: str
    rgb: tuple[int, int, int]
    second: tuple[int, int, int]
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; `seed` drives blur, noise and JPEG, `rough` is how likely each of them is."""

    background: Background
    items: tuple[Item, ...] = field(default_factory=tuple)
    seed: int = 0
    rough: float = 0.0


def jitter_colour(rng: Rng, name: str, amount: float = 0.6) -> tuple[int, int, int]:
    """Draws a shade that still carries the colour's name."""
    red, green, blue = (channel / 255 for channel in COLOURS[name])
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    hue = (hue + amount * rng.uniform(-0.02, 0.02)) % 1.0
    if name not in ("white", "gray", "black"):
        saturation = float(np.clip(saturation + amount * rng.uniform(-0.15, 0.15), 0, 1))
    value = float(np.clip(value + amount * rng.uniform(-0.12, 0.12), 0, 1))
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)


def contrasts(one: str, other: str) -> bool:
    """Whether two colour names are far enough apart to be told apart when they touch."""
    return one != other and (one, other) not in _CLASH and (other, one) not in _CLASH


def random_background(rng: Rng, flat_share: float = 0.5) -> Background:
    """Draws a background; flat ones have a nameable colour."""
    name = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    first = jitter_colour(rng, name)
    if rng.random() < flat_share:
        return Background("flat", name, first, first)
    kind = ("gradient", "stripes", "checker", "spots", "noise")[rng.integers(5)]
    second_name = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    second = jitter_colour(rng, second_name)
    if kind != "gradient":  # patterns stay faint, so that what lies on them can be seen
        share = rng.uniform(0.1, 0.35)
        second = tuple(round(a + share * (b - a)) for a, b in zip(first, second, strict=True))  # type: ignore[assignment]
    return Background(kind, "", first, second, int(rng.integers(1 << 31)))


def random_sprite(
    world: World, rng: Rng, concept: int, place: tuple[float, float, float], side: str = "train", *, tilt: float = 12.0
) -> Item:
    """Draws one of a concept's drawings of a split side at a place (x, y, size), slightly turned and tinted.

    One in eight is tinted strongly: artists disagree about colours most of all.
    """
    drawings = world.drawings_of(concept, side)
    drawing = drawings[rng.integers(len(drawings))]
    angle = float(rng.uniform(-tilt, tilt)) if rng.random() < 0.5 else 0.0
    tint = rng.random()
    spread = 0.5 if tint < 0.125 else 0.12
    gain = tuple(float(g) for g in rng.uniform(1 - spread, 1 + spread, 3)) if tint < 0.5 else (1.0, 1.0, 1.0)
    name = world.concepts[concept].name
    return Item("sprite", name, *place, drawing.row, concept, angle=angle, gain=gain)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _shape_mask(shape: str) -> Image.Image:
    """The outline of a shape, filled, antialiased: an `L` picture of 96 x 96."""
    side = SPRITE_SIDE * 4
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    last = side - 1
    corners = {"triangle": 3, "pentagon": 5, "hexagon": 6}
    if shape == "circle":
        draw.ellipse((0, 0, last, last), fill=255)
    elif shape == "oval":
        draw.ellipse((0, last * 0.22, last, last * 0.78), fill=255)
    elif shape == "square":
        draw.rectangle((last * 0.06, last * 0.06, last * 0.94, last * 0.94), fill=255)
    elif shape == "rectangle":
        draw.rectangle((0, last * 0.25, last, last * 0.75), fill=255)
    elif shape == "cross":
        draw.rectangle((0, last * 0.34, last, last * 0.66), fill=255)
        draw.rectangle((last * 0.34, 0, last * 0.66, last), fill=255)
    else:
        count = corners[shape]
        turns = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
        draw.polygon([(last / 2 * (1 + math.cos(t)), last / 2 * (1 + math.sin(t))) for t in turns], fill=255)
    return image.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.BOX)


@lru_cache(maxsize=512)
def _font(path: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, pixels)


class Renderer:
    """Draws scenes at one resolution.

    Args:
        world: Where the drawings and fonts come from.
        side: Width and height of the pictures, in pixels.
        patch: Width and height of the patches that labels are given for, in pixels.
    """

    def __init__(self, world: World, side: int, patch: int = 14) -> None:
        self.world = world
        self.side = side
        self.patch = patch
        self.grid = side // patch
        self.shape_label = 1 + len(world.concepts)
        self.character_label = self.shape_label + len(SHAPES)
        self.n_labels = self.character_label + len(CHARACTERS)
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
        self._rows, self._columns = rows / side, columns / side
        self._sprites, self._half_sprites = world.premultiplied, world.half_premultiplied  # before workers fork

    def _background(self, background: Background) -> Image.Image:
        side = self.side
        if background.kind == "flat":
            return Image.new("RGB", (side, side), background.rgb)
        rng = np.random.default_rng(background.seed)
        if background.kind == "noise":
            coarse = rng.random((9, 9), dtype=np.float32) * 255
            image = Image.fromarray(coarse.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
            weight = np.asarray(image, np.float32) / 255
        elif background.kind == "gradient":
            turn = rng.uniform(0, 2 * math.pi)
            weight = self._columns * math.cos(turn) + self._rows * math.sin(turn)
            weight = (weight - weight.min()) / (weight.max() - weight.min())
        else:
            period = rng.uniform(0.06, 0.25)
            across = np.floor(self._columns / period)
            down = np.floor(self._rows / period)
            if background.kind == "stripes":
                weight = np.mod(across if rng.random() < 0.5 else down, 2)
            elif background.kind == "checker":
                weight = np.mod(across + down, 2)
            else:
                dx, dy = np.mod(self._columns / period, 1) - 0.5, np.mod(self._rows / period, 1) - 0.5
                weight = (dx * dx + dy * dy < 0.09).astype(np.float32)
        image = Image.new("RGB", (side, side), background.rgb)
        image.paste(background.second, None, Image.fromarray((weight * 255).astype(np.uint8)))
        return image

    def _stamp(self, item: Item) -> Image.Image:
        """The item alone, as RGBA of its final size."""
        pixels = max(4, round(item.size * self.side))
        if item.kind == "shape":
            stamp = Image.new("RGBA", (pixels, pixels), (*item.rgb, 0))
            stamp.putalpha(_shape_mask(item.name).resize((pixels, pixels), Image.Resampling.BILINEAR))
            return stamp
        sprites = self._half_sprites if pixels <= SPRITE_SIDE // 2 else self._sprites
        pixmap = sprites[item.row]
        stamp = Image.frombytes("RGBa", pixmap.shape[:2], pixmap.tobytes())
        stamp = stamp.resize((pixels, pixels), Image.Resampling.BILINEAR)
        if item.angle:
            stamp = stamp.rotate(item.angle, Image.Resampling.BILINEAR, expand=True)
        stamp = stamp.convert("RGBA")
        if item.gain != (1.0, 1.0, 1.0):
            tinted = np.minimum(np.asarray(stamp) * np.array([*item.gain, 1.0], np.float32), 255)
            stamp = Image.fromarray(tinted.astype(np.uint8))
        return stamp

    def _text(self, canvas: Image.Image, item: Item) -> list[tuple[int, int, int]]:
        """Writes text; returns (label, patch row, patch column) of the patches whose centre a character covers."""
        path = str(self.world.font_folder / f"{item.font}.font")
        pixels = max(8, round(item.size * self.side))
        font = _font(path, pixels)
        while pixels > 8 and font.getlength(item.name) > 0.94 * self.side:
            pixels -= 2
            font = _font(path, pixels)
        width = font.getlength(item.name)
        left = float(np.clip(item.x * self.side - width / 2, 2, max(2.0, self.side - width - 2)))
        top, bottom = font.getbbox(item.name)[1::2]
        upper = float(np.clip(item.y * self.side - (bottom - top) / 2, 1, max(1.0, self.side - (bottom - top) - 1)))
        ImageDraw.Draw(canvas).text((left, upper - top), item.name, font=font, fill=item.rgb)
        first_row = max(0, math.ceil((upper - 0.35 * self.patch) / self.patch - 0.5))
        last_row = min(self.grid - 1, math.floor((upper + bottom - top + 0.35 * self.patch) / self.patch - 0.5))
        marks: list[tuple[int, int, int]] = []
        for index, character in enumerate(item.name.lower()):
            if character not in CHARACTERS:
                continue
            begin = left + font.getlength(item.name[:index])
            end = left + font.getlength(item.name[: index + 1])
            label = self.character_label + CHARACTERS.index(character)
            for column in range(self.grid):
                centre = (column + 0.5) * self.patch
                if begin <= centre < end:
                    marks.extend((label, row, column) for row in range(first_row, last_row + 1))
        return marks

    def label_of(self, item: Item) -> int:
        """Class of a drawing or a shape among the patch labels."""
        if item.kind == "sprite":
            return 1 + item.concept
        return self.shape_label + SHAPES.index(item.name)

    def render(self, scene: Scene) -> Pixels:
        """Draws a scene: `[side, side, 3]` u8."""
        return self._render(scene, None, None)

    def render_labelled(self, scene: Scene) -> tuple[Pixels, Labels, Labels]:
        """Draws a scene and says what each patch shows.

        Returns:
            The picture, what covers each patch `[grid, grid]` (0 background, then concepts, shapes, characters) and
            the colour of each patch (`COLOUR_NAMES`; -100 where no colour can be named).
        """
        what = np.zeros((self.grid, self.grid), np.int16)
        flat = scene.background.kind == "flat"
        colour = np.full_like(what, COLOUR_NAMES.index(scene.background.colour) if flat else IGNORED)
        return self._render(scene, what, colour), what, colour

    def _render(self, scene: Scene, what: Labels | None, colour: Labels | None) -> Pixels:
        canvas = self._background(scene.background)
        for item in scene.items:
            if item.kind == "text":
                marks = self._text(canvas, item)
                if what is not None and colour is not None:
                    for label, row, column in marks:
                        what[row, column] = label
                        colour[row, column] = IGNORED
                continue
            stamp = self._stamp(item)
            corner = (round(item.x * self.side - stamp.width / 2), round(item.y * self.side - stamp.height / 2))
            canvas.paste(stamp, corner, stamp)
            if what is not None and colour is not None:
                mask = Image.new("L", (self.grid * self.patch,) * 2)
                mask.paste(stamp.getchannel("A"), corner)
                cover = np.asarray(mask.reduce(self.patch))
                inside = cover > 90
                what[inside] = self.label_of(item)
                colour[inside & (cover < 200)] = IGNORED
                named = COLOUR_NAMES.index(item.colour) if item.kind == "shape" else IGNORED
                colour[inside & (cover >= 200)] = named
        return self._finish(canvas, scene)

    def _finish(self, canvas: Image.Image, scene: Scene) -> Pixels:
        """Blur, noise, brightness and JPEG, each with probability `scene.rough`."""
        if scene.rough <= 0:
            return np.asarray(canvas)
        rng = np.random.default_rng(scene.seed)
        blur, jpeg, noise, light = (rng.random(4) < scene.rough).tolist()
        if blur:
            canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
        if jpeg:
            buffer = io.BytesIO()
            canvas.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
            canvas = Image.open(buffer)
        pixels = np.asarray(canvas)
        if noise or light:
            change = pixels.astype(np.float32)
            if light:
                change = (change - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-18, 18)
            if noise:
                change += rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(1, 7)
            pixels = np.clip(change, 0, 255).astype(np.uint8)
        return pixels
