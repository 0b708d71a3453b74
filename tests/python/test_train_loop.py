"""Training can be killed at any moment: a run that was killed three times ends as an unbroken one does, bit for bit."""

# ruff: noqa: E402 - skips come before imports that may fail
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch (extra: train)")
pytest.importorskip("sentencepiece", reason="training needs SentencePiece (extra: train)")
from test_train_world import make_world
from vila_engine.train.config import (
    Plan,
    StageConfig,
    gpu_plan,
    load_plan,
    plan_from_json,
    plan_to_json,
    write_plan,
)
from vila_engine.train.loop import WINDOW, Batch, averaged, batches, learning_rate, save_atomically, train
from vila_engine.train.models import LlmConfig, VilaConfig, VisionConfig
from vila_engine.train.stages import make_vision_learner
from vila_engine.train.vision import VisionTask

TINY = VilaConfig(VisionConfig(32, 64, 2, 2, 42, 14), LlmConfig(32, 64, 2, 2, 1, 320))
STEPS = 60
PLAN = Plan(
    TINY,
    (StageConfig("vision", STEPS, 4, 1e-3, passes=2),),
    threads=1,
    workers=1,
    save_seconds=0.05,
    device="cpu",
)

WORKER = """
import sys, time
from pathlib import Path
import torch
import test_train_loop as t
t.run(Path(sys.argv[1]), slow=float(sys.argv[2]))
"""


def run(folder: Path, slow: float = 0.0) -> dict[str, torch.Tensor]:
    """Trains the tiny vision stage in `folder`, or goes on with it; waits `slow` seconds in each step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = make_world(folder / "world", 12)
    task = VisionTask(world, TINY.vision, 0, 4)
    return train(make_vision_learner(PLAN, world), task, PLAN.stages[0], PLAN, folder / "vision",
                 on_step=lambda _: time.sleep(slow))  # fmt: skip


def start(folder: Path, slow: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(slow)], env=environment, stderr=subprocess.DEVNULL
    )


def steps_done(checkpoint: Path) -> int:
    return int(torch.load(checkpoint)["step"]) if checkpoint.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path, whole: Path) -> None:
    expected = torch.load(whole / "vision" / "final.pt")
    chance = random.Random(1)
    kills = 0
    checkpoint = tmp_path / "broken" / "vision" / "checkpoint.pt"
    while kills < 3:
        process = start(tmp_path / "broken", 0.1)
        before = steps_done(checkpoint)
        deadline = time.monotonic() + 120
        while steps_done(checkpoint) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(chance.random() * 0.4)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not (tmp_path / "broken" / "vision" / "final.pt").exists()
    assert 0 < steps_done(checkpoint) < STEPS
    found = run(tmp_path / "broken")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    histories = [(folder / "vision" / "history.jsonl").read_text() for folder in (whole, tmp_path / "broken")]
    assert histories[0] == histories[1]


def test_training_learns(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "vision" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_a_finished_stage_is_not_trained_again(whole: Path) -> None:
    first = torch.load(whole / "vision" / "final.pt")
    stamp = (whole / "vision" / "final.pt").stat().st_mtime_ns
    again = run(whole)
    assert (whole / "vision" / "final.pt").stat().st_mtime_ns == stamp
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_averaged_weights_can_be_read_from_a_running_stage(tmp_path: Path) -> None:
    values = {"model": {"a": torch.zeros(2), "b": torch.zeros(1)}, "trained": ["a"], "average": [torch.ones(2)]}
    save_atomically(values, tmp_path / "checkpoint.pt")
    state = averaged(tmp_path / "checkpoint.pt")
    assert state["a"].tolist() == [1, 1] and state["b"].tolist() == [0]


def test_a_torn_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_atomically({"step": 1}, tmp_path / "checkpoint.pt")

    def torn(value: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        save_atomically({"step": 2}, tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 1


class Numbers:
    """A task whose batches hold their number and count how many were made."""

    def __init__(self) -> None:
        self.made = 0

    def batch(self, index: int) -> Batch:
        self.made += 1
        return {"number": torch.tensor(index)}

    def loss(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        raise NotImplementedError


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_batch_is_composed_once_and_used_in_every_pass(passes: int) -> None:
    steps = 2 * WINDOW * passes + WINDOW + 5
    task = Numbers()
    order = [int(batch["number"]) for batch in batches(task, 0, steps, 0, passes=passes)]
    assert len(order) == steps and task.made == max(order) + 1
    if passes == 1:
        assert order == list(range(steps))
        return
    window = list(range(WINDOW))
    assert order[: WINDOW * passes] == window * passes and order[WINDOW * passes] == WINDOW
    for first in (3, WINDOW + 7, 2 * WINDOW * passes + 1, steps - 1):
        assert [int(batch["number"]) for batch in batches(Numbers(), first, steps, 0, passes=passes)] == order[first:]


def test_the_rate_rises_and_falls() -> None:
    config = StageConfig("sft", 100, 1, 1.0, warmup=0.1, final_lr=0.02)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates.index(max(rates)) in (9, 10)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0.02 <= rates[-1] < 0.03


def test_a_run_keeps_its_plan(tmp_path: Path) -> None:
    write_plan(tmp_path, gpu_plan())
    write_plan(tmp_path, gpu_plan())
    assert load_plan(tmp_path) == gpu_plan() and load_plan(tmp_path / "new") == Plan()
    with pytest.raises(ValueError, match="expected no plan or the same one"):
        write_plan(tmp_path, PLAN)


def test_a_plan_survives_json_and_refuses_unknown_settings() -> None:
    assert plan_from_json(plan_to_json(PLAN)) == PLAN
    with pytest.raises(ValueError, match=r"expected the settings .* got \['colour'\]"):
        plan_from_json('{"colour": 1}')
    with pytest.raises(ValueError, match="expected one of"):
        PLAN.stage("sft")
