"""The stages of a run in order: `run_plan` runs what is missing, `run_stage` runs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from .config import Plan, load_plan
from .loop import pick_device, train
from .scenes import Renderer
from .vision import VisionLearner, VisionTask
from .world import World, build_world


def prepare(run: Path) -> World:
    """Fetches the data packages into `run/data` and builds the cache in `run/world`, unless that is done."""
    return build_world(run / "data", run / "world")


def _vision(run: Path, plan: Plan, world: World) -> None:
    config = plan.stage("vision")
    torch.manual_seed(plan.seed)
    labels = Renderer(world, plan.model.vision.image_size, plan.model.vision.patch_size).n_labels
    names = [concept.name for concept in world.concepts]
    model = VisionLearner(plan.model.vision, labels, names, plan.model.select_layer)
    task = VisionTask(world, plan.model.vision, plan.seed, config.batch)
    train(model.to(pick_device(plan.device)), task, config, plan, run / "vision")


RUNNERS: dict[str, Callable[[Path, Plan, World], None]] = {"vision": _vision}


def run_stage(stage: str, run: Path, plan: Plan | None = None) -> None:
    """Runs one stage of a run, or goes on with it; a stage that is done returns at once.

    Args:
        stage: `vision`, `language`, `align`, `pretrain` or `sft`.
        run: The run's folder; earlier stages must be done.
        plan: The settings; those of `run/plan.json` if left out.
    """
    plan = plan or load_plan(run)
    torch.set_num_threads(plan.threads)
    RUNNERS[stage](run, plan, prepare(run))


def run_plan(run: Path, plan: Plan | None = None) -> None:
    """Runs every stage of a plan in order; done stages are skipped, a broken one goes on where it was."""
    plan = plan or load_plan(run)
    for stage in plan.stages:
        run_stage(stage.name, run, plan)
