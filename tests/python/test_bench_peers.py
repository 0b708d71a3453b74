"""benchmarks/compare_peers.py: turns, ratios, and vila_engine as one of its programs; no other one is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
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

    def __init__(self, name: str, seconds: list[float], log: list[str]) -> None:
        self.name = name
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
    assert [(r["program"], r["tokens_per_second"], r["min"], r["max"]) for r in results] == [
        ("vila_engine", 4.0, 2.0, 8.0),
        ("other", 2.0, 1.0, 4.0),
    ]
    found = peers.ratios(results)
    assert found == [{"task": "decode 9", "program": "other", "ratio": 2.0}]
    lines = peers.report(results, found).splitlines()
    assert lines[2:] == [
        "| decode 9 | vila_engine | 4.00 | 2.00 | 8.00 |  |",
        "| decode 9 | other | 2.00 | 1.00 | 4.00 | 2.00 x |",
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
    finally:
        worker.close()
    assert worker.process.returncode is not None


def test_a_program_that_dies_is_named(peers: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="compare_peers: vila_engine ended with status 1"):
        peers.Worker(peers.OURS, Path(sys.executable), tmp_path / "nowhere", 1)
    assert "nowhere" in capfd.readouterr().err


def test_models_that_are_there_are_used(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "3b.llama_cpp").write_bytes(b"made before")
    path = peers.make_model("llama_cpp", Path("/nowhere/python"), tmp_path, "3b")
    assert path.read_bytes() == b"made before"
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "installed").touch()
    assert peers.install("openvino", tmp_path, 1) == tmp_path / "openvino" / "bin" / "python"


def test_every_program_has_a_runner(peers: ModuleType) -> None:
    for name in (peers.OURS, *peers.PEERS):
        assert (peers.HERE / f"run_{name}.py").is_file()


@pytest.mark.parametrize("arguments", [("--repeats", "0"), ("--programs", "other"), ("--preset", "70b")])
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
            self.name = name

    model = peers.make_model(peers.OURS, Path(sys.executable), tmp_path, "tiny")
    monkeypatch.setattr(peers, "Worker", Other)
    monkeypatch.setattr(peers, "install", lambda *_: Path(sys.executable))
    monkeypatch.setattr(peers, "make_model", lambda *_: model)
    options = ["--preset", "tiny", "--programs", "openvino", "--threads", "1", "--repeats", "1", "--json"]
    assert peers.main(["--work", str(tmp_path), *options, "--prompt-tokens", "8", "--contexts", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["task"], r["program"]) for r in found["results"]] == [
        (task, program) for task in ("decode 8", "prefill 8") for program in ("vila_engine", "openvino")
    ]
    assert [r["task"] for r in found["ratios"]] == ["decode 8", "prefill 8"]
    assert all(r["ratio"] > 0 for r in found["ratios"])
    assert set(found["programs"]) == {"vila_engine", "openvino"}
