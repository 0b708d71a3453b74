"""What can be asked about one picture: from the description of a scene to questions with their answers.

Every function returns a turn whose answer follows from the scene's description alone, or None if the scene does not
allow the question (nothing unique to ask about, or a combination that belongs to the other side of the split).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .concepts import KIND_NOUN, with_article
from .layout import Side
from .scenes import COLOUR_NAMES, SHAPES, Item, Rng, Scene
from .splits import composition_is_held_out
from .templates import ask
from .world import World

RELATIONS = ("to the left of", "to the right of", "above", "below")
PATTERNS = {
    "gradient": "a shaded", "stripes": "a striped", "checker": "a checkered", "spots": "a spotted", "noise": "a cloudy",
}  # fmt: skip
COLUMNS, ROWS = ("left", "", "right"), ("top", "", "bottom")


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and other answers that count as right."""

    question: str
    answer: str
    accepted: tuple[str, ...] = ()
    family: str = ""


Fact = Callable[[World, Rng, Scene, Side], "Turn | None"]


def noun(item: Item) -> str:
    """What an item is called: `fox` or `red circle`."""
    return f"{item.colour} {item.name}" if item.kind == "shape" else item.name


def phrase(world: World, item: Item) -> str:
    """The noun with its indefinite article where it takes one."""
    return with_article(noun(item)) if item.kind == "shape" else world.concepts[item.concept].phrase


def sentence(text: str) -> str:
    """Capitalises the first letter and adds the full stop."""
    return text[:1].upper() + text[1:] + "."


def in_split(side: Side, *parts: object) -> bool:
    """Whether a combination may be asked about on this side."""
    return composition_is_held_out(*parts) == side.test_compositions


def background_phrase(scene: Scene) -> str:
    """`a blue background` or `a striped background`."""
    background = scene.background
    kind = with_article(background.colour) if background.kind == "flat" else PATTERNS[background.kind]
    return f"{kind} background"


def place_of(item: Item) -> str | None:
    """The cell of a 3 x 3 grid that an item's centre lies in; None where that is not clear."""
    if item.size > 0.55 or any(min(abs(v - 1 / 3), abs(v - 2 / 3)) < 0.05 for v in (item.x, item.y)):
        return None
    row, column = ROWS[int(item.y * 3)], COLUMNS[int(item.x * 3)]
    return " ".join(part for part in (row, column) if part) or "center"


def relation(one: Item, other: Item, slack: float = 0.0) -> str | None:
    """How `one` lies to `other`, an entry of `RELATIONS`; None where neither axis clearly dominates.

    With `slack` the test is more lenient, to find things that somebody could also mean.
    """
    dx, dy = one.x - other.x, one.y - other.y
    wide, high = abs(dx), abs(dy)
    if max(wide, high) < 0.2 - slack:
        return None
    if wide >= (1.6 - 2 * slack) * high:
        return RELATIONS[0] if dx < 0 else RELATIONS[1]
    if high >= (1.6 - 2 * slack) * wide:
        return RELATIONS[2] if dy < 0 else RELATIONS[3]
    return None


def composition(one: Item, place: str, other: Item) -> tuple[str, str, str]:
    """The canonical name of a relation: `left` and `above` only, so that both ways to say it are one."""
    if place == RELATIONS[1]:
        return noun(other), RELATIONS[0], noun(one)
    if place == RELATIONS[3]:
        return noun(other), RELATIONS[2], noun(one)
    return noun(one), place, noun(other)


def things(scene: Scene) -> list[Item]:
    """The items that have a name: drawings and shapes."""
    return [item for item in scene.items if item.kind != "text"]


def unique(scene: Scene) -> list[Item]:
    """Things whose name occurs once in the scene."""
    counts = Counter(noun(item) for item in things(scene))
    return [item for item in things(scene) if counts[noun(item)] == 1]


