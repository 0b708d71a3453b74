"""The raw material of all pictures and texts: drawings, fonts, words, glosses and easy-VQA, built once into a cache.

`build_world` opens the data packages, rasterises every drawing once with resvg and writes `world.npz`, `world.json`
and `fonts/`; `World.load` reads them back in a second.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from .concepts import CONCEPTS, CORE_CONCEPTS, Concept
from .packages import DataError, fetch_data, read_deb, read_icon_set, read_wheel
from .splits import TRAIN_ARTISTS, UNSEEN_ARTIST, drawing_is_held_out, word_is_held_out

SPRITE_SIDE = 96
TRAIN_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "LiberationSans-Regular", "LiberationSans-Bold",
    "LiberationSerif-Regular", "LiberationMono-Bold", "Lato-Regular", "Lato-Bold", "Lato-Black", "OpenSans-Regular",
    "OpenSans-Bold", "C059-Roman", "NimbusMonoPS-Bold", "NimbusRoman-Regular", "URWGothic-Demi",
)  # fmt: skip
TEST_FONTS = ("Cantarell-Bold", "ComicNeue-Bold", "Inconsolata", "EBGaramond12-Regular")
Sprites = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drawing:
    """One artist's picture of a concept: `concept` and `row` index `World.concepts` and `World.sprites`."""

    row: int
    concept: int
    artist: str
    held_out: bool


