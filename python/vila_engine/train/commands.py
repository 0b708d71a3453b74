"""The command `vila-engine train`; PyTorch is loaded only by the subcommands that need it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

STAGES = {
    "vision-small": "vision tower on small pictures, from random weights",
    "vision": "vision tower at the model's own size",
    "language": "language model on definitions, questions and answers, from random weights",
    "align": "stage 1: projector only, on captions",
    "pretrain": "stage 2: projector and language model, on interleaved pictures and text",
    "sft": "stage 3: everything, on conversations",
}


def add_commands(commands: Any) -> None:
    """Adds `train` to the subcommands; `commands` is what `ArgumentParser.add_subparsers` returned."""
    text = "train a small model of the VILA architecture, or go on with a published one"
    parser: argparse.ArgumentParser = commands.add_parser("train", help=text, description=text)
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def step(name: str, help: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = steps.add_parser(name, help=help, description=help)
        added.add_argument("run_folder", metavar="RUN", type=Path, help="folder of the run; settings: its plan.json")
        added.set_defaults(run=_STEPS.get(name, _stage), step=name)
        return added

    everything = step("all", "every stage that is not done, then the export to RUN/model")
    everything.add_argument("--gpu", action="store_true", help="start with the plan for a GPU, not that for two cores")
    for name, help in STAGES.items():
        step(name, help)
    step("data", "fetch the data packages and build the drawings, without training")
    export = step("export", "write the model as far as the run has come in the published layout")
    export.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    export.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp16", help="of the weights")
    questions = step("eval-set", "write the held-out questions of the evaluation")
    questions.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    questions.add_argument("--count", type=int, default=500, help="questions of each task and split")
    questions.add_argument("--vqa", type=int, default=9673, help="questions of easy-VQA's official test")
    questions.add_argument("--format", choices=("png", "webp"), default="png", help="of the pictures")
    photos = step("photo-set", "write naming questions about cut-out photographs (GPL, 161 MB to fetch; report only)")
    photos.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    examples = step("examples", "write the ten examples of the demo")
    examples.add_argument("-o", "--output", type=Path, required=True, help="the new folder")


def _stage(args: argparse.Namespace) -> int:
    from .stages import run_stage

    run_stage(args.step, args.run_folder)
    return 0


def _all(args: argparse.Namespace) -> int:
    from .config import gpu_plan, write_plan
    from .stages import run_plan

    if args.gpu:
        write_plan(args.run_folder, gpu_plan())
    run_plan(args.run_folder)
    return 0


def _data(args: argparse.Namespace) -> int:
    from .config import load_plan
    from .stages import prepare

    print(prepare(args.run_folder, load_plan(args.run_folder)))
    return 0


def _export(args: argparse.Namespace) -> int:
    from .stages import export_run

    export_run(args.run_folder, args.output, args.precision)
    print(f"{args.output}: convert it with --conv-mode vicuna_v1_nosys")
    return 0


def _eval_set(args: argparse.Namespace) -> int:
    from .config import load_plan
    from .evalset import write_eval_set
    from .stages import prepare

    plan = load_plan(args.run_folder)
    world, side = prepare(args.run_folder, plan), plan.model.vision.image_size
    count = write_eval_set(world, args.output, side, args.count, vqa=args.vqa, suffix=args.format)
    print(f"{args.output}: {count} questions")
    return 0


def _photo_set(args: argparse.Namespace) -> int:
    from .config import load_plan
    from .evalset import write_photo_set
    from .packages import STAMPS, fetch_package
    from .stages import prepare

    world = prepare(args.run_folder, load_plan(args.run_folder))
    count = write_photo_set(world, fetch_package(STAMPS, args.run_folder / "data"), args.output)
    print(f"{args.output}: {count} questions")
    return 0


def _examples(args: argparse.Namespace) -> int:
    from .config import load_plan
    from .evalset import write_examples
    from .stages import prepare

    plan = load_plan(args.run_folder)
    write_examples(prepare(args.run_folder, plan), args.output, plan.model.vision.image_size)
    return 0


_STEPS = {"all": _all, "data": _data, "export": _export, "eval-set": _eval_set, "photo-set": _photo_set,
          "examples": _examples}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Runs `python -m vila_engine.train STEP RUN`."""
    parser = argparse.ArgumentParser(prog="python -m vila_engine")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["train", *(sys.argv[1:] if argv is None else argv)])
    return int(args.run(args))
