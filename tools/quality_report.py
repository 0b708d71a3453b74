#!/usr/bin/env python3
"""Measures the demo model in PyTorch and on the engine in four weight formats, and writes docs/QUALITY.md.

    python tools/quality_report.py --work quality              # all of it; goes on where it was after a kill
    python tools/quality_report.py --work quality --limit 20   # a trial: 20 questions of each task and split

Needs the extra vila_engine[train]. Below --work lie the fetched packages (data), the questions and, per state of model
and code, the converted models and every answer; a run of everything needs about 1 GB there. Photographs are 161 MB to
fetch and under the GPL; they stay there. Also renews tests/quality, which a test compares the bundled model with.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quality_page
import quality_subset
import vila_engine
from vila_engine._core import Error
from vila_engine.convert import convert
from vila_engine.evaluate import Item, evaluate, load_items
from vila_engine.evaluate.compare import Rows, read_run
from vila_engine.evaluate.greedy import GreedyComparison

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "vila_engine"
MASTER, BUNDLED = PACKAGE / "demo" / "master", PACKAGE / "demo" / "model"
REFERENCE = "fp32"
ENGINES = ("f32", "f16", "int8", "int4")
RUNS = (REFERENCE, *ENGINES)
PER_SPLIT, EASY_VQA = 250, 500
MAKERS = (
    "concepts",
    "evalset",
    "facts",
    "layout",
    "packages",
    "scenes",
    "splits",
    "tasks",
    "templates",
    "texts",
    "world",
)
ANSWERING = ("items", "metrics", "runner", "scorers")


@dataclass(frozen=True)
class Places:
    """Folders of one state of model, questions and code; what changes any of them changes the place.

    Attributes:
        data: The fetched packages.
        made: Drawings, questions and photographs.
        state: Models and runs.
        side: Width and height of the questions' pictures in pixels.
    """

    data: Path
    made: Path
    state: Path
    side: int

    @property
    def questions(self) -> Path:
        """The frozen set."""
        return self.made / f"questions-{self.side}px"

    @property
    def photographs(self) -> Path:
        """The set that is only reported; not there where it was not wanted."""
        return self.made / "photographs"

    def run(self, name: str, part: int) -> Path:
        """The results of a model on one part of the questions."""
        return self.state / "runs" / name / f"part-{part}"


def digest(files: Iterable[Path], *settings: object) -> str:
    """Twelve hexadecimal digits that change with any of the files or settings."""
    sums = hashlib.sha256(repr(settings).encode())
    for path in files:
        sums.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return sums.hexdigest()[:12]


def find_places(options: argparse.Namespace) -> Places:
    """The folders for these options and the model's size of pictures."""
    from vila_engine.train.published import read_config

    side = read_config(options.master).vision.image_size
    makers = digest((PACKAGE / "train" / f"{name}.py" for name in MAKERS), PER_SPLIT, EASY_VQA)
    model = sorted(path for path in options.master.rglob("*") if path.is_file())
    code = [PACKAGE / "evaluate" / f"{name}.py" for name in ANSWERING]
    code += [PACKAGE / "train" / f"{name}.py" for name in ("models", "reference", "tokenizer")]
    core = Path(vila_engine._core.__file__)
    state = digest([*model, *code, core], makers, options.limit, options.processes, options.photographs)
    return Places(options.work / "data", options.work / f"set-{makers}", options.work / f"state-{state}", side)


def make_questions(places: Places, photographs: bool) -> None:
    """Writes the sets that are not there yet; `questions.jsonl` comes last and marks a finished one."""
    from vila_engine.train.evalset import write_eval_set, write_photo_set
    from vila_engine.train.packages import STAMPS, fetch_package
    from vila_engine.train.world import build_world

    missing = not (places.questions / "questions.jsonl").exists()
    wanted = photographs and not (places.photographs / "questions.jsonl").exists()
    if missing or wanted:
        world = build_world(places.data, places.made / "world")
    if missing:
        print("writing the questions", file=sys.stderr)
        write_eval_set(world, places.questions, places.side, PER_SPLIT, vqa=EASY_VQA)
    if wanted:
        write_photo_set(world, fetch_package(STAMPS, places.data), places.photographs)