@dataclass(repr=False)
class World:
    """Everything that scenes and texts are made of.

    Attributes:
        sprites: `[n, 96, 96, 4]` u8, straight RGBA, each drawing cropped to its visible part and centred.
        vqa_images: `[5000, 64, 64, 3]` u8, easy-VQA's 4,000 training pictures and then its 1,000 test pictures.
    """

    concepts: tuple[Concept, ...]
    drawings: list[Drawing]
    sprites: Sprites
    synonyms: dict[str, list[str]]
    words: list[str]
    glosses: list[tuple[str, str]]
    vqa_images: Sprites
    vqa_questions: dict[str, list[tuple[int, str, str]]]
    font_folder: Path
    _by_concept: dict[tuple[str, int], list[Drawing]] = field(default_factory=dict, repr=False)
    _sides: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<World of {len(self.concepts)} concepts in {len(self.drawings)} drawings>"

    def __post_init__(self) -> None:
        groups: dict[tuple[str, int], list[Drawing]] = defaultdict(list)
        for drawing in self.drawings:
            if drawing.artist == UNSEEN_ARTIST:
                side = "unseen_artist"
            else:
                side = "unseen_drawing" if drawing.held_out else "train"
            groups[side, drawing.concept].append(drawing)
        self._by_concept = dict(groups)

    def concepts_with(self, side: str) -> list[int]:
        """Concept indices that have a drawing on a side: `train`, `unseen_drawing` or `unseen_artist`."""
        if side not in self._sides:
            self._sides[side] = sorted(concept for name, concept in self._by_concept if name == side)
        return self._sides[side]

    def drawings_of(self, concept: int, side: str) -> list[Drawing]:
        """The drawings of a concept on a side; empty if there are none."""
        return self._by_concept.get((side, concept), [])

    @cached_property
    def premultiplied(self) -> Sprites:
        """`sprites` with colours multiplied by alpha, as resampling needs them: `[n, 96, 96, 4]` u8."""
        alpha = self.sprites[..., 3:].astype(np.uint16)
        colours = (self.sprites[..., :3] * alpha + 127) // 255
        return np.concatenate([colours.astype(np.uint8), self.sprites[..., 3:]], axis=-1)

    @cached_property
    def half_premultiplied(self) -> Sprites:
        """The same at half the size, for small drawings: `[n, 48, 48, 4]` u8."""
        half = SPRITE_SIDE // 2
        blocks = self.premultiplied.reshape(-1, half, 2, half, 2, 4)
        halves: Sprites = blocks.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8)
        return halves

    @cached_property
    def train_words(self) -> list[str]:
        """Words that training pictures of text may show."""
        return [word for word in self.words if not word_is_held_out(word)]

    @cached_property
    def test_words(self) -> list[str]:
        """Words that only test pictures of text show."""
        return [word for word in self.words if word_is_held_out(word)]

    @cached_property
    def concept_glosses(self) -> list[tuple[str, str]]:
        """The definitions of things that can be named."""
        names = {concept.name for concept in self.concepts}
        return [(word, gloss) for word, gloss in self.glosses if word in names]

    @cached_property
    def vqa_by_image(self) -> list[list[int]]:
        """Rows of easy-VQA's training questions, grouped by picture."""
        groups: dict[int, list[int]] = defaultdict(list)
        for row, (image, _, _) in enumerate(self.vqa_questions["train"]):
            groups[image].append(row)
        return [groups[image] for image in sorted(groups)]

    @classmethod
    def load(cls, folder: Path, choice: str = "all") -> World:
        """Reads the cache that `build_world` wrote into `folder`.

        Args:
            folder: The cache.
            choice: `all` concepts, or `core` for the smaller choice of common ones.

        Raises:
            DataError: The cache is missing or was built for other concepts.
        """
        try:
            meta = json.loads((folder / "world.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"[World.load] {folder.name}: expected world.json, got none; run build_world") from error
        if choice not in ("all", "core"):
            raise DataError(f"[World.load] choice: expected all or core, got {choice!r}")
        everything = tuple(Concept(name, kind, tuple(drawings)) for name, kind, drawings in meta["concepts"])
        core = {concept.name for concept in CORE_CONCEPTS}
        kept = [i for i, concept in enumerate(everything) if choice == "all" or concept.name in core]
        concepts = tuple(everything[i] for i in kept)
        new = {old: index for index, old in enumerate(kept)}
        with np.load(folder / "world.npz") as arrays:
            sprites, vqa_images = arrays["sprites"], arrays["vqa_images"]
        drawings = [
            Drawing(row, new[concept], artist, drawing_is_held_out(everything[concept].name, artist))
            for row, (concept, artist) in enumerate(meta["drawings"])
            if concept in new
        ]
        questions = {side: [(int(i), str(q), str(a)) for i, q, a in rows] for side, rows in meta["vqa"].items()}
        glosses = [(str(word), str(gloss)) for word, gloss in meta["glosses"]]
        return cls(
            concepts,
            drawings,
            sprites,
            meta["synonyms"],
            meta["words"],
            glosses,
            vqa_images,
            questions,
            folder / "fonts",
        )


def _cldr(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """English name of a character to the character, and name to keywords."""
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for part in ("annotations", "annotationsDerived"):
        files = read_deb(path, lambda name, part=part: name.endswith(f"/{part}/en.xml"))  # type: ignore[misc]
        root = ElementTree.fromstring(next(iter(files.values())))
        words: dict[str, list[str]] = {}
        for node in root.iter("annotation"):
            character, text = node.get("cp", ""), node.text or ""
            if node.get("type") == "tts":
                names.setdefault(text, character)
                keywords[text] = words.get(character, [])
            else:
                words[character] = [word.strip() for word in text.split("|")]
    return names, keywords


def rasterise(body: str, width: float, height: float) -> npt.NDArray[np.uint8]:
    """Draws the inside of an SVG document, crops it to what is visible and centres it: `[96, 96, 4]` RGBA."""
    import resvg_py  # type: ignore[import-not-found,unused-ignore]

    svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    svg += f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>'
    data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=144, skip_system_fonts=True))
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        raise DataError("[rasterise] drawing: expected visible pixels, got an empty picture")
    image = image.crop(box)
    scale = SPRITE_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGBA", (SPRITE_SIDE, SPRITE_SIDE))
    square.paste(image, ((SPRITE_SIDE - size[0]) // 2, (SPRITE_SIDE - size[1]) // 2))
    return np.asarray(square)


def _code(character: str) -> str:
    return "-".join(f"{ord(c):x}" for c in character if ord(c) != 0xFE0F)


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _icon_table(path: Path, by_name: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Key of a drawing (code point, or bare name where the set has no code points) to its icon's name."""
    icons, chars, _ = read_icon_set(path)
    if by_name:
        return {_bare(name): name for name in icons["icons"]}, icons
    return {code.replace("-fe0f", ""): name for code, name in chars.items()}, icons


def _draw_all(folder: Path, names: dict[str, str]) -> tuple[tuple[Concept, ...], list[tuple[int, str]], Sprites]:
    artists = {artist: _icon_table(folder / f"{artist}.tgz", False) for artist in TRAIN_ARTISTS}
    other, other_icons = _icon_table(folder / f"{UNSEEN_ARTIST}.tgz", True)
    noto = artists["noto"][0]
    concepts: list[Concept] = []
    rows: list[tuple[int, str]] = []
    sprites: list[npt.NDArray[np.uint8]] = []

    def draw(artist: str, icons: dict[str, Any], icon: str) -> None:
        entry = icons["icons"].get(icon) or icons["icons"][icons["aliases"][icon]["parent"]]
        size = (entry.get("width", icons["width"]), entry.get("height", icons["height"]))
        sprites.append(rasterise(entry["body"], *size))
        rows.append((len(concepts), artist))

    for concept in CONCEPTS:
        codes = [_code(names[name]) for name in concept.drawings if name in names]
        codes = [code for code in codes if all(code in table for table, _ in artists.values())]
        if not codes:
            continue
        for code in codes:
            for artist, (table, icons) in artists.items():
                draw(artist, icons, table[code])
        bare = [_bare(noto[code]) for code in codes]
        for key in dict.fromkeys([_bare(concept.name), *bare]):
            if key in other:
                draw(UNSEEN_ARTIST, other_icons, other[key])
        concepts.append(concept)
    return tuple(concepts), rows, np.stack(sprites)


def _word_list(path: Path) -> list[str]:
    text = next(iter(read_deb(path, lambda name: name.endswith("dict/american-english-small")).values()))
    return [word for word in text.decode("utf-8").split("\n") if re.fullmatch(r"[a-z]{3,8}", word)]


def _glosses(path: Path, common: set[str], nouns: set[str]) -> list[tuple[str, str]]:
    """Commonest senses of WordNet as (word, definition of 15 to 125 characters); `nouns` are nouns only."""
    found: dict[str, str] = {}
    files = read_deb(path, lambda name: name.rpartition("/")[2].partition(".")[0] in ("index", "data"))
    by_name = {Path(name).name: data.decode("latin-1") for name, data in files.items()}
    for part in ("noun", "verb", "adj"):
        glosses: dict[str, str] = {}
        for line in by_name[f"data.{part}"].split("\n"):
            head, bar, gloss = line.partition(" | ")
            if bar and not line.startswith(" "):
                glosses[head.partition(" ")[0]] = gloss.split(";")[0].strip()
        for line in by_name[f"index.{part}"].split("\n"):
            fields = line.split()
            if line.startswith(" ") or len(fields) < 6:
                continue
            word = fields[0].replace("_", " ")
            definition = glosses[fields[-int(fields[2])]]  # offsets come last, commonest sense first
            known = word in found or word not in common or (part != "noun" and word in nouns)
            if not known and 15 <= len(definition) <= 125 and '"' not in definition:
                found[word] = definition
    return sorted(found.items())


def _easy_vqa(path: Path) -> tuple[Sprites, dict[str, list[tuple[int, str, str]]]]:
    files = read_wheel(path, lambda name: name.startswith("easy_vqa/data/"))
    images: list[npt.NDArray[np.uint8]] = []
    questions: dict[str, list[tuple[int, str, str]]] = {}
    for side in ("train", "test"):
        rows = json.loads(files[f"easy_vqa/data/{side}/questions.json"])
        start = len(images)
        questions[side] = [(start + int(image), str(question), str(answer)) for question, answer, image in rows]
        for index in range(1 + max(int(row[2]) for row in rows)):
            data = files[f"easy_vqa/data/{side}/images/{index}.png"]
            images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return np.stack(images), questions


def _fonts(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    wanted = set(TRAIN_FONTS + TEST_FONTS)
    found = set()
    for archive in sorted(folder.glob("fonts-*.deb")):
        for name, data in read_deb(archive, lambda name: Path(name).stem in wanted).items():
            if Path(name).suffix in (".ttf", ".otf"):
                (target / f"{Path(name).stem}.font").write_bytes(data)
                found.add(Path(name).stem)
    if found != wanted:
        raise DataError(f"[build_world] fonts: expected {len(wanted)}, got none for {sorted(wanted - found)}")


def build_world(data: Path, folder: Path, choice: str = "all") -> World:
    """Fetches what `data` lacks, builds the cache in `folder` if it is not there yet, and loads it.

    Raises:
        DataError: A package is missing or has unexpected content.
    """
    if (folder / "world.json").exists():
        return World.load(folder, choice)
    fetch_data(data)
    folder.mkdir(parents=True, exist_ok=True)
    names, keywords = _cldr(data / "unicode-cldr-core.deb")
    concepts, rows, sprites = _draw_all(data, names)
    words = _word_list(data / "wamerican-small.deb")
    nouns = {concept.name for concept in concepts}
    vqa_images, questions = _easy_vqa(data / "easy-vqa.whl")
    _fonts(data, folder / "fonts")
    np.savez_compressed(folder / "world.npz", sprites=sprites, vqa_images=vqa_images)
    meta = {
        "concepts": [[c.name, c.kind, list(c.drawings)] for c in concepts],
        "drawings": rows,
        "synonyms": {c.name: sorted({k for d in c.drawings for k in [d, *keywords.get(d, [])]}) for c in concepts},
        "words": words,
        "glosses": _glosses(data / "wordnet-base.deb", set(words) | nouns, nouns),
        "vqa": questions,
    }
    temporary = folder / "world.json.part"
    temporary.write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    temporary.replace(folder / "world.json")
    return World.load(folder, choice)
