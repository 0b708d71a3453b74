"""Settings of a training run as dataclasses, with the plan of the shipped model as the default."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vila_engine._core import InvalidArgument

from .models import LlmConfig, VilaConfig, VisionConfig

T = TypeVar("T")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        name: `vision-small`, `vision`, `language`, `align`, `pretrain` or `sft`.
        steps: Optimiser steps.
        batch: Pictures (vision), sequences (language) or packed rows of conversations (the rest) per step.
        lr: Peak learning rate.
        warmup: Share of the steps in which the rate rises from zero.
        final_lr: Last rate as a share of the peak (cosine in between).
        weight_decay: AdamW decay of matrices; vectors have none.
        clip: Largest norm of the gradient.
        ema: Decay of the averaged weights that leave the stage.
        lr_scale: Factors on the rate by the beginning of a parameter's name; 0 freezes what is named.
        image_size: Pixels of the pictures of a vision stage; 0 is the model's own size.
        row: Tokens of a packed row, rows of pictures included.
        passes: How many steps use a composed batch, some steps apart; more than one where composing is the slow part.
        questions: At most so many further questions about the pictures of a conversation of `sft`.
        mix: Shares of the tasks in `sft`, in place of those of the shipped model.
    """

    name: str
    steps: int
    batch: int
    lr: float
    warmup: float = 0.03
    final_lr: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    lr_scale: dict[str, float] = field(default_factory=dict)
    image_size: int = 0
    row: int = 512
    passes: int = 1
    questions: int = 3
    mix: dict[str, float] = field(default_factory=dict)


def default_stages() -> tuple[StageConfig, ...]:
    """The stages of the shipped model, sized for ten hours of one core."""
    return (
        StageConfig("vision-small", 6000, 64, 1e-3, warmup=0.05, image_size=70),
        StageConfig("vision", 1500, 64, 6e-4),
        StageConfig("language", 900, 24, 1.5e-3, warmup=0.05, weight_decay=0.1),
        StageConfig("align", 300, 6, 1e-3, weight_decay=0.0),
        StageConfig("pretrain", 600, 5, 5e-4),
        StageConfig("sft", 2000, 12, 6e-4, lr_scale={"vision_tower": 0.5}),
    )


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        model: Sizes of the parts.
        stages: What is trained, in order.
        seed: Seeds the weights, and with the step number every batch.
        concepts: `core` for the smaller choice of things to name, `all` for all of them.
        threads: Threads of PyTorch.
        workers: Processes that compose batches ahead; 0 composes them in between.
        precision: `fp32`, `bf16`, or `auto` (bf16 where the device multiplies it fast).
        compile: Compile tower, projector and language model of the last three stages, which pays on a GPU.
        device: A PyTorch device, or `auto` for a GPU where there is one.
        save_seconds: Longest time between two checkpoints.
        start: A published VILA folder to start from instead of the vision and language stages.
    """

    model: VilaConfig = field(default_factory=VilaConfig)
    stages: tuple[StageConfig, ...] = field(default_factory=default_stages)
    seed: int = 0
    concepts: str = "core"
    threads: int = 2
    workers: int = 1
    precision: str = "auto"
    compile: bool = False
    device: str = "auto"
    save_seconds: float = 45.0
    start: str | None = None

    def stage(self, name: str) -> StageConfig:
        """The settings of one stage.

        Raises:
            InvalidArgument: The plan has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise InvalidArgument(f"[Plan] stage: expected one of {[stage.name for stage in self.stages]}, got {name!r}")


def gpu_plan() -> Plan:
    """The same model on one GPU with sixteen cores beside it: all concepts, larger batches, more of everything.

    About half an hour of an H100 at the rates of docs/TRAINING.md; conversations of many lengths are what bounds it.
    """
    stages = (
        StageConfig("vision-small", 5369, 512, 1.5e-3, warmup=0.05, image_size=70),
        StageConfig("vision", 2153, 512, 8e-4),
        StageConfig("language", 1538, 128, 1.5e-3, warmup=0.05, weight_decay=0.1),
        StageConfig("align", 350, 24, 1e-3, weight_decay=0.0),
        StageConfig("pretrain", 600, 48, 6e-4),
        StageConfig("sft", 12000, 128, 8e-4, lr_scale={"vision_tower": 0.5}, passes=2, questions=7),
    )
    return Plan(stages=stages, concepts="all", workers=15, compile=True, device="cuda")


def write_plan(run: Path, plan: Plan) -> None:
    """Writes `plan.json` of a run that has none yet.

    Raises:
        InvalidArgument: The run has another plan.
    """
    path = run / "plan.json"
    if path.exists() and plan_from_json(path.read_text(encoding="utf-8")) != plan:
        raise InvalidArgument(
            f"[train] {path}: expected no plan or the same one, got another; edit it or take another folder"
        )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(plan_to_json(plan), encoding="utf-8")


def _known(kind: type[T], values: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise InvalidArgument(f"[Plan] {kind.__name__}: expected the settings {sorted(names)}, got {unknown}")
    return values


def plan_to_json(plan: Plan) -> str:
    """Writes a plan as JSON."""
    return json.dumps(dataclasses.asdict(plan), indent=2) + "\n"


def plan_from_json(text: str) -> Plan:
    """Reads what `plan_to_json` wrote; settings that are left out keep their defaults.

    Raises:
        InvalidArgument: A setting has an unknown name.
    """
    values = _known(Plan, json.loads(text))
    if "model" in values:
        model = _known(VilaConfig, values["model"])
        if "vision" in model:
            model["vision"] = VisionConfig(**_known(VisionConfig, model["vision"]))
        if "llm" in model:
            model["llm"] = LlmConfig(**_known(LlmConfig, model["llm"]))
        values["model"] = VilaConfig(**model)
    if "stages" in values:
        values["stages"] = tuple(StageConfig(**_known(StageConfig, stage)) for stage in values["stages"])
    return Plan(**values)


def load_plan(run: Path) -> Plan:
    """Reads `plan.json` of a run, or writes the default plan there if it has none."""
    path = run / "plan.json"
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(plan_to_json(Plan()), encoding="utf-8")
    return plan_from_json(path.read_text(encoding="utf-8"))