def read_items(places: Places, limit: int | None, photographs: bool) -> list[Item]:
    """All questions, the photographs last."""
    items = load_items(places.questions, limit=limit)
    return items + (load_items(places.photographs, limit=limit) if photographs else [])


def part_of(items: Sequence[Item], part: int, parts: int) -> list[Item]:
    """Every `parts`-th question; those about the same pictures stay together."""
    groups = itertools.groupby(items, key=lambda item: item.images or item.id)
    return [item for index, (_, group) in enumerate(groups) for item in group if index % parts == part]


def open_model(name: str, master: Path, places: Places) -> Any:
    """The PyTorch model, or the engine on one thread; f32 weights get a cache of f32 too."""
    if name == REFERENCE:
        from vila_engine.train.reference import TorchModel

        return TorchModel(master, threads=1)
    return vila_engine.load(places.state / "models" / name, threads=1, kv_cache="f32" if name == "f32" else "f16")


def work(master: Path, places: Places, items: list[Item], part: int) -> None:
    """Asks all models one part of the questions, the reference first."""
    for name in RUNS:
        reference = None if name == REFERENCE else places.run(REFERENCE, part)
        model = open_model(name, master, places)
        evaluate(model, items, places.run(name, part), quality=True, reference=reference)


def answered(places: Places, name: str, parts: int) -> int:
    """How many answers a run has so far."""
    files = [places.run(name, part) / "answers.jsonl" for part in range(parts)]
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in files if path.exists())


def run_all(master: Path, places: Places, items: list[Item], parts: int) -> None:
    """Runs one process for each part and shows on stderr how far they have come."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=work, args=(master, places, part_of(items, part, parts), part)) for part in range(parts)
    ]
    start, first = time.monotonic(), sum(answered(places, name, parts) for name in RUNS)
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) and not any(worker.exitcode for worker in workers):
            time.sleep(1)
            done = {name: answered(places, name, parts) for name in RUNS}
            total, goal = sum(done.values()), len(items) * len(RUNS)
            left = (time.monotonic() - start) * (goal - total) / max(1, total - first) / 60
            counts = " ".join(f"{name} {count}" for name, count in done.items())
            print(f"\r\x1b[K{counts} of {len(items)}, {left:.0f} min left", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("[quality] expected every part to finish, got a failure; see above")


def read_runs(places: Places, parts: int) -> dict[str, Rows]:
    """The answers of all models by question."""
    return {
        name: {key: row for part in range(parts) for key, row in read_run(places.run(name, part)).items()}
        for name in RUNS
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of packages, questions, models and answers")
    parser.add_argument("--master", type=Path, default=MASTER, help="published folder; the demo's if not given")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of QUALITY.md and its charts")
    parser.add_argument("--limit", type=int, help="at most so many questions of each task and split")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--no-photographs", dest="photographs", action="store_false", help="leave the photographs out")
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave tests/quality as it is")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    from vila_engine.train.reference import TorchModel

    options = parse(arguments)
    places = find_places(options)
    start = time.monotonic()
    make_questions(places, options.photographs)
    items = read_items(places, options.limit, options.photographs)
    for name in ENGINES:
        target = places.state / "models" / name
        if not target.exists():
            convert(options.master, target, weights=name, conv_mode="vicuna_v1_nosys")
    run_all(options.master, places, items, options.processes)
    runs = read_runs(places, options.processes)
    torch_model = TorchModel(options.master)
    differences = GreedyComparison(items, runs[REFERENCE], runs["f32"]).differences(torch_model.next_logits)
    weights = {name: places.state / "models" / name / "model.safetensors" for name in ENGINES}
    facts = quality_page.Facts(
        items=items,
        runs=runs,
        differences=differences,
        weight_bytes={name: path.stat().st_size for name, path in weights.items()},
        weights_digest=digest([weights["int4"]]),
        questions_digest=digest([places.questions / "questions.jsonl"]),
        is_bundled=weights["int4"].read_bytes() == (BUNDLED / "model.safetensors").read_bytes(),
        limit=options.limit,
    )
    quality_page.write(facts, options.output)
    if options.record and options.limit is None and facts.is_bundled:
        quality_subset.renew(places.questions, BUNDLED)
    print(f"{options.output / 'QUALITY.md'}: {len(items)} questions, {(time.monotonic() - start) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Error, OSError) as error:
        sys.exit(f"quality_report: {error}")
