"""The parity command's own arithmetic, on our fixtures; and that it notices when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import GOLDEN, VARIANTS, case_names
from vila_engine import CheckpointError, InvalidArgument, _core
from vila_engine.cli import main
from vila_engine.parity import CaseReport, Measure, find_goldens, kl_divergence, run_parity, table, worst

USABLE = [name for name, usable in _core.kernel_names() if usable]


@pytest.mark.parametrize(
    ("variants", "threads"), [(VARIANTS, [2]), (["vila3b_awq", "vila40b"], [1, 2, 5])], ids=["all", "threads"]
)
def test_the_fixtures_pass_on_all_kernels_and_thread_counts(variants: list[str], threads: list[int]) -> None:
    goldens = find_goldens(GOLDEN / variant for variant in variants)
    reports = run_parity(goldens, isas=["all"], threads=threads)
    n_cases = sum(len(case_names(variant)) for variant in variants)
    assert len(reports) == n_cases * len(USABLE) * len(threads)
    assert [(r.variant, r.case, r.isa, r.threads, r.measures) for r in reports if not r.ok] == []
    assert {(r.isa, r.threads) for r in reports} == {(isa, n) for isa in USABLE for n in threads}
    for report in reports:
        names = {measure.name for measure in report.measures}
        assert {"prompt", "ids", "logits", "KL", "greedy", "other bytes"} <= names
    # Some cases have each of these: nothing is passed over in silence.
    for name in ("pixel_values", "vision_features", "projector_output"):
        assert any(measure.name == name for report in reports for measure in report.measures)


def test_integer_weights_stay_near_their_dequantised_selves() -> None:
    reports = run_parity(find_goldens([GOLDEN / "vila3b", GOLDEN / "autoawq_gqa"]), weights=["f16", "int8", "int4"])
    assert all(report.ok for report in reports)
    for report in reports:
        measures = {measure.name: measure for measure in report.measures}
        assert measures["arithmetic KL"].bound == 1e-3
        assert measures["logits"].bound is None
        assert measures["ids"].value == 0


@pytest.mark.parametrize("kind", ["f16", "int8"])
def test_a_rounded_cache_stays_near_the_reference(kind: Any) -> None:
    reports = run_parity(find_goldens([GOLDEN / "vila3b", GOLDEN / "vila40b"]), kv_cache=kind)
    assert all(report.ok for report in reports)
    for report in reports:
        measures = {measure.name: measure for measure in report.measures}
        assert (measures["KL"].bound, measures["logits"].bound, measures["greedy"].bound) == (1e-3, None, None)
        assert measures["KL"].value > 0  # the cache was rounded
        assert "arithmetic KL" not in measures
    assert (sum(m.value for r in reports for m in r.measures if m.name == "greedy") == 0) == (kind == "f16")


@pytest.fixture
def tampered(tmp_path: Path) -> Path:
    """A golden folder that may be changed, with one case."""
    folder = tmp_path / "golden" / "copy"
    shutil.copytree(GOLDEN / "vila3b", folder)
    shutil.copytree(GOLDEN / "images", tmp_path / "golden" / "images")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["cases"] = manifest["cases"][:1]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def change(folder: Path, name: str, index: tuple[int, ...], by: float) -> None:
    path = folder / "cases" / f"{case_names('vila3b')[0]}.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays[name][index] += by
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "index", "by", "measure"),
    [
        ("pixel_values", (0, 2, 97, 97), 3e-6, "pixel_values"),
        ("vision_features", (0, 48, 31), 3e-4, "vision_features"),
        ("projector_output", (0, 15, 0), -3e-4, "projector_output"),
        ("logits", (-1, 0), 5e-4, "logits"),
        ("logits", (0, 7), float("nan"), "logits"),
        ("input_ids", (3,), 1, "ids"),
        ("greedy_ids", (31,), 1, "greedy"),
    ],
)
def test_one_wrong_number_breaks_its_bound(
    tampered: Path, capsys: pytest.CaptureFixture[str], *, name: str, index: tuple[int, ...], by: float, measure: str
) -> None:
    assert main(["parity", str(tampered), "--json"]) == 0
    capsys.readouterr()
    change(tampered, name, index, by)
    assert main(["parity", str(tampered), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    (case,) = report["cases"]
    broken = [m["name"] for m in case["measures"] if m["bound"] is not None and not m["value"] <= m["bound"]]
    assert broken == [measure]
    assert main(["parity", str(tampered)]) == 1
    assert "!" in capsys.readouterr().out


def test_another_prompt_is_noticed(tampered: Path) -> None:
    path = tampered / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("ASSISTANT:", "ASSISTANT: "), encoding="utf-8")
    (report,) = run_parity([tampered])
    assert [measure.name for measure in report.measures if not measure.ok] == ["prompt"]


def test_another_checkpoint_is_noticed(tampered: Path) -> None:
    projector = tampered / "checkpoint" / "mm_projector" / "model.safetensors"
    data = bytearray(projector.read_bytes())
    data[-40:] = data[-80:-40]
    projector.write_bytes(data)
    (report,) = run_parity([tampered])
    broken = {measure.name for measure in report.measures if not measure.ok}
    assert {"projector_output", "logits"} <= broken
    assert "vision_features" not in broken


def test_the_table() -> None:
    measures = [
        Measure("ids", 0, 0),
        Measure("logits", 3e-5, 2e-4),
        Measure("KL", 1e-10, None),
        Measure("greedy", 2, 0),
    ]
    report = CaseReport("model", "case", "f32", "avx2", 2, measures)
    lines = table([report, dataclasses.replace(report, measures=measures[:2])]).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["variant", "model", "model"]
    assert lines[0].split() == ["variant", "case", "weights", "isa", "threads", "ids", "logits", "KL", "greedy"]
    assert lines[1].split() == ["model", "case", "f32", "avx2", "2", "=", "3.0e-05", "1.0e-10", "2", "wrong", "!"]
    assert lines[2].split() == ["model", "case", "f32", "avx2", "2", "=", "3.0e-05", "-", "-"]


def test_the_worst_values_of_a_folder() -> None:
    nan = float("nan")
    values = {"a": [0.0, 3.0, 1.0], "b": [1.0, nan, 2.0], "c": [nan, 0.0, 0.0]}
    reports = [
        CaseReport("model", f"case {i}", "f32", "avx2", 2, [Measure(name, values[name][i], 2) for name in values])
        for i in range(3)
    ]
    other = dataclasses.replace(reports[0], weights="int4", measures=[Measure("a", 7.0, None)])
    first, second = worst([*reports, other])
    assert (first.case, first.weights, first.ok) == ("3 cases", "f32", False)
    assert [measure.name for measure in first.measures if measure.ok] == []
    assert first.measures[0].value == 3.0
    assert (second.case, second.weights, second.ok, second.measures[0].value) == ("1 cases", "int4", True, 7.0)


def test_kl_divergence_by_hand() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    found = kl_divergence(np.log([p, p]) + 7.0, np.log([q, p]) - 3.0)
    assert found == pytest.approx([0.5 * np.log(2) + 0.25 * np.log(0.5), 0.0], abs=1e-12)


def test_folders_that_are_no_goldens(tmp_path: Path, tampered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in find_goldens([GOLDEN])) == VARIANTS
    with pytest.raises(InvalidArgument, match=r"expected a golden folder \(manifest.json, checkpoint/\), got none"):
        find_goldens([tmp_path])
    assert find_goldens([tampered, tampered.parent]) == [tampered, tampered]
    manifest = json.loads((tampered / "manifest.json").read_text(encoding="utf-8"))
    damaged: list[tuple[Any, str]] = [
        ({**manifest, "cases": [{**manifest["cases"][0], "file": "cases/none.npz"}]}, "none.npz"),
        ({k: v for k, v in manifest.items() if k != "tolerance"}, "expected a manifest with cases and tolerance"),
        ({**manifest, "cases": [{"name": "x", "images": [], "turns": ["Hi", None]}]}, "expected 'file' in case x"),
    ]
    for value, message in damaged:
        (tampered / "manifest.json").write_text(json.dumps(value), encoding="utf-8")
        assert main(["parity", str(tampered)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(CheckpointError):
        run_parity([tampered])
