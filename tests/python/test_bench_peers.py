"""benchmarks/compare_peers.py: turns, ratios, and vila_engine as one of its programs; no other one is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare_peers.py"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_peers"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


class Fake:
    """A worker that answers from a list."""

    def __init__(self, name: str, seconds: list[float], log: list[str], tasks: tuple[str, ...] = ("decode",)) -> None:
        self.name = name
        self.tasks = tasks
        self._seconds = seconds
        self._log = log

    def seconds(self, _: Any) -> float:
        self._log.append(self.name)
        return self._seconds.pop(0)


def test_programs_take_turns_and_medians_are_compared(peers: ModuleType) -> None:
    log: list[str] = []
    # The first repetition, slow here, does not count.
    workers = [Fake("vila_engine", [90.0, 1.0, 2.0, 4.0], log), Fake("other", [90.0, 8.0, 4.0, 2.0], log)]
    results = peers.measure(workers, [peers.Task("decode 9", "decode 9 8", 8)], 3)
    assert log == ["other", "vila_engine", "vila_engine", "other"] * 2
    assert [(r["program"], r["unit"], r["median"], r["min"], r["max"]) for r in results] == [
        ("vila_engine", "tokens_per_second", 4.0, 2.0, 8.0),
        ("other", "tokens_per_second", 2.0, 1.0, 4.0),
    ]
    found = peers.ratios(results)
    assert found == [{"task": "decode 9", "program": "other", "busy": False, "ratio": 2.0}]
    lines = peers.report(results, found).splitlines()
    assert lines[2:] == [
        "| decode 9, tokens/s | vila_engine | 4.00 | 2.00 | 8.00 |  |  |",
        "| decode 9, tokens/s | other | 2.00 | 1.00 | 4.00 | 2.00 x |  |",
    ]


def test_seconds_are_compared_the_other_way_round(peers: ModuleType) -> None:
    workers = [
        Fake("vila_engine", [9.0, 1.5], [], ("vision",)),
        Fake("other", [9.0, 6.0], [], ("vision",)),
        Fake("third", [], [], ("decode",)),  # never asked
    ]
    results = peers.measure(workers, [peers.Task("vision", "vision")], 1)
    assert [(r["program"], r["unit"], r["median"]) for r in results] == [
        ("vila_engine", "seconds", 1.5),
        ("other", "seconds", 6.0),
    ]
    found = peers.ratios(results)
    assert found == [{"task": "vision", "program": "other", "busy": False, "ratio": 4.0}]
    assert peers.report(results, found).splitlines()[-1] == "| vision, s | other | 6.00 | 6.00 | 6.00 | 4.00 x |  |"


def test_a_second_pass_tells_what_a_busy_machine_keeps(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def taken() -> Iterator[None]:
        log.append("taken")
        yield
        log.append("given back")

    monkeypatch.setattr(peers, "core_taken", taken)
    vision, decode = peers.Task("vision", "vision"), peers.Task("decode 9", "decode 9 8", 8)
    worker = Fake("vila_engine", [9.0, 2.0, 9.0, 1.0, 9.0, 4.0, 9.0, 4.0], log, ("vision", "decode"))
    results = peers.measure([worker], [vision, decode], 1)
    assert "taken" not in log
    log.clear()
    results += peers.measure([worker], [vision, decode], 1, busy=True)
    assert log == ["taken", "vila_engine", "vila_engine", "given back"] * 2
    assert peers.report(results, peers.ratios(results)).splitlines()[4:] == [
        "| vision, s, one core taken | vila_engine | 4.00 | 4.00 | 4.00 |  | 50% |",
        "| decode 9, tokens/s, one core taken | vila_engine | 2.00 | 2.00 | 2.00 |  | 25% |",
    ]


def test_a_core_is_taken_for_the_block_alone(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(popen(command))
        return started[-1]

    monkeypatch.setattr(peers.subprocess, "Popen", start)
    with peers.core_taken():
        (process,) = started
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.returncode == -signal.SIGKILL


def test_memory_is_in_megabytes(peers: ModuleType) -> None:
    assert peers.memory_report({"vila_engine": 2_300_000_000, "other": None}).splitlines()[2:] == [
        "| vila_engine | 2300 |",
        "| other | unknown |",
    ]


def test_vila_engine_is_one_of_the_programs(peers: ModuleType, tmp_path: Path) -> None:
    python = Path(sys.executable)
    model = peers.make_model(peers.OURS, python, tmp_path, "tiny")
    assert model == tmp_path / "models" / "tiny-int4"
    worker = peers.Worker(peers.OURS, python, model, 1)
    try:
        assert worker.hello["threads"] == 1
        assert set(worker.hello) == {"version", "isa", "threads", "model"}
        first, second = (worker.seconds(peers.Task("prefill 16", "prefill 16", 16)) for _ in range(2))
        assert first > 0
        assert second > 0
        assert worker.seconds(peers.Task("decode 12", "decode 12 3", 3)) > 0
        assert worker.seconds(peers.Task("vision", "vision")) > 0
        assert worker.seconds(peers.Task("first token", "first_token 9")) > 0
        assert worker.peak_bytes() > 1e6
    finally:
        worker.close()
    assert worker.process.returncode is not None


def test_a_program_that_dies_is_named(peers: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="compare_peers: vila_engine ended with status 1"):
        peers.Worker(peers.OURS, Path(sys.executable), tmp_path / "nowhere", 1)
    assert "nowhere" in capfd.readouterr().err


def test_models_that_are_there_are_used(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "3b-llama_cpp").mkdir()
    for name in ("llama_cpp", "llama_cpp_avx2"):  # they share one model
        assert peers.make_model(name, Path("/nowhere/python"), tmp_path, "3b").samefile(
            tmp_path / "models" / "3b-llama_cpp"
        )
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "installed").touch()
    assert peers.install("openvino", tmp_path, 1) == tmp_path / "openvino" / "bin" / "python"


def test_a_model_is_made_again_after_a_failure(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a runner that fails at first; a half-made folder is in nobody's way."""
    script = tmp_path / "run.py"
    make = "import pathlib, sys\nfolder = pathlib.Path(sys.argv[3])\nfolder.mkdir()\n(folder / 'shape').touch()\n"
    monkeypatch.setattr(peers, "runner", lambda _: script)
    (tmp_path / "models").mkdir()
    script.write_text(make + "sys.exit(1)\n", encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        peers.make_model("openvino", Path(sys.executable), tmp_path, "tiny")
    script.write_text(make, encoding="utf-8")
    path = peers.make_model("openvino", Path(sys.executable), tmp_path, "tiny")
    assert [file.name for file in path.iterdir()] == ["shape"]


def test_every_program_has_a_runner(peers: ModuleType) -> None:
    for name in (peers.OURS, *peers.PEERS):
        assert peers.runner(name).is_file()


def test_only_named_programs_install_much(peers: ModuleType) -> None:
    assert [name for name, peer in peers.PEERS.items() if peer.is_default] == ["llama_cpp", "openvino"]


def test_the_instruction_set_is_passed_on(peers: ModuleType, tmp_path: Path) -> None:
    python = Path(sys.executable)
    worker = peers.Worker(peers.OURS, python, peers.make_model(peers.OURS, python, tmp_path, "tiny"), 1, "scalar")
    worker.close()
    assert worker.hello["isa"] == "scalar"


@pytest.mark.parametrize(
    "arguments",
    [("--repeats", "0"), ("--programs", "other"), ("--preset", "70b"), ("--isa", "mmx"), ("--tasks", "train")],
)
def test_wrong_arguments_show_the_usage(
    arguments: tuple[str, str], peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        peers.main(["--work", str(tmp_path), *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_json_has_results_ratios_and_programs(
    peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With vila_engine in the place of the other program as well."""

    class Other(peers.Worker):  # type: ignore[misc,name-defined]
        def __init__(self, name: str, *arguments: Any) -> None:
            super().__init__(peers.OURS, *arguments)
            self.name, self.tasks = name, peers.TASKS if name == peers.OURS else peers.PEERS[name].tasks

    model = peers.make_model(peers.OURS, Path(sys.executable), tmp_path, "tiny")
    monkeypatch.setattr(peers, "Worker", Other)
    monkeypatch.setattr(peers, "install", lambda *_: Path(sys.executable))
    monkeypatch.setattr(peers, "make_model", lambda *_: model)
    options = ["--preset", "tiny", "--programs", "openvino", "--threads", "1", "--repeats", "1", "--json", "--busy"]
    assert peers.main(["--work", str(tmp_path), *options, "--prompt-tokens", "8", "--contexts", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    both, ours = ("vila_engine", "openvino"), ("vila_engine",)
    runs = (("decode 8", both), ("prefill 8", both), ("vision", both), ("first token", ours))
    assert [(r["busy"], r["task"], r["program"]) for r in found["results"]] == [
        (busy, task, program) for busy in (False, True) for task, able in runs for program in able
    ]
    assert [r["task"] for r in found["ratios"]] == ["decode 8", "prefill 8", "vision"] * 2
    assert all(r["ratio"] > 0 for r in found["ratios"])
    assert set(found["programs"]) == set(both)
    assert all(program["peak_bytes"] > 1e6 for program in found["programs"].values())
