"""Where a conversion reads from and how the result gets into its place: folders, the Hub, full disks, failures."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import convert_helpers as h
import pytest
from vila_engine import _core
from vila_engine.convert import ConvertReport, convert, writer

SMALL = "linear_bias_fp32"  # converts in milliseconds


class Stopped(Exception):
    """Raised in the middle of a conversion."""


def stop_half_way(done: int, total: int) -> None:
    if 2 * done > total:
        raise Stopped


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, OSError])
def test_a_failure_in_the_middle_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if 2 * done > total:
            raise error("disk on fire")

    (tmp_path / "here").mkdir()
    expected = _core.IoError if error is OSError else error
    with pytest.raises(expected, match="disk on fire"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "here" / "model", progress=stop)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_failure_in_the_middle_leaves_an_old_folder_alone(tmp_path: Path) -> None:
    source = h.GOLDEN / SMALL / "checkpoint"
    convert(source, tmp_path / "model", weights="f16")
    before = h.tree(tmp_path)
    with pytest.raises(Stopped):
        convert(source, tmp_path / "model", weights="int4", force=True, progress=stop_half_way)
    assert h.tree(tmp_path) == before


def test_an_old_folder_comes_back_when_the_exchange_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = h.GOLDEN / SMALL / "checkpoint"
    convert(source, tmp_path / "model", weights="f16")
    before = h.tree(tmp_path)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise PermissionError(13, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(_core.IoError, match="expected to write a folder"):
        convert(source, tmp_path / "model", weights="int4", force=True)
    assert h.tree(tmp_path) == before


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def occupy(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "mine.txt").write_text("mine")

    with pytest.raises(_core.IoError, match="appeared meanwhile"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "model", progress=occupy)
    assert h.tree(tmp_path) == {"model/mine.txt": b"mine"}


def test_overwriting_needs_force(tmp_path: Path) -> None:
    source = h.GOLDEN / SMALL / "checkpoint"
    convert(source, tmp_path / "model", weights="f16")
    before = h.tree(tmp_path)
    with pytest.raises(_core.InvalidArgument, match="--force"):
        convert(source, tmp_path / "model", weights="int4")
    assert h.tree(tmp_path) == before
    report = convert(source, tmp_path / "model", weights="int4", force=True)
    assert isinstance(report, ConvertReport)
    assert h.tree(tmp_path).keys() == before.keys()
    assert h.tree(tmp_path) != before


def foreign(folder: Path, kind: str) -> Path:
    """Something that is no model folder of ours."""
    target = folder / "precious"
    if kind == "file":
        target.write_text("precious")
        return target
    if kind == "link":
        convert(h.GOLDEN / SMALL / "checkpoint", folder / "model")
        target.symlink_to(folder / "model")
        return target
    target.mkdir()
    if kind in ("published part", "damaged config"):
        for file in (h.GOLDEN / SMALL / "checkpoint" / "mm_projector").iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    if kind == "damaged config":
        (target / "config.json").write_text("[" * 5000)
    if kind == "more files":
        convert(h.GOLDEN / SMALL / "checkpoint", folder / "model")
        (folder / "model").rename(folder / "old")
        for file in (folder / "old").iterdir():
            file.rename(target / file.name)
        (target / "notes.txt").write_text("precious")
    if kind == "other files":
        (target / "thesis.tex").write_text("precious")
    return target


@pytest.mark.parametrize("kind", ["file", "link", "published part", "damaged config", "more files", "other files"])
def test_force_replaces_model_folders_only(kind: str, tmp_path: Path) -> None:
    target = foreign(tmp_path, kind)
    before = h.tree(tmp_path)
    with pytest.raises(_core.InvalidArgument, match="expected a model folder to replace"):
        convert(h.GOLDEN / SMALL / "checkpoint", target, force=True)
    assert h.tree(tmp_path) == before


def test_force_accepts_an_empty_folder_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / name, force=True)
        assert (tmp_path / name / "model.safetensors").is_file()


def test_a_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = types.SimpleNamespace(free=100_000)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: full)
    with pytest.raises(_core.IoError, match=r"expected [\d,]+ free bytes on the disk, got 100,000"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(_core.IoError, match="expected to write a folder"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "model")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(_core.IoError, match="expected"):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "file" / "model")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for source, got in (
        (tmp_path / "nowhere", "nothing there"),
        (tmp_path / "file", "a file"),
        ("one-word", "nothing"),
    ):
        with pytest.raises(
            _core.IoError, match=f"expected a checkpoint folder or a Hub id such as org/name, got {got}"
        ):
            convert(source, tmp_path / "model")


def test_a_hub_id_needs_huggingface_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(_core.IoError, match=r"looks like a Hub id; install vila_engine\[convert\]"):
        convert("Some-Org/VILA1.5-3b", tmp_path / "model")


def hub(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    """Puts a module in the place of huggingface_hub."""
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_a_hub_id_is_downloaded_and_named_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = tmp_path / "hub" / "models--Some-Org--Llama-3-VILA1.5-8B-Fix" / "snapshots"
    snapshots.mkdir(parents=True)
    h.copy_checkpoint("llama3", snapshots).rename(snapshots / "6f1c0ffee")
    asked = []

    def download(name: str) -> str:
        asked.append(name)
        return str(snapshots / "6f1c0ffee")

    hub(monkeypatch, download)
    report = convert("Some-Org/Llama-3-VILA1.5-8B-Fix", tmp_path / "model")
    assert asked == ["Some-Org/Llama-3-VILA1.5-8B-Fix"]
    assert report.conv_mode == "llama_3_fix"
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["source"] == {"name": "Llama-3-VILA1.5-8B-Fix", "layout": "hf"}


def test_a_failing_download_is_an_io_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str) -> str:
        raise RuntimeError(f"no network for {name}")

    hub(monkeypatch, download)
    with pytest.raises(_core.IoError, match="got no network for Some-Org/VILA"):
        convert("Some-Org/VILA", tmp_path / "model")


def test_a_folder_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has the form of an id, and is not there, makes a download."""
    hub(monkeypatch, lambda name: pytest.fail(f"downloaded {name}"))
    (tmp_path / "org").mkdir()
    h.copy_checkpoint(SMALL, tmp_path / "org").rename(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    convert("org/name", tmp_path / "model")
    for name in ("./org/other", "../org", "~/org", "/org/name", "a/b/c", "org/na me", ".org/name"):
        with pytest.raises(_core.IoError, match="got nothing there"):
            convert(name, tmp_path / "model2")
