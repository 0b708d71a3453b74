"""Writes the frozen questions of the evaluation: a folder with `questions.jsonl` and pictures, and the demo's examples.

`seen` shows drawings of the training in new scenes; the other splits hold back one thing each: the wording of the
question, the drawing, the artist, the combination, the word, the font. easy-VQA is its official test.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .facts import Turn, sentence
from .layout import Side
from .packages import read_deb
from .scenes import Pixels, Renderer, Scene
from .splits import fraction
from .tasks import PICTURE_TASKS, Sample
from .templates import ask
from .texts import text_task
from .world import TEST_FONTS, World

SEEN = Side(more=0)
WORDED = {"seen": SEEN, "unseen_template": replace(SEEN, test_templates=True)}
COMBINED = {**WORDED, "unseen_combination": replace(SEEN, test_compositions=True)}
SPLITS: dict[str, dict[str, Side]] = {
    "name": {
        **WORDED,
        "unseen_drawing": replace(SEEN, drawings="unseen_drawing"),
        "unseen_artist": replace(SEEN, drawings="unseen_artist"),
    },
    "caption": COMBINED,
    "count": COMBINED,
    "colour": COMBINED,
    "position": COMBINED,
    "exists": WORDED,
    "changed": WORDED,
    "video": WORDED,
    "read": {
        **WORDED,
        "unseen_word": replace(SEEN, test_words=True),
        "unseen_font": replace(SEEN, fonts=TEST_FONTS),
    },
    "in-context": {"seen": SEEN, "unseen_word": replace(SEEN, test_compositions=True)},
    "text": WORDED,
}


class _Folder:
    """A set that is being written."""

    def __init__(self, folder: Path, renderer: Renderer, suffix: str) -> None:
        self.folder, self.renderer, self.suffix = folder, renderer, suffix
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def picture(self, pixels: Pixels, name: str) -> str:
        path = self.folder / f"{name}.{self.suffix}"
        Image.fromarray(pixels).save(path, lossless=True)  # PNG has no such setting and ignores it
        return path.name

    def add(self, sample: Sample, split: str, number: int) -> None:
        name = f"{sample.task}-{split}-{number:04d}"
        files = []
        for index, scene in enumerate(sample.scenes):
            assert isinstance(scene, Scene)
            files.append(self.picture(self.renderer.render(scene), f"{name}-{index}"))
        self.row(name, sample.task, split, files, sample.turns[0], video=sample.video)

    def row(self, name: str, task: str, split: str, files: list[str], turn: Turn, *, video: bool = False) -> None:
        accepted = list(turn.accepted)
        row = {"id": name, "task": task, "split": split, "images": files, "video": video, "question": turn.question}
        self.rows.append({**row, "answer": turn.answer, "accepted": accepted})

    def finish(self) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        (self.folder / "questions.jsonl").write_text(text, encoding="utf-8")


def write_eval_set(
    world: World, folder: Path, side: int, count: int, *, vqa: int, seed: int = 20, suffix: str = "png"
) -> int:
    """Writes the set.

    Args:
        world: What the pictures are made of.
        folder: Made if need be.
        side: Width and height of the pictures in pixels.
        count: Questions per task and split.
        vqa: Questions of easy-VQA's test, chosen by a hash; all 9,673 if there are fewer.
        seed: Of the scenes; the splits do not depend on it.
        suffix: `png` or `webp` (lossless both).

    Returns:
        The number of questions.
    """
    target = _Folder(folder, Renderer(world, side), suffix)
    for number_of_task, (task, splits) in enumerate(SPLITS.items()):
        maker = text_task if task == "text" else PICTURE_TASKS[task]
        for number_of_split, (split, own) in enumerate(splits.items()):
            for number in range(count):
                rng = np.random.default_rng([seed, number_of_task, number_of_split, number])
                target.add(maker(world, rng, own), split, number)
    rows = world.vqa_questions["test"]
    chosen = sorted(range(len(rows)), key=lambda row: fraction("easy-vqa", row))[:vqa]
    written: dict[int, str] = {}
    for row in sorted(chosen):
        image, question, answer = rows[row]
        if image not in written:
            written[image] = target.picture(world.vqa_images[image], f"easy-vqa-{image}")
        target.row(f"easy-vqa-test-{row:05d}", "easy-vqa", "test", [written[image]], Turn(question, answer))
    target.finish()
    return len(target.rows)


def write_photo_set(world: World, stamps: Path, folder: Path, seed: int = 21) -> int:
    """Writes naming questions about cut-out photographs, which the model never saw the like of: report only.

    Args:
        world: Whose concepts are asked for; a stamp counts if its English caption is the name of one.
        stamps: The package of Tux Paint's stamps.
        folder: Made if need be. Its pictures are under the GPL: not to be passed on with anything else.
        seed: Of the wording.

    Returns:
        The number of questions.
    """
    files = read_deb(stamps, lambda name: name.endswith((".png", ".txt")) and "cartoon" not in name)
    names = {concept.name.lower(): concept for concept in world.concepts}
    target = _Folder(folder, Renderer(world, 126), "png")
    for number, path in enumerate(sorted(name for name in files if name.endswith(".png"))):
        text = files.get(f"{path[:-4]}.txt", b"").decode("utf-8", "replace").split("\n")[0]
        concept = names.get(re.sub(r"^(an?|the|some)\s+", "", text.strip().lower().rstrip(".!")))
        if concept is None:
            continue
        stamp = Image.open(io.BytesIO(files[path])).convert("RGBA")
        square = Image.new("RGBA", (max(stamp.size) * 9 // 8,) * 2, "white")
        corner = ((square.width - stamp.width) // 2, (square.height - stamp.height) // 2)
        square.alpha_composite(stamp, corner)
        name = f"name-photograph-{number:04d}"
        file = target.picture(np.asarray(square.convert("RGB")), name)
        question = ask(np.random.default_rng([seed, number]), "name", test=True)
        accepted = tuple(world.synonyms.get(concept.name, ()))
        target.row(name, "name", "photograph", [file], Turn(question, sentence(concept.phrase), accepted))
    target.finish()
    return len(target.rows)


EXAMPLES = ("name", "name", "caption", "count", "colour", "position", "exists", "read", "changed", "video")


def write_examples(world: World, folder: Path, side: int, seed: int = 31) -> None:
    """Writes the ten examples of `vila-engine demo`: held-out questions of all kinds, chosen by the seed alone."""
    target = _Folder(folder, Renderer(world, side), "png")
    for number, task in enumerate(EXAMPLES):
        sample = PICTURE_TASKS[task](world, np.random.default_rng([seed, number]), SEEN)
        target.add(sample, "example", number)
    target.finish()
