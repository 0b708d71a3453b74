"""The stages of a run in order: `run_plan` runs what is missing, `run_stage` runs one.

A run is a folder: `plan.json`, `data/` (packages), `world/` (cache), `tokenizer.model`, one folder per stage with
`checkpoint.pt` or `final.pt`, and at the end `model/` in the published layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .config import Plan, StageConfig, load_plan
from .language import LanguageTask
from .loop import averaged, pick_device, train
from .models import Llama, Vila, initialise
from .multimodal import StageTask, freeze
from .published import export_folder, import_folder
from .scenes import Renderer
from .tokenizer import Tokenizer, train_tokenizer
from .vision import VisionLearner, VisionTask
from .world import World, build_world

BEFORE = {"align": (), "pretrain": ("align",), "sft": ("pretrain", "align")}


def prepare(run: Path, plan: Plan) -> World:
    """Fetches the data packages into `run/data` and builds the cache in `run/world`, unless that is done."""
    return build_world(run / "data", run / "world", plan.concepts)


def get_tokenizer(run: Path, plan: Plan, world: World) -> Tokenizer:
    """The tokenizer of a run: that of the checkpoint to start from, else the run's own, trained on first use."""
    if plan.start:
        return Tokenizer.load(Path(plan.start) / "llm" / "tokenizer.model")
    path = run / "tokenizer.model"
    if not path.exists():
        trained = train_tokenizer(world, plan.model.llm.vocab_size, plan.seed)
        temporary = path.with_suffix(".part")
        temporary.write_bytes(trained.model)
        temporary.replace(path)
    return Tokenizer.load(path)


def make_vision_learner(plan: Plan, world: World) -> VisionLearner:
    """The model of the vision stages with random weights."""
    labels = Renderer(world, plan.model.vision.image_size, plan.model.vision.patch_size).n_labels
    names = [concept.name for concept in world.concepts]
    return VisionLearner(plan.model.vision, labels, names, plan.model.select_layer)


def _vision(run: Path, plan: Plan, world: World, config: StageConfig) -> None:
    torch.manual_seed(plan.seed)
    model = make_vision_learner(plan, world)
    small = run / "vision-small" / "final.pt"
    if config.name == "vision" and small.exists():
        model.load_state_dict(torch.load(small, weights_only=True))
    task = VisionTask(world, plan.model.vision, plan.seed, config.batch, pixels=config.image_size)
    train(model.to(pick_device(plan.device)), task, config, plan, run / config.name)


def _language(run: Path, plan: Plan, world: World, config: StageConfig) -> None:
    torch.manual_seed(plan.seed + 1)
    model = Llama(plan.model.llm)
    initialise(model)
    task = LanguageTask(world, get_tokenizer(run, plan, world), plan.seed, config.batch)
    train(model.to(pick_device(plan.device)), task, config, plan, run / config.name)


def stage_state(run: Path, stage: str) -> dict[str, Tensor] | None:
    """The averaged weights that a stage ended with or, while it runs, has reached; None before it began."""
    final, checkpoint = run / stage / "final.pt", run / stage / "checkpoint.pt"
    if final.exists():
        state: dict[str, Tensor] = torch.load(final, weights_only=True, map_location="cpu")
        return state
    return averaged(checkpoint) if checkpoint.exists() else None


def assemble(run: Path, plan: Plan) -> Vila:
    """The model that the first multimodal stage starts from: tower and LLM as trained so far, a random projector."""
    if plan.start:
        return import_folder(Path(plan.start))[0]
    torch.manual_seed(plan.seed + 2)
    model = Vila(plan.model)
    vision = stage_state(run, "vision") or stage_state(run, "vision-small")
    if vision:
        tower = {name.removeprefix("tower."): tensor for name, tensor in vision.items() if name.startswith("tower.")}
        model.vision_tower.load_state_dict(tower)
    language = stage_state(run, "language")
    if language:
        model.llm.load_state_dict(language)
    return model


def _multimodal(run: Path, plan: Plan, world: World, config: StageConfig) -> None:
    model = assemble(run, plan)
    for before in BEFORE[config.name]:
        state = stage_state(run, before)
        if state is not None:
            model.load_state_dict(state)
            break
    freeze(model, config.name, config.lr_scale)
    tokenizer = get_tokenizer(run, plan, world)
    task = StageTask(config, world, tokenizer, model.config, seed=plan.seed)
    if plan.compile:
        for part in (model.vision_tower, model.mm_projector, model.llm):
            part.compile(dynamic=False)
    train(model.to(pick_device(plan.device)), task, config, plan, run / config.name)


RUNNERS: dict[str, Callable[[Path, Plan, World, StageConfig], None]] = {
    "vision-small": _vision, "vision": _vision, "language": _language,
    "align": _multimodal, "pretrain": _multimodal, "sft": _multimodal,
}  # fmt: skip


def run_stage(stage: str, run: Path, plan: Plan | None = None) -> None:
    """Runs one stage of a run, or goes on with it; a stage that is done returns at once.

    Args:
        stage: `vision-small`, `vision`, `language`, `align`, `pretrain` or `sft`.
        run: The run's folder; earlier stages must be done.
        plan: The settings; those of `run/plan.json` if left out.
    """
    plan = plan or load_plan(run)
    config = plan.stage(stage)
    if (run / stage / "final.pt").exists():
        return
    torch.set_num_threads(plan.threads)
    RUNNERS[stage](run, plan, prepare(run, plan), config)


def current_model(run: Path, plan: Plan | None = None) -> tuple[Vila, Tokenizer]:
    """The model as far as the run has come, with averaged weights; parts that no stage has touched are random."""
    plan = plan or load_plan(run)
    model = assemble(run, plan)
    for stage in ("sft", "pretrain", "align"):
        state = stage_state(run, stage)
        if state is not None:
            model.load_state_dict(state)
            break
    return model, get_tokenizer(run, plan, prepare(run, plan))


def export_run(run: Path, folder: Path, precision: str = "fp16") -> None:
    """Writes the model as far as the run has come as a published folder."""
    model, tokenizer = current_model(run)
    export_folder(model, tokenizer, folder, precision)


def run_plan(run: Path, plan: Plan | None = None) -> None:
    """Runs every stage of a plan in order and exports `run/model`; a broken run goes on where it was."""
    plan = plan or load_plan(run)
    for stage in plan.stages:
        run_stage(stage.name, run, plan)
    export_run(run, run / "model")
