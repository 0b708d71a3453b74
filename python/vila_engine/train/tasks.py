"""The tasks T1 to T9 and the in-context one: pictures, as descriptions, with questions and answers about them.

A sample is a pure function of the world, a random generator and the sides of the splits. The first turn is the task's
own question; further turns ask other things about the same pictures, so that each encoded picture teaches more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .facts import FACTS, Turn, count, in_split, noun, phrase, sentence
from .layout import (
    Side,
    finish,
    grid_cells,
    pick,
    pick_distinct,
    random_shape,
    random_string,
    scatter,
    text_item,
)
from .scenes import Background, Item, Rng, Scene, contrasts, random_background, random_sprite
from .templates import ask
from .world import World

N_FRAMES = 8
SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "po", "ra", "su", "te", "vo", "wi", "zu")


@dataclass(frozen=True)
class Sample:
    """A conversation about pictures.

    Attributes:
        task: Name of the task.
        scenes: The pictures, in the order of their marks; an int is a row of `World.vqa_images`.
        turns: Questions with answers. Without `<image>` marks in the first question the pictures come before it.
        video: Whether the pictures are the frames of one video.
    """

    task: str
    scenes: tuple[Scene | int, ...]
    turns: tuple[Turn, ...]
    video: bool = False


Maker = Callable[[World, Rng, Side], Sample]


def _until(
    world: World, rng: Rng, side: Side, task: str, family: str, *, scene: Callable[[], Scene], more: int = -1
) -> Sample:
    """Draws scenes until the family has a question about one, and adds up to `more` turns of other families."""
    for _ in range(1000):
        made = scene()
        turn = FACTS[family](world, rng, made, side)
        if turn is not None:
            return Sample(
                task,
                (made,),
                (turn, *_extra(world, rng, made, side, turn, more=_more(rng, side) if more < 0 else more)),
            )
    raise RuntimeError(f"[tasks] {task}: expected a scene with a question, got none in 1000")


def _extra(world: World, rng: Rng, scene: Scene, side: Side, first: Turn, *, more: int) -> list[Turn]:
    turns: list[Turn] = []
    seen = {first.question}
    for family in rng.permutation(sorted(FACTS)).tolist():
        if len(turns) == more:
            break
        turn = FACTS[family](world, rng, scene, side) if family != first.family else None
        if turn is not None and turn.question not in seen:
            turns.append(turn)
            seen.add(turn.question)
    return turns


def _more(rng: Rng, side: Side) -> int:
    """Number of further turns."""
    return int(rng.integers(0, side.more + 1)) if side.more else 0


def single_scene(world: World, rng: Rng, side: Side) -> Scene:
    """One drawing, large or small, anywhere."""
    concept = pick(rng, world.concepts_with(side.drawings))
    size = float(rng.uniform(0.3, 0.98))
    x, y = (float(v) for v in rng.uniform(size / 2, 1 - size / 2, 2))
    return finish(rng, random_background(rng), [random_sprite(world, rng, concept, (x, y, size), side.drawings)], side)


def several_scene(world: World, rng: Rng, side: Side, low: int = 2, high: int = 4) -> Scene:
    """Different drawings, on a grid or scattered, now and then with shapes among them."""
    count = int(rng.integers(low, high + 1))
    background = random_background(rng)
    places = grid_cells(rng, count) if rng.random() < 0.6 else scatter(rng, count, 0.25, 0.45)
    concepts = pick_distinct(rng, world.concepts_with(side.drawings), count)
    items = []
    for concept, (x, y, size) in zip(concepts, places, strict=True):
        if rng.random() < 0.1:
            items.append(random_shape(rng, x, y, size, background.colour))
        else:
            items.append(random_sprite(world, rng, concept, (x, y, size), side.drawings))
    return finish(rng, background, items, side)


def pair_scene(world: World, rng: Rng, side: Side) -> Scene:
    """Two things that clearly lie in one of the four relations."""
    background = random_background(rng)
    gap, drift = float(rng.uniform(0.4, 0.54)), float(rng.uniform(-0.15, 0.15))
    near = float(rng.uniform(0.22, 0.78 - gap))
    ends = [(near, 0.5 + drift), (near + gap, 0.5 - drift * float(rng.random()))]
    if rng.random() < 0.5:
        ends = [(y, x) for x, y in ends]
    concepts = pick_distinct(rng, world.concepts_with(side.drawings), 2)
    size = float(rng.uniform(0.26, min(0.42, gap)))
    items = [
        random_sprite(world, rng, c, (x, y, size), side.drawings) for c, (x, y) in zip(concepts, ends, strict=True)
    ]
    return finish(rng, background, [items[i] for i in rng.permutation(2)], side)


def row_scene(world: World, rng: Rng, side: Side) -> Scene:
    """Three things in a row or a column."""
    background = random_background(rng)
    across = float(rng.uniform(0.25, 0.75))
    ends = [((i + 0.5) / 3, across + float(rng.uniform(-0.05, 0.05))) for i in range(3)]
    if rng.random() < 0.5:
        ends = [(y, x) for x, y in ends]
    concepts = pick_distinct(rng, world.concepts_with(side.drawings), 3)
    items = [
        random_sprite(world, rng, c, (x, y, float(rng.uniform(0.24, 0.31))), side.drawings)
        for c, (x, y) in zip(concepts, ends, strict=True)
    ]
    return finish(rng, background, items, side)


def many_scene(world: World, rng: Rng, side: Side, concept: int, number: int, *, others: int) -> Scene:
    """`number` drawings of one concept among `others` of further concepts."""
    total = number + others
    background = random_background(rng)
    places = grid_cells(rng, total) if total > 5 or rng.random() < 0.6 else scatter(rng, total, 0.22, 0.36)
    pool = [c for c in world.concepts_with(side.drawings) if c != concept]
    concepts = [concept] * number + [pick(rng, pool) for _ in range(others)]
    items = [
        random_sprite(world, rng, c, (x, y, s), side.drawings) for c, (x, y, s) in zip(concepts, places, strict=True)
    ]
    return finish(rng, background, [items[i] for i in rng.permutation(total)], side)


def shapes_scene(world: World, rng: Rng, side: Side) -> Scene:
    """One to four coloured shapes on a plain or patterned background."""
    background = random_background(rng, 0.7)
    places = scatter(rng, int(rng.integers(1, 5)), 0.22, 0.5)
    return finish(rng, background, [random_shape(rng, x, y, size, background.colour) for x, y, size in places], side)


def name_task(world: World, rng: Rng, side: Side) -> Sample:
    """T1: what a single drawing shows."""
    return _until(world, rng, side, "name", "name", scene=lambda: single_scene(world, rng, side))


def caption_task(world: World, rng: Rng, side: Side) -> Sample:
    """T2: a sentence about a scene."""

    def scene() -> Scene:
        kind = rng.random()
        if kind < 0.25:
            return single_scene(world, rng, side)
        if kind < 0.7:
            return pair_scene(world, rng, side)
        if kind < 0.85:
            return row_scene(world, rng, side)
        if kind < 0.95:
            countable = [c for c in world.concepts_with(side.drawings) if world.concepts[c].countable]
            return many_scene(world, rng, side, pick(rng, countable), int(rng.integers(2, 10)), others=0)
        return shapes_scene(world, rng, side)

    return _until(world, rng, side, "caption", "caption", scene=scene)


def count_task(world: World, rng: Rng, side: Side) -> Sample:
    """T3: how many of a thing there are, 0 to 9 among up to 9."""
    countable = [c for c in world.concepts_with(side.drawings) if world.concepts[c].countable]
    while True:
        number = int(rng.integers(0, 10))
        if rng.random() < 0.15 and number < 6:
            shape_count = _count_shapes(world, rng, side, number)
            if shape_count is not None:
                return shape_count
            continue
        concept = pick(rng, countable)
        others = int(rng.integers(1 if number == 0 else 0, max(2, 10 - number))) if number < 9 else 0
        scene = many_scene(world, rng, side, concept, number, others=others)
        turn = count(world, rng, scene, side, world.concepts[concept].name)
        if turn is not None:
            return Sample("count", (scene,), (turn, *_extra(world, rng, scene, side, turn, more=_more(rng, side))))


def _count_shapes(world: World, rng: Rng, side: Side, number: int) -> Sample | None:
    """The same with shapes of one colour and kind."""
    if number == 0:
        return None
    background = random_background(rng, 0.7)
    first = random_shape(rng, 0.5, 0.5, 0.3, background.colour)
    items = []
    for index, (x, y, size) in enumerate(grid_cells(rng, number + int(rng.integers(0, 4)))):
        other = random_shape(rng, x, y, size, background.colour)
        while index >= number and noun(other) == noun(first):
            other = random_shape(rng, x, y, size, background.colour)
        items.append(replace(first, x=x, y=y, size=size) if index < number else other)
    scene = finish(rng, background, items, side)
    turn = count(world, rng, scene, side, noun(first))
    return None if turn is None else Sample("count", (scene,), (turn,))


def colour_task(world: World, rng: Rng, side: Side) -> Sample:
    """T4: the colour of a shape, the shape of a colour, the colour of the background."""
    family = ("colour", "shape", "background")[rng.choice(3, p=(0.4, 0.4, 0.2))]
    if family == "background" and side.test_compositions:
        family = "colour"
    return _until(world, rng, side, "colour", family, scene=lambda: shapes_scene(world, rng, side))


def position_task(world: World, rng: Rng, side: Side) -> Sample:
    """T5: what lies beside a thing, where a thing is, whether it lies so."""
    family = ("beside", "where", "relation")[rng.choice(3, p=(0.4, 0.4, 0.2))]

    def scene() -> Scene:
        return several_scene(world, rng, side) if rng.random() < 0.6 else pair_scene(world, rng, side)

    return _until(world, rng, side, "position", family, scene=scene)


def exists_task(world: World, rng: Rng, side: Side) -> Sample:
    """T6: whether a thing is there."""
    return _until(world, rng, side, "exists", "exists", scene=lambda: several_scene(world, rng, side, 1, 5))


def changed_task(world: World, rng: Rng, side: Side) -> Sample:
    """T7: two pictures, one change or none."""
    while True:
        scene = shapes_scene(world, rng, side) if rng.random() < 0.25 else several_scene(world, rng, side, 1, 4)
        items = list(scene.items)
        if len({noun(item) for item in items}) < len(items):
            continue
        change = ("added", "removed", "moved", "recoloured", "nothing")[rng.integers(5)]
        index = int(rng.integers(len(items)))
        item = items[index]
        after, answer = items, "Nothing changed."
        if change == "added":
            scene, after = replace(scene, items=tuple(items[:index] + items[index + 1 :])), items
            answer = sentence(f"{phrase(world, item)} was added")
        elif change == "removed":
            after = items[:index] + items[index + 1 :]
            answer = sentence(f"the {noun(item)} was removed")
        elif change == "moved":
            moved = _moved(rng, items, index)
            if moved is None:
                continue
            after = [*items[:index], moved, *items[index + 1 :]]
            answer = sentence(f"the {noun(item)} was moved")
        elif change == "recoloured":
            if item.kind != "shape":
                continue
            new = random_shape(rng, item.x, item.y, item.size, scene.background.colour, shape=item.name)
            if not contrasts(new.colour, item.colour) or noun(new) in {noun(i) for i in items}:
                continue
            after = [*items[:index], new, *items[index + 1 :]]
            answer = sentence(f"the {item.name} changed from {item.colour} to {new.colour}")
        second = replace(scene, items=tuple(after), seed=int(rng.integers(1 << 31)))
        turn = Turn(ask(rng, "changed", side.test_templates), answer, (), "changed")
        return Sample("changed", (scene, second), (turn,))


def _moved(rng: Rng, items: list[Item], index: int) -> Item | None:
    """The item at another, free place; None if twenty tries found none."""
    item = items[index]
    for _ in range(20):
        x, y = (float(v) for v in rng.uniform(item.size / 2, 1 - item.size / 2, 2))
        far = max(abs(x - item.x), abs(y - item.y)) > 0.25
        others = items[:index] + items[index + 1 :]
        if far and all(max(abs(x - o.x), abs(y - o.y)) > 0.48 * (item.size + o.size) for o in others):
            return replace(item, x=x, y=y)
    return None


DIRECTIONS = {
    (1, 0): "from left to right", (-1, 0): "from right to left",
    (0, 1): "from top to bottom", (0, -1): "from bottom to top",
}  # fmt: skip


def video_task(world: World, rng: Rng, side: Side) -> Sample:
    """T8: eight frames; something moves, appears, disappears, or things come one after the other."""
    family = ("direction", "moves", "appears", "disappears", "order")[rng.choice(5, p=(0.35, 0.2, 0.15, 0.15, 0.15))]
    concepts = pick_distinct(rng, world.concepts_with(side.drawings), 3)
    background = random_background(rng)
    if family in ("direction", "moves"):
        return _moving(world, rng, side, family, concepts, background=background)
    if family == "order":
        first, last = (
            random_sprite(world, rng, c, (0.5, 0.5, float(rng.uniform(0.4, 0.8))), side.drawings) for c in concepts[:2]
        )
        change = int(rng.integers(2, 7))
        frames = [[first] if i < change else [last] for i in range(N_FRAMES)]
        answer = sentence(f"first {phrase(world, first)}, then {phrase(world, last)}")
    else:
        places = grid_cells(rng, int(rng.integers(1, 4)), 2)
        items = [
            random_sprite(world, rng, c, (x, y, s), side.drawings)
            for c, (x, y, s) in zip(concepts, places, strict=False)
        ]
        change = int(rng.integers(2, 7))
        shown = [(i >= change) == (family == "appears") for i in range(N_FRAMES)]
        frames = [items if here else items[1:] for here in shown]
        answer = sentence(phrase(world, items[0]))
    question = ask(rng, family, side.test_templates)
    return _video(rng, side, background, frames, Turn(question, answer, (), family))


def _moving(world: World, rng: Rng, side: Side, family: str, concepts: list[int], *, background: Background) -> Sample:
    """One thing crosses the picture; others may stand by."""
    while True:
        step = list(DIRECTIONS)[rng.integers(4)]
        mover = random_sprite(
            world, rng, concepts[0], (0.5, 0.5, float(rng.uniform(0.25, 0.4))), side.drawings, tilt=0.0
        )
        if in_split(side, mover.name, DIRECTIONS[step]):
            break
        concepts = [pick(rng, world.concepts_with(side.drawings)), *concepts[1:]]
    lane = float(rng.uniform(0.2, 0.8))
    reach = float(rng.uniform(0.25, 0.38))
    still: list[Item] = []
    for concept in concepts[1 : 1 + (int(rng.integers(1, 3)) if family == "moves" else int(rng.integers(0, 2)))]:
        away = (lane + 0.5) % 1.0 if not still else lane
        if not still or family != "moves":
            place = float(rng.uniform(0.2, 0.8)), float(np.clip(away, 0.18, 0.82))
            x, y = place if step[0] else place[::-1]
            still.append(random_sprite(world, rng, concept, (x, y, 0.28), side.drawings, tilt=0.0))
    frames = []
    for index in range(N_FRAMES):
        along = (2 * index / (N_FRAMES - 1) - 1) * reach
        x, y = (0.5 + along * step[0], lane) if step[0] else (lane, 0.5 + along * step[1])
        frames.append([*still, replace(mover, x=x, y=y)])
    if family == "moves":
        turn = Turn(ask(rng, "moves", side.test_templates), sentence(phrase(world, mover)), (), family)
    else:
        question = ask(rng, "direction", side.test_templates, the=f"the {mover.name}")
        turn = Turn(question, sentence(DIRECTIONS[step]), (), family)
    return _video(rng, side, background, frames, turn)


def _video(rng: Rng, side: Side, background: Background, frames: list[list[Item]], turn: Turn) -> Sample:
    """All frames share one seed, so that blur or noise do not flicker."""
    seed = int(rng.integers(1 << 31))
    scenes = tuple(Scene(background, tuple(items), seed, side.rough) for items in frames)
    return Sample("video", scenes, (turn,), video=True)


def read_task(world: World, rng: Rng, side: Side) -> Sample:
    """T9: a word or a number."""

    def scene() -> Scene:
        background = random_background(rng)
        text = random_string(rng, world, side)
        return finish(rng, background, [text_item(rng, text, background, side.fonts)], side)

    return _until(world, rng, side, "read", "read", scene=scene, more=0)


def easy_vqa_task(world: World, rng: Rng, side: Side) -> Sample:
    """T10: up to four questions about one training picture of easy-VQA."""
    groups = world.vqa_by_image
    image = groups[rng.integers(len(groups))]
    rows = [world.vqa_questions["train"][i] for i in rng.permutation(image)[:4]]
    turns = tuple(Turn(question, answer, (), "easy-vqa") for _, question, answer in rows)
    return Sample("easy-vqa", (rows[0][0],), turns)


def in_context_task(world: World, rng: Rng, side: Side) -> Sample:
    """Three pictures, two of them named with invented words; the third is to be named by example."""
    concepts = pick_distinct(rng, world.concepts_with(side.drawings), 2)
    words: list[str] = []
    while len(words) < 2:
        word = "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=2))
        if word not in words and in_split(side, "invented", word):
            words.append(word)
    chosen = int(rng.integers(2))

    def picture(concept: int) -> Scene:
        size = float(rng.uniform(0.6, 0.98))
        item = random_sprite(world, rng, concept, (0.5, 0.5, size), side.drawings)
        return finish(rng, random_background(rng), [item], side)

    scenes = tuple(picture(concept) for concept in (*concepts, concepts[chosen]))
    question = f"<image> This is a {words[0]}. <image> This is a {words[1]}. <image> What is this?"
    return Sample("in-context", scenes, (Turn(question, f"A {words[chosen]}.", (), "in-context"),))


PICTURE_TASKS: dict[str, Maker] = {
    "name": name_task, "caption": caption_task, "count": count_task, "colour": colour_task, "position": position_task,
    "exists": exists_task, "changed": changed_task, "video": video_task, "read": read_task, "easy-vqa": easy_vqa_task,
    "in-context": in_context_task,
}  # fmt: skip
