"""The demo: bundled examples, the verdict on an answer, a follow-up from the cache, one's own picture, and honesty."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import vila_engine
from PIL import Image
from support import PICTURES
from vila_engine import IoError
from vila_engine.demo import show
from vila_engine.demo.commands import add_commands
from vila_engine.demo.examples import Example, load_examples


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["demo", *arguments])
    return int(args.run(args))


def test_ten_examples_with_a_pair_and_a_video_are_bundled() -> None:
    examples = load_examples()
    assert len(examples) == 10
    assert sum(example.video for example in examples) == 1 and sum(len(e.media) == 2 for e in examples) == 1
    for example in examples:
        assert example.question and example.expected and example.accepts(example.expected)
        for path in example.media:
            with Image.open(path) as picture:
                assert picture.size == (126, 126)


@pytest.mark.parametrize(
    ("answer", "correct"),
    [("a Red apple", True), ("The red apple.", True), ("apple", False), ("A red apple pie", False)],
)
def test_the_verdict_ignores_case_articles_and_points_only(answer: str, correct: bool) -> None:
    assert Example("?", (), False, "A red apple.").accepts(answer) is correct


def test_the_examples_run_and_print_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(folder), "--json") == 0
    examples = json.loads(capsys.readouterr().out)["examples"]
    assert len(examples) == 10
    assert all(set(row) == {"question", "media", "answer", "expected", "correct"} for row in examples)
    assert [len(row["media"]) for row in examples].count(8) == 1
    assert all(row["correct"] is False for row in examples), "the fixture's weights are random"


def test_the_bundled_model_answers_eight_of_its_ten_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)["examples"]
    right = [row for row in rows if row["correct"]]
    assert len(right) >= 8
    assert {2, 8} <= {len(row["media"]) for row in right}, "the pair of pictures and the video are among them"


def test_the_text_form_says_what_the_model_knows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(folder)) == 0
    out = capsys.readouterr().out
    assert "It does not know photographs." in out and "0 of 10 as expected" in out and "tokens/s" in out


def test_the_follow_up_takes_the_picture_from_the_cache(model: vila_engine.Model) -> None:
    example = next(example for example in load_examples() if len(example.media) == 1)
    lines: list[str] = []
    first, second = show.follow_up(model, example, lines.append)
    assert second.usage.cached_tokens >= first.usage.image_tokens > 0
    assert second.timings.image == 0 and len(lines) == 3


def test_ones_own_picture(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(str(PICTURES / "square.png"), "--model", str(folder), "--query", "What?", "--json") == 0
    assert json.loads(capsys.readouterr().out)["media"] == ["square.png"]
    with pytest.raises(IoError, match="expected a picture file"):
        run(str(tmp_path / "none.png"), "--model", str(folder))


def test_a_build_without_model_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(show, "MODEL", tmp_path / "model")
    with pytest.raises(IoError, match=r"build without one.*docs/TRAINING\.md"):
        run()
    with pytest.raises(IoError, match="bundled examples, got none"):
        load_examples(tmp_path)
