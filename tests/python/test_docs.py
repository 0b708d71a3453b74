"""The examples of README.md and docs/API.md run as they are written, in a folder that holds the files they name."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from support import GOLDEN, PICTURES
from vila_engine import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/API.md")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language; "" are those without a name."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if not inside:
                found.append((line[3:], ""))
            inside = not inside
        elif inside:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    assert not inside
    return [text for name, text in found if name == language]


@pytest.fixture
def workplace(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, a photo and a video under the names of the examples."""
    shutil.copytree(folder, tmp_path / "vila1.5-3b-int4")
    with Image.open(PICTURES / "square.png") as picture:
        picture.convert("RGB").save(tmp_path / "photo.jpg")
        picture.convert("RGB").save(tmp_path / "photo.png")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x32"]
    command += ["-i", "-", str(tmp_path / "clip.mp4")]
    subprocess.run(command, input=np.arange(12 * 32 * 32 * 3).astype(np.uint8).tobytes(), check=True, timeout=60)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page: str, workplace: Path) -> None:
    """One after the other, as a reader would type them; in a process of their own, so that nothing is left over."""
    examples = blocks(page, "python")
    assert examples
    script = workplace / "examples.py"
    script.write_text("\n".join(examples), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def commands() -> list[str]:
    found = []
    for page in (*PAGES, "docs/PARITY.md", "docs/CONVERTING.md"):
        for block in blocks(page, ""):
            found += [
                line.partition("  #")[0].strip() for line in block.splitlines() if line.startswith("vila-engine ")
            ]
    return found


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    words = shlex.split(line.replace("...", ""))[1:]
    assert cli._parser().parse_args(words).run is not None


def test_the_commands_of_the_readme_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for line in commands():
        words = shlex.split(line)[1:]
        if words[0] != "describe":
            continue
        assert cli.main([*words, "--max-new-tokens", "4"]) == 0
        ran += 1
    assert ran == 2
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("page", PAGES)
def test_cpp_examples_compile(page: str, tmp_path: Path) -> None:
    (example,) = blocks(page, "cpp")
    if "int main" not in example:  # the short form: statements behind the include
        include, _, body = example.partition("\n\n")
        start = f"#include <iostream>\n#include <span>\n{include}\nvoid ask(std::span<const std::byte> bytes) {{\n"
        example = start + body + "\n}\n"
    (tmp_path / "vila").mkdir()
    version = (ROOT / "cpp/include/vila/version.h.in").read_text(encoding="utf-8")
    (tmp_path / "vila" / "version.h").write_text(re.sub(r"@\w+@", "0", version), encoding="utf-8")
    source = tmp_path / "example.cpp"
    source.write_text(example, encoding="utf-8")
    command = [
        "c++",
        "-std=c++20",
        "-Wall",
        "-Werror",
        "-fsyntax-only",
        "-I",
        str(ROOT / "cpp/include"),
        "-I",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_of_the_readme_is_what_parity_prints() -> None:
    """Its rows and columns; the figures are those of the machine that printed it, within the bounds."""
    (table,) = [block for block in blocks("README.md", "") if block.startswith("variant")]
    rows = [line.split() for line in table.splitlines()[1:-1]]
    assert sorted(row[0] for row in rows) == sorted(path.parent.name for path in GOLDEN.glob("*/checkpoint"))
    assert "!" not in table.splitlines()[-1].replace("(marked !)", "")
    assert table.splitlines()[-1].endswith("0 with a broken bound (marked !); = is exact equality")
    assert all("!" not in row and "wrong" not in row for row in rows)
