"""The training loop: seeded batches, AdamW, averaged weights, and checkpoints from which a killed run goes on exactly.

The batch of a step is a function of the seed and the step alone, and everything else that changes (weights, moments,
average, random state, history) is in the checkpoint, so on a CPU a resumed run equals an unbroken one bit for bit.
"""

# mypy: allow-subclassing-any, no-warn-unused-ignores
from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vila_engine._core import InvalidArgument

from .config import Plan, StageConfig
from .plot import draw_curves

Batch = dict[str, Tensor]
Log = dict[str, float]
HISTORY_STEPS = 20
WINDOW = 32
CURVES_SECONDS = 600.0


class Task(Protocol):
    """What a stage trains on."""

    def batch(self, index: int) -> Batch:
        """Composes batch `index`: a pure function of the seed and the index."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Log]:
        """The loss of a batch (a scalar) and figures to log."""


class _Steps(Dataset[Batch]):
    """Batches by step number, for `DataLoader`."""

    def __init__(self, task: Task, first: int, steps: int) -> None:
        self.task, self.first, self.steps = task, first, steps

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.task.batch(self.first + index)


def _first(items: list[Batch]) -> Batch:
    return items[0]


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(task: Task, first: int, steps: int, workers: int, *, passes: int = 1, pin: bool = False) -> Iterator[Batch]:
    """Yields the batches of the steps `first` to `steps - 1` in order, composed ahead by `workers` processes.

    With more than one pass `WINDOW` batches are composed, gone through that often, and dropped. With `pin` batches lie
    in memory from which a GPU copies by itself.
    """
    window = WINDOW if passes > 1 else 1
    block = window * passes
    start = first // block * block
    composed = _composed(task, start // passes, steps // block * window + min(window, steps % block), workers, pin)
    kept: list[Batch] = []
    for step in range(start, steps):
        place = step % block
        if place == 0:
            kept = []
        if place < window:
            kept.append(next(composed))
        if step >= first:
            yield kept[place % window]


def _composed(task: Task, first: int, end: int, workers: int, pin: bool) -> Iterator[Batch]:
    """Yields the batches `first` to `end - 1`."""
    if workers == 0:
        yield from (task.batch(index) for index in range(first, end))
        return
    loader = DataLoader(
        _Steps(task, first, end),
        batch_size=1,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=2,
        collate_fn=_first,
        worker_init_fn=_quiet_worker,
        pin_memory=pin,
        multiprocessing_context="fork",
    )
    yield from loader


def save_atomically(value: object, path: Path) -> None:
    """Writes a file so that a kill leaves the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as stream:
        torch.save(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def learning_rate(config: StageConfig, step: int) -> float:
    """Linear rise over the warm-up, then half a cosine down to `final_lr` of the peak."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))


def pick_device(name: str) -> torch.device:
    """The device of a plan; `auto` prefers a GPU."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products run in bf16: always on a GPU, on a CPU where it multiplies them.

    Raises:
        InvalidArgument: The precision is unknown.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InvalidArgument(f"[train] precision: expected auto, fp32 or bf16, got {precision!r}")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return True
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not public, so not sure to be there
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@dataclass
class State:
    """What one stage carries from step to step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: list[Tensor]
    step: int = 0
    history: list[Log] = field(default_factory=list)
    recent: dict[str, list[float]] = field(default_factory=dict)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that this stage changes, in a fixed order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def to_dict(self) -> dict[str, Any]:
        """Everything that `load` needs."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "trained": [name for name, p in self.model.named_parameters() if p.requires_grad],
            "history": self.history,
            "recent": self.recent,
            "random": torch.get_rng_state(),
        }

    def note(self, log: Log) -> None:
        """Collects the figures of a step; every `HISTORY_STEPS` steps their means become a row of the history."""
        for name, value in log.items():
            self.recent.setdefault(name, []).append(value)
        if self.step % HISTORY_STEPS == 0:
            means = {name: sum(values) / len(values) for name, values in self.recent.items()}
            self.history.append({"step": float(self.step), **means})
            self.recent = {}

    def load(self, values: dict[str, Any]) -> None:
        """Takes over what `to_dict` gave."""
        self.step = int(values["step"])
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        for mine, theirs in zip(self.average, values["average"], strict=True):
            mine.copy_(theirs)
        self.history = values["history"]
        self.recent = values["recent"]
        torch.set_rng_state(values["random"].cpu())