def _one(rng: Rng, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def name(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """What a single drawing shows; keywords of the drawing count as right too."""
    if len(scene.items) != 1 or scene.items[0].kind != "sprite":
        return None
    item = scene.items[0]
    answer = sentence(phrase(world, item))
    return Turn(ask(rng, "name", side.test_templates), answer, tuple(world.synonyms.get(item.name, ())), "name")


def kind(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The kind of a single drawing."""
    if len(scene.items) != 1 or scene.items[0].kind != "sprite":
        return None
    answer = KIND_NOUN[world.concepts[scene.items[0].concept].kind]
    return Turn(ask(rng, "kind", side.test_templates), answer, (), "kind")


def caption_text(world: World, scene: Scene, side: Side | None = None) -> str | None:
    """One sentence about the scene, or None where it cannot be said in one way.

    One thing: what it is; two: how they lie; three or more in a line: their order; many alike: how many.
    """
    items = things(scene)
    where = background_phrase(scene)
    if not items or len(items) != len(scene.items):
        return None
    names = [noun(item) for item in items]
    if len(items) == 1:
        return sentence(f"{phrase(world, items[0])} on {where}")
    if len(set(names)) == 1 and items[0].kind == "sprite" and world.concepts[items[0].concept].countable:
        if side is not None and not in_split(side, names[0], len(items)):
            return None
        return sentence(f"{NUMBERS[len(items)]} {world.concepts[items[0].concept].plural} on {where}")
    if len(set(names)) < len(names):
        return None
    if len(items) == 2:
        place = relation(items[0], items[1])
        if place is None or (side is not None and not in_split(side, *composition(items[0], place, items[1]))):
            return None
        return sentence(f"{phrase(world, items[0])} {place} {phrase(world, items[1])} on {where}")
    return _line(world, items, where)


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _line(world: World, items: list[Item], where: str) -> str | None:
    """Three or more things in a line: `From left to right: a cat, a dog and a car on a blue background.`."""
    for axis, text in (("x", "from left to right"), ("y", "from top to bottom")):
        order = sorted(items, key=lambda item: float(getattr(item, axis)))
        along = [float(getattr(item, axis)) for item in order]
        across = [float(getattr(item, "y" if axis == "x" else "x")) for item in order]
        if min(b - a for a, b in pairwise(along)) > 0.15 and max(across) - min(across) < 0.15:
            phrases = [phrase(world, item) for item in order]
            return sentence(f"{text}: {', '.join(phrases[:-1])} and {phrases[-1]} on {where}")
    return None


def caption(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """A description in one sentence; of two things either may come first."""
    text = caption_text(world, scene, side)
    if text is None:
        return None
    turned = caption_text(world, replace(scene, items=scene.items[::-1])) if len(scene.items) == 2 else None
    accepted = (turned,) if turned not in (None, text) else ()
    return Turn(ask(rng, "caption", side.test_templates), text, accepted, "caption")


def count(world: World, rng: Rng, scene: Scene, side: Side, target: str = "") -> Turn | None:
    """How often a thing occurs; `target` names it, else any countable one of the scene."""
    counts = Counter(noun(item) for item in things(scene))
    shown = [world.concepts[item.concept] for item in scene.items if item.kind == "sprite"]
    plurals = {c.name: c.plural for c in shown if c.countable}
    plurals |= {c.name: c.plural for c in world.concepts if c.name == target and c.countable} if target else {}
    plurals |= {noun(i): f"{i.colour} {i.name}{'es' if i.name == 'cross' else 's'}" for i in things(scene) if i.colour}
    names = [target] if target else sorted(set(counts) & set(plurals))
    if not names:
        return None
    chosen = names[rng.integers(len(names))]
    number = counts[chosen]
    if chosen not in plurals or not in_split(side, chosen, number):
        return None
    return Turn(ask(rng, "count", side.test_templates, many=plurals[chosen]), str(number), (NUMBERS[number],), "count")


def colour(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The colour of a shape that occurs once."""
    shapes = Counter(item.name for item in scene.items if item.kind == "shape")
    alone = [i for i in scene.items if i.kind == "shape" and shapes[i.name] == 1 and in_split(side, i.colour, i.name)]
    if not alone:
        return None
    item = _one(rng, alone)
    question = ask(rng, "colour", side.test_templates, the=f"the {item.name}")
    return Turn(question, item.colour, ("grey",) if item.colour == "gray" else (), "colour")


def shape(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The shape of a colour that occurs once."""
    colours = Counter(item.colour for item in scene.items if item.kind == "shape")
    alone = [
        i for i in scene.items if i.kind == "shape" and colours[i.colour] == 1 and in_split(side, i.colour, i.name)
    ]
    if not alone:
        return None
    item = _one(rng, alone)
    return Turn(ask(rng, "shape", side.test_templates, colour=item.colour), item.name, (), "shape")


def background(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The colour of a flat background."""
    if scene.background.kind != "flat":
        return None
    answer = scene.background.colour
    return Turn(
        ask(rng, "background", side.test_templates), answer, ("grey",) if answer == "gray" else (), "background"
    )


def where(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The place of a thing that occurs once."""
    placed = [item for item in unique(scene) if place_of(item) and in_split(side, noun(item), place_of(item))]
    if not placed:
        return None
    item = _one(rng, placed)
    question = ask(rng, "where", side.test_templates, the=f"the {noun(item)}")
    return Turn(question, str(place_of(item)), (), "where")


def beside(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """What lies in a direction of a thing, where only one thing does."""
    found = []
    for item in unique(scene):
        others = [other for other in things(scene) if other is not item]
        for place in RELATIONS:
            loose = [other for other in others if relation(other, item, slack=0.3) == place]
            clear = len(loose) == 1 and relation(loose[0], item) == place
            if clear and in_split(side, *composition(loose[0], place, item)):
                found.append((item, place, loose[0]))
    if not found:
        return None
    item, place, other = found[rng.integers(len(found))]
    question = ask(rng, "beside", side.test_templates, place=place, the=f"the {noun(item)}")
    return Turn(question, phrase(world, other), (), "beside")


def related(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """Whether one thing lies so to another; half of the answers are no (the opposite direction is asked)."""
    items = unique(scene)
    pairs = [(a, p, b) for a in items for b in items if a is not b and (p := relation(a, b)) is not None]
    pairs = [(a, p, b) for a, p, b in pairs if in_split(side, *composition(a, p, b))]
    if not pairs:
        return None
    one, place, other = pairs[rng.integers(len(pairs))]
    truth = rng.random() < 0.5
    if not truth:
        place = RELATIONS[RELATIONS.index(place) ^ 1]
    words = {"the": f"the {noun(one)}", "place": place, "other": f"the {noun(other)}"}
    return Turn(ask(rng, "relation", side.test_templates, **words), "yes" if truth else "no", (), "relation")


def exists(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """Whether a thing is there: half yes, half no; two thirds of the absent ones are of a kind that is there."""
    items = things(scene)
    if not items:
        return None
    item = _one(rng, items)
    if rng.random() < 0.5:
        return Turn(ask(rng, "exists", side.test_templates, a=phrase(world, item)), "yes", (), "exists")
    present = {noun(other) for other in items}
    if item.kind == "shape":
        pairs = [(c, s) for c in COLOUR_NAMES for s in SHAPES if (c == item.colour) != (s == item.name)]
        absent = [with_article(f"{c} {s}") for c, s in pairs if f"{c} {s}" not in present]
    else:
        same = rng.random() < 2 / 3
        kind_here = world.concepts[item.concept].kind
        absent = [c.phrase for c in world.concepts if c.name not in present and (not same or c.kind == kind_here)]
    chosen = absent[rng.integers(len(absent))]
    return Turn(ask(rng, "exists", side.test_templates, a=chosen), "no", (), "exists")


def read(world: World, rng: Rng, scene: Scene, side: Side) -> Turn | None:
    """The text that is written in the picture."""
    texts = [item.name for item in scene.items if item.kind == "text"]
    if len(texts) != 1:
        return None
    return Turn(ask(rng, "read", side.test_templates), texts[0], (), "read")


FACTS: dict[str, Fact] = {
    "name": name, "kind": kind, "caption": caption, "count": count, "colour": colour, "shape": shape,
    "background": background, "where": where, "beside": beside, "relation": related, "exists": exists, "read": read,
}  # fmt: skip
