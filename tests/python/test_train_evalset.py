"""The frozen questions: held-out wording, the splits they name, the same bytes every time; and the data archives."""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image
from test_train_world import make_world
from vila_engine.evaluate import load_items
from vila_engine.train import packages
from vila_engine.train.commands import STAGES, add_commands
from vila_engine.train.evalset import EXAMPLES, SPLITS, write_eval_set, write_examples, write_photo_set
from vila_engine.train.packages import DataError, Package, fetch_package, read_deb
from vila_engine.train.templates import TEMPLATES, templates_of
from vila_engine.train.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_every_split_is_written_and_one_has_held_out_wording(world: World, tmp_path: Path) -> None:
    count = write_eval_set(world, tmp_path, 126, 3, vqa=3)
    items = load_items(tmp_path)
    assert len(items) == count == 3 * sum(map(len, SPLITS.values())) + 3
    assert {(i.task, i.split) for i in items} == {(t, s) for t, own in SPLITS.items() for s in own} | {
        ("easy-vqa", "test")
    }
    trained = {text for family in TEMPLATES for text in templates_of(family, False) if "{" not in text}
    worded = {split == "unseen_template": set() for split in ("seen", "unseen_template")}
    for item in items:
        worded[item.split == "unseen_template"].add(item.question)
    assert trained & worded[False] and not trained & worded[True]
    for item in items:
        assert item.video == (len(item.images) == 8)
        for path in item.images:
            with Image.open(path) as picture:
                assert picture.size == ((64, 64) if item.task == "easy-vqa" else (126, 126))


def test_the_set_is_the_same_every_time(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_eval_set(world, tmp_path / name, 126, 2, vqa=1, suffix="webp")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir()) and len(files) > 40
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_webp_and_png_hold_the_same_pixels(world: World, tmp_path: Path) -> None:
    for suffix in ("webp", "png"):
        write_eval_set(world, tmp_path / suffix, 126, 1, vqa=0, suffix=suffix)
    one, two = load_items(tmp_path / "webp"), load_items(tmp_path / "png")
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a.images, b.images, strict=True):
            assert np.array_equal(np.asarray(Image.open(x).convert("RGB")), np.asarray(Image.open(y).convert("RGB")))


def test_the_examples_are_ten_with_a_pair_and_a_video(world: World, tmp_path: Path) -> None:
    write_examples(world, tmp_path, 126)
    items = load_items(tmp_path)
    assert len(items) == len(EXAMPLES) == 10
    assert [len(item.images) for item in items].count(2) == 1 and [len(item.images) for item in items].count(8) == 1


def make_deb(path: Path, files: dict[str, bytes]) -> None:
    """A Debian archive with only a data.tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    body = buffer.getvalue()
    members = b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        for name, data in (("debian-binary", b"2.0"), ("data.tar.gz", body))
    )
    path.write_bytes(b"!<arch>\n" + members)


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side // 2), (200, 0, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def test_photographs_are_matched_by_their_captions(world: World, tmp_path: Path) -> None:
    known = world.concepts[0]
    files = {
        "stamps/a.png": png(40), "stamps/a.txt": f"A {known.name}.\nfr: autre".encode(),
        "stamps/b.png": png(40), "stamps/b.txt": b"A thing nobody knows.",
        "stamps/cartoon/c.png": png(40), "stamps/cartoon/c.txt": f"A {known.name}.".encode(),
        "stamps/d.png": png(40),
    }  # fmt: skip
    make_deb(tmp_path / "stamps.deb", files)
    assert write_photo_set(world, tmp_path / "stamps.deb", tmp_path / "out") == 1
    (item,) = load_items(tmp_path / "out")
    assert item.split == "photograph" and known.name in item.answer.lower()
    with Image.open(item.images[0]) as picture:
        assert picture.size == (45, 45) and picture.getpixel((0, 0)) == (255, 255, 255)


def test_no_archive_of_another_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(DataError, match="expected '!<arch>'"):
        read_deb(tmp_path / "a.deb", lambda _: True)


def test_an_archive_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("npm", "nothing", "1.0", "nothing.tgz", "0" * 64)
    monkeypatch.setattr(packages, "_command", lambda _: ["sh", "-c", "echo changed > archive.tgz"])
    with pytest.raises(DataError, match=f"expected sha256 {'0' * 64}, got"):
        fetch_package(package, tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(packages, "_command", lambda _: ["no-such-program"])
    with pytest.raises(DataError, match="expected the program no-such-program, got none"):
        fetch_package(package, tmp_path, lambda _: None)


def test_the_recorded_checksums_are_checksums() -> None:
    assert len({package.file for package in packages.PACKAGES}) == len(packages.PACKAGES) == 17
    assert all(len(package.sha256) == 64 and int(package.sha256, 16) for package in packages.PACKAGES)


def test_the_command_knows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="x")
    add_commands(parser.add_subparsers())
    for step in ("all", "data", *STAGES):
        assert parser.parse_args(["train", step, "somewhere"]).run_folder == Path("somewhere")
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "nothing", "somewhere"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
