"""The part of the frozen questions that is in the repository, tests/quality, and the bundled model's figures on it.

Its pictures are those of the frozen set, pixel by pixel, as lossless WebP. To stay below 2 MB it takes the smallest
pictures of each task and split, one of each answer before a second of any: plain backgrounds without noise, so it is
no fair sample, and its figures only say whether the model still is what it was. Drawings of the unseen artist are left
out: every drawing is one of the training's, whose licences third_party/licenses/demo-data.txt names.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vila_engine
from PIL import Image
from vila_engine.evaluate import Item, load_items
from vila_engine.evaluate.runner import OneByOne, Reply
from vila_engine.evaluate.scorers import scorer_of

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "quality"
COUNT = 20
LEFT_OUT = ("unseen_artist",)


def choose(items: Sequence[Item], count: int) -> list[Item]:
    """The questions of the subset: of each task and split the smallest files, one of each answer first."""
    groups: dict[tuple[str, str], list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        if item.split not in LEFT_OUT:
            groups[item.task, item.split].append((sum(path.stat().st_size for path in item.images), item))
    chosen: set[str] = set()
    for group in groups.values():
        answers: Counter[str] = Counter()
        ranked = []
        for size, item in sorted(group, key=lambda pair: (pair[0], pair[1].id)):
            ranked.append((answers[item.answer], size, item.id))
            answers[item.answer] += 1
        chosen |= {name for _, _, name in sorted(ranked)[:count]}
    return [item for item in items if item.id in chosen]


def write(questions: Path, folder: Path, count: int = COUNT) -> list[Item]:
    """Writes the subset in place of what is in the folder.

    Args:
        questions: The frozen set.
        folder: Where `questions.jsonl` and the pictures go.
        count: Questions of each task and split.

    Returns:
        The questions as they lie in the folder.
    """
    rows = {row["id"]: row for row in map(json.loads, (questions / "questions.jsonl").read_text("utf-8").splitlines())}
    chosen = choose(load_items(questions), count)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for path in {path for item in chosen for path in item.images}:
        with Image.open(path) as picture:
            picture.convert("RGB").save(folder / f"{path.stem}.webp", lossless=True, quality=100, method=6)
    for item in chosen:
        rows[item.id]["images"] = [f"{path.stem}.webp" for path in item.images]
    text = "".join(json.dumps(rows[item.id], ensure_ascii=False) + "\n" for item in chosen)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    return load_items(folder)


def replies_of(model: Path, items: Sequence[Item], kv_cache: Any = "f16") -> dict[str, Reply]:
    """Greedy replies of a converted model by question; on one thread, since the model is small."""
    with vila_engine.load(model, threads=1, kv_cache=kv_cache) as engine:
        return {item.id: reply for item, reply in zip(items, OneByOne(engine).replies(items, False), strict=True)}


def count_right(items: Sequence[Item], replies: dict[str, Reply]) -> int:
    """How many replies are right."""
    return sum(scorer_of(item.task).score(item, replies[item.id].text) >= 1 for item in items)


def renew(questions: Path, model: Path, folder: Path = FOLDER) -> None:
    """Writes the subset and, as `recorded.json`, what a test holds the bundled model to.

    Args:
        questions: The frozen set.
        model: The bundled model.
        folder: Where they go.
    """
    items = write(questions, folder)
    recorded = {"questions": len(items), "right": count_right(items, replies_of(model, items))}
    (folder / "recorded.json").write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.webp"))
    print(f"{folder}: {recorded['right']} of {recorded['questions']} right, {n_bytes / 1e6:.2f} MB of pictures")
