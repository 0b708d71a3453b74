"""Questions and answers of training: each answer is worked out again here, from the description of the scene alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from test_train_world import make_world
from vila_engine.train import facts
from vila_engine.train.layout import TRAIN, Side
from vila_engine.train.scenes import COLOUR_NAMES, SHAPES, Item, Renderer, Scene
from vila_engine.train.splits import composition_is_held_out, word_is_held_out
from vila_engine.train.tasks import PICTURE_TASKS, Sample
from vila_engine.train.templates import templates_of
from vila_engine.train.texts import tell, text_task, told
from vila_engine.train.world import TEST_FONTS, World

TEST = Side(test_compositions=True, test_templates=True, test_words=True, fonts=TEST_FONTS, rough=0.0, more=0)
SEEDS = range(60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def called(item: Item) -> str:
    return f"{item.colour} {item.name}" if item.kind == "shape" else item.name


def mentioned(question: str, scene: Scene) -> list[Item]:
    """Items that a question names, in its order; the longest names are looked for first."""
    found = []
    rest = question.lower()
    for item in sorted(scene.items, key=lambda item: -len(called(item))):
        match = re.search(rf"\b{re.escape(called(item).lower())}\b", rest)
        if match:
            rest = rest[: match.start()] + "#" * len(match[0]) + rest[match.end() :]
            found.append((match.start(), item))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def cell(item: Item) -> str:
    row = "top" if item.y < 1 / 3 else "bottom" if item.y > 2 / 3 else ""
    column = "left" if item.x < 1 / 3 else "right" if item.x > 2 / 3 else ""
    return f"{row} {column}".strip() or "center"


def lies(one: Item, place: str, other: Item) -> bool:
    """Whether the main direction from `other` to `one` is `place`."""
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) > abs(dy):
        return place == ("to the left of" if dx < 0 else "to the right of")
    return place == ("above" if dy < 0 else "below")


def place_in(question: str) -> str:
    return next(place for place in facts.RELATIONS if place in question.lower())


def check(world: World, scene: Scene, turn: facts.Turn) -> None:
    """Works out the answer of a turn from the scene in another way and compares."""
    names = [called(item) for item in scene.items]
    question, answer = turn.question, turn.answer
    if turn.family == "name":
        assert len(names) == 1 and answer.lower().rstrip(".").endswith(names[0].lower())
    elif turn.family == "kind":
        kind = next(c.kind for c in world.concepts if c.name == names[0])
        assert answer == facts.KIND_NOUN[kind]
    elif turn.family == "count":
        many = {c.plural: c.name for c in world.concepts if c.countable}
        many |= {f"{c} {s}{'es' if s == 'cross' else 's'}": f"{c} {s}" for c in COLOUR_NAMES for s in SHAPES}
        asked = max((m for m in many if re.search(rf"\b{re.escape(m)}\b", question)), key=len)
        assert answer == str(names.count(many[asked])) and 0 <= int(answer) <= 9
    elif turn.family == "colour":
        shape = next(s for s in SHAPES if s in question)
        assert [item.colour for item in scene.items if item.name == shape] == [answer]
    elif turn.family == "shape":
        colour = next(c for c in COLOUR_NAMES if re.search(rf"\b{c}\b", question))
        assert [item.name for item in scene.items if item.colour == colour and item.kind == "shape"] == [answer]
    elif turn.family == "background":
        assert scene.background.kind == "flat" and answer == scene.background.colour
    elif turn.family == "where":
        assert [cell(item) for item in mentioned(question, scene)] == [answer]
    elif turn.family == "beside":
        (item,) = mentioned(question, scene)
        others = [other for other in scene.items if other is not item and lies(other, place_in(question), item)]
        assert called(min(others, key=lambda o: abs(o.x - item.x) + abs(o.y - item.y))) in answer
    elif turn.family == "relation":
        one, other = mentioned(question, scene)
        assert answer == ("yes" if lies(one, place_in(question), other) else "no")
    elif turn.family == "exists":
        assert answer == ("yes" if mentioned(question, scene) else "no")
    elif turn.family == "read":
        assert [item.name for item in scene.items] == [answer]
    elif turn.family == "caption":
        order = [answer.lower().find(name.lower()) for name in set(names)]
        assert min(order) >= 0 or "two three four five six seven eight nine".find(answer.split()[0].lower()) >= 0
        assert (scene.background.colour or "background") in answer
    else:
        raise AssertionError(f"no oracle for {turn.family}")


@pytest.mark.parametrize("side", [TRAIN, TEST], ids=["train", "test"])
@pytest.mark.parametrize("task", ["name", "caption", "count", "colour", "position", "exists", "read"])
def test_answers_follow_from_the_scene(world: World, task: str, side: Side) -> None:
    for seed in SEEDS:
        sample = PICTURE_TASKS[task](world, np.random.default_rng(seed), side)
        (scene,) = sample.scenes
        assert isinstance(scene, Scene)
        for turn in sample.turns:
            check(world, scene, turn)
        assert len(sample.turns) == 1 or side is TRAIN
        assert len({turn.question for turn in sample.turns}) == len(sample.turns)


def identity(item: Item) -> tuple[object, ...]:
    return item.kind, item.name, item.colour, item.x, item.y


def test_what_changed_is_what_differs(world: World) -> None:
    for seed in SEEDS:
        sample = PICTURE_TASKS["changed"](world, np.random.default_rng(seed), TRAIN)
        before, after = (scene for scene in sample.scenes if isinstance(scene, Scene))
        gone = [i for i in before.items if identity(i) not in map(identity, after.items)]
        new = [i for i in after.items if identity(i) not in map(identity, before.items)]
        answer = sample.turns[0].answer.lower()
        if not gone and not new:
            assert answer == "nothing changed.", seed
        elif not gone:
            assert answer.endswith(f"{called(new[0])} was added.".lower())
        elif not new:
            assert answer == f"the {called(gone[0])} was removed.".lower()
        elif called(gone[0]) == called(new[0]):
            assert answer == f"the {called(gone[0])} was moved.".lower()
        else:
            assert answer == f"the {gone[0].name} changed from {gone[0].colour} to {new[0].colour}."


def test_what_a_video_shows(world: World) -> None:
    for seed in SEEDS:
        sample = PICTURE_TASKS["video"](world, np.random.default_rng(seed), TRAIN)
        frames = [scene for scene in sample.scenes if isinstance(scene, Scene)]
        assert sample.video and len(frames) == 8
        (turn,) = sample.turns
        first = {item.name: item for item in frames[0].items}
        last = {item.name: item for item in frames[-1].items}
        if turn.family in ("direction", "moves"):
            (moved,) = [name for name in first if (first[name].x, first[name].y) != (last[name].x, last[name].y)]
            dx, dy = last[moved].x - first[moved].x, last[moved].y - first[moved].y
            way = ("left to right" if dx > 0 else "right to left") if abs(dx) > abs(dy) else (
                "top to bottom" if dy > 0 else "bottom to top")  # fmt: skip
            assert (
                turn.answer == f"From {way}."
                if turn.family == "direction"
                else moved in turn.answer.lower() + turn.answer
            )
            assert turn.family == "moves" or moved in turn.question or moved.capitalize() in turn.question
        elif turn.family == "order":
            assert re.fullmatch(rf"First (an? )?{min(first)}, then (an? )?{min(last)}\.", turn.answer)
        else:
            (changed,) = set(first) ^ set(last)
            assert (changed in last) == (turn.family == "appears")
            assert turn.answer.lower().rstrip(".").endswith(changed.lower())


@pytest.mark.parametrize("task", sorted(PICTURE_TASKS))
def test_samples_are_a_pure_function_of_the_seed(world: World, task: str) -> None:
    one, two = (PICTURE_TASKS[task](world, np.random.default_rng([3, 4]), TRAIN) for _ in range(2))
    assert one == two
    scenes = [scene for scene in one.scenes if isinstance(scene, Scene)]
    pictures = [[Renderer(world, 42).render(scene) for scene in scenes] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))


def parts_of(sample: Sample) -> list[tuple[object, ...]]:
    """The combinations that a sample states: count, colour with shape, place, relation, direction, invented word."""
    (turn, *_), scene = sample.turns, sample.scenes[0]
    assert isinstance(scene, Scene)
    if turn.family == "count":
        found = mentioned(turn.question.replace("es ", " ").replace("s ", " "), scene)
        return [(called(found[0]), int(turn.answer))] if found else []
    if turn.family in ("colour", "shape"):
        words = {turn.answer, *turn.question.rstrip("?.").split()}
        return [(item.colour, item.name) for item in scene.items if {item.colour, item.name} <= words]
    if turn.family == "where":
        return [(called(mentioned(turn.question, scene)[0]), turn.answer)]
    if turn.family == "in-context":
        return [("invented", turn.answer.removeprefix("A ").rstrip("."))]
    return []


@pytest.mark.parametrize("test", [False, True])
def test_compositions_words_and_templates_never_cross(world: World, test: bool) -> None:
    side = TEST if test else TRAIN
    n_parts = 0
    for task in ("count", "colour", "position", "in-context", "read"):
        for seed in range(60):
            sample = PICTURE_TASKS[task](world, np.random.default_rng([seed, 5]), side)
            for parts in parts_of(sample):
                n_parts += 1
                assert composition_is_held_out(*parts) == test, (sample.turns[0], parts)
            if task == "read":
                text = sample.turns[0].answer
                assert word_is_held_out(text) == test or (text.isdigit() and len(text) < 3)
                assert sample.turns[0].question in templates_of("read", test)
    assert n_parts > 100


def test_drawings_come_from_the_side_that_is_asked_for(world: World) -> None:
    for drawings in ("train", "unseen_drawing", "unseen_artist"):
        allowed = {d.row for c in world.concepts_with(drawings) for d in world.drawings_of(c, drawings)}
        for seed in range(30):
            sample = PICTURE_TASKS["name"](world, np.random.default_rng(seed), Side(drawings=drawings))
            assert {item.row for scene in sample.scenes if isinstance(scene, Scene) for item in scene.items} <= allowed


def test_a_told_scene_keeps_its_questions(world: World) -> None:
    sample = PICTURE_TASKS["position"](world, np.random.default_rng(1), TRAIN)
    words = told(world, sample)
    assert words is not None and not words.scenes and words.turns[0].question.endswith(sample.turns[0].question)
    scene = sample.scenes[0]
    assert isinstance(scene, Scene)
    assert all(called(item) in tell(world, scene) for item in scene.items)


def test_sums_are_right(world: World) -> None:
    seen = 0
    for seed in range(300):
        for turn in text_task(world, np.random.default_rng(seed), TRAIN).turns:
            numbers = [int(n) for n in re.findall(r"\d+", turn.question)]
            if turn.family == "sum":
                assert int(turn.answer) == sum(numbers)
                seen += 1
            elif turn.family == "difference":
                assert int(turn.answer) == max(numbers) - min(numbers)
    assert seen > 20


def test_patch_labels_say_what_is_there(world: World) -> None:
    renderer = Renderer(world, 126)
    item = Item("sprite", world.concepts[7].name, 0.5, 0.5, 0.6, row=world.drawings_of(7, "train")[0].row, concept=7)
    sample = PICTURE_TASKS["name"](world, np.random.default_rng(0), TRAIN)
    scene = sample.scenes[0]
    assert isinstance(scene, Scene)
    picture, what, _ = renderer.render_labelled(Scene(scene.background, (item,)))
    assert picture.shape == (126, 126, 3) and what.shape == (9, 9)
    assert what[4, 4] == 8 and what[0, 0] == 0 and set(np.unique(what)) == {0, 8}


def test_rendering_needs_the_fonts(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    (tmp_path / "fonts" / f"{TEST_FONTS[0]}.font").unlink()
    item = Item("text", "hello", 0.5, 0.5, 0.3, font=TEST_FONTS[0])
    sample = PICTURE_TASKS["name"](world, np.random.default_rng(0), TRAIN)
    scene = sample.scenes[0]
    assert isinstance(scene, Scene)
    with pytest.raises(OSError, match="cannot open"):
        Renderer(world, 126).render(Scene(scene.background, (item,)))