def make_state(model: nn.Module, config: StageConfig) -> State:
    """Builds the optimiser of a stage: matrices decay, vectors do not, and `lr_scale` slows named parts."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = next((s for start, s in config.lr_scale.items() if name.startswith(start)), 1.0)
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": decay, "scale": scale} for (scale, decay), members in groups.items()
    ]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.95), fused=True)
    average = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    return State(model, optimizer, average)


def averaged(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights of a stage that is still running, from its checkpoint."""
    values = torch.load(checkpoint, weights_only=True, map_location="cpu")
    state = dict(values["model"])
    state.update(zip(values["trained"], values["average"], strict=True))
    return state


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def train_step(state: State, task: Task, batch: Batch, config: StageConfig, bf16: bool) -> Log:
    """One optimiser step; returns the figures of the batch, the loss and the gradient's norm among them."""
    device = next(state.model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss, log = task.loss(state.model, _to_device(batch, device))
    loss.backward()  # type: ignore[no-untyped-call]
    trained = state.trained()
    norm = nn.utils.clip_grad_norm_(trained, config.clip)
    rate = learning_rate(config, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(state.average, [parameter.data for parameter in trained], 1 - decay)
    state.step += 1
    return {"loss": float(loss.detach()), "grad_norm": float(norm), **log}


def train(
    model: nn.Module,
    task: Task,
    config: StageConfig,
    plan: Plan,
    folder: Path,
    *,
    on_step: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Trains a stage, or goes on where a checkpoint in `folder` says it was.

    Args:
        model: The module, on its device; parameters that do not require gradients stay as they are.
        task: Batches and loss.
        config: The stage.
        plan: Device, precision, workers and time between checkpoints.
        folder: Where `checkpoint.pt`, `history.json`, `curves.png` and at the end `final.pt` are written.
        on_step: Called after each step with the number of steps done.

    Returns:
        The state of the model with averaged weights, as in `final.pt`.
    """
    from tqdm import tqdm

    final = folder / "final.pt"
    if final.exists():
        return cast("dict[str, Tensor]", torch.load(final, weights_only=True))
    device = next(model.parameters()).device
    bf16 = use_bf16(plan.precision, device)
    state = make_state(model, config)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state.load(torch.load(checkpoint, weights_only=True, map_location=device))
    model.train()
    saved = drawn = time.monotonic()
    pause = 2 if sys.stderr.isatty() else 60
    bar = tqdm(total=config.steps, initial=state.step, desc=config.name, unit="step", mininterval=pause, smoothing=0.02)
    pin = device.type == "cuda"
    for batch in batches(task, state.step, config.steps, plan.workers, passes=config.passes, pin=pin):
        state.note(train_step(state, task, batch, config, bf16))
        bar.update()
        if not state.recent:
            rate = bar.format_dict["rate"] or 0.0
            bar.set_postfix({"samples/s": f"{rate * config.batch:.0f}", **_short(state.history[-1])}, refresh=False)
        if time.monotonic() - saved > plan.save_seconds:
            picture = time.monotonic() - drawn > CURVES_SECONDS
            save_atomically(state.to_dict(), checkpoint)
            write_history(state.history, folder, config.name, picture)
            saved = time.monotonic()
            drawn = saved if picture else drawn
        if on_step is not None:
            on_step(state.step)
    bar.close()
    with torch.no_grad():
        for parameter, average in zip(state.trained(), state.average, strict=True):
            parameter.copy_(average)
    result = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    write_history(state.history, folder, config.name, picture=True)
    save_atomically(result, final)
    checkpoint.unlink(missing_ok=True)
    return result


def _short(figures: Log) -> dict[str, str]:
    return {name: f"{value:.3g}" for name, value in figures.items() if name not in ("grad_norm", "step")}


def write_history(history: list[Log], folder: Path, title: str, picture: bool) -> None:
    """Writes the logged figures as JSON lines and, if asked for, as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in history)
    (folder / "history.jsonl").write_text(text, encoding="utf-8")
    if picture and len(history) > 1:
        draw_curves(history, folder / "curves.png", title)
