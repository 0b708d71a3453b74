"""Evaluation: scorers, intervals, sharing of pictures, resuming, and figures that compare two models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vila_engine
from PIL import Image
from support import PICTURES
from vila_engine import InvalidArgument, IoError
from vila_engine.evaluate import Item, evaluate, load_items
from vila_engine.evaluate.commands import add_commands
from vila_engine.evaluate.compare import compare, mcnemar, read_run, verdicts
from vila_engine.evaluate.greedy import GreedyComparison
from vila_engine.evaluate.metrics import bootstrap, divergence, log_softmax, wilson
from vila_engine.evaluate.report import as_json, summarise, table
from vila_engine.evaluate.runner import OneByOne, Reply, gold_answer, media_of
from vila_engine.evaluate.scorers import AsGivenMatch, ExactMatch, StrictMatch, WordF1, plain

ROWS: list[dict[str, Any]] = [
    {"id": "a", "task": "name", "split": "seen", "images": ["square.png"], "question": "What is it?",
     "answer": "A cat."},
    {"id": "b", "task": "count", "split": "seen", "images": ["gray.png"], "question": "How many?", "answer": "3"},
    {"id": "c", "task": "count", "split": "seen", "images": ["square.png"], "question": "How many now?", "answer": "2"},
    {"id": "d", "task": "video", "split": "seen", "images": ["frame_0.png", "frame_1.png"], "video": True,
     "question": "What moves?", "answer": "A dog."},
    {"id": "e", "task": "text", "split": "other", "images": [], "question": "Hello?", "answer": "Hello.",
     "accepted": ["Hi"]},
]  # fmt: skip


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for row in ROWS:
        for name in row["images"]:
            (folder / name).write_bytes((PICTURES / name).read_bytes())
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def item(answer: str, *accepted: str) -> Item:
    return Item("x", "name", "seen", (), False, "?", answer, accepted)


@pytest.mark.parametrize(
    ("text", "form"),
    [("A red apple.", "red apple"), ("  the  CAT! ", "cat"), ("an", ""), ("4071", "4071"), ("no.", "no")],
)
def test_plain_form(text: str, form: str) -> None:
    assert plain(text) == form


def test_scorers() -> None:
    assert (
        ExactMatch().score(item("A cat."), "the CAT") == 1
        and ExactMatch().score(item("A cat."), "a cat and a dog") == 0
    )
    assert (
        ExactMatch().score(item("3", "three"), "Three.") == 1 and StrictMatch().score(item("3", "three"), "Three.") == 0
    )
    assert AsGivenMatch().score(item("The"), "the") == 1 and AsGivenMatch().score(item("The"), "a the") == 0
    assert WordF1().score(item("A cat above a dog."), "cat above dog") == 1
    assert WordF1().score(item("one two three"), "two three four five") == pytest.approx(
        2 * 0.5 * (2 / 3) / (0.5 + 2 / 3)
    )
    assert WordF1().score(item("cat"), "") == 0


def test_wilson_is_the_textbook_interval() -> None:
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 0) == (0, 1) and wilson(10, 10)[1] == pytest.approx(1.0) and wilson(0, 10)[0] == 0


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = bootstrap(rng.normal(3, 1, 40).tolist(), 400, trial)
        inside += low <= 3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_divergence_is_zero_for_equals_and_right_for_a_known_pair() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 30))
    p = log_softmax(logits)
    assert np.allclose(np.exp(p).sum(-1), 1) and np.allclose(divergence(p, p), 0)
    one, other = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert divergence(one, other)[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_questions_about_one_picture_come_together(questions: Path) -> None:
    items = load_items(questions)
    assert [i.id for i in items] == ["a", "c", "b", "d", "e"]
    assert [i.id for i in load_items(questions, ["count"])] == ["b", "c"]
    assert [i.id for i in load_items(questions, limit=1)] == ["a", "b", "d", "e"]


def test_errors_say_what_is_wrong(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(IoError, match=r"expected a set with questions\.jsonl"):
        load_items(tmp_path)
    with pytest.raises(InvalidArgument, match="task: expected some of count, name, text, video, got counting"):
        load_items(questions, ["counting"])
    (questions / "questions.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InvalidArgument, match=r"questions\.jsonl:1: expected a question"):
        load_items(questions)


def test_pictures_are_encoded_once(questions: Path, tmp_path: Path, model: vila_engine.Model) -> None:
    rows = {row["id"]: row for row in evaluate(model, load_items(questions), tmp_path / "out")}
    assert rows["c"]["cached_tokens"] >= rows["a"]["image_tokens"] > 0
    assert rows["b"]["cached_tokens"] < rows["a"]["cached_tokens"] + rows["c"]["cached_tokens"]
    assert len(rows) == 5


class Dying:
    """A model that is killed before its n-th answer."""

    def __init__(self, model: vila_engine.Model, answers: int) -> None:
        self.model, self.left, self.info = model, answers, model.info

    def generate(self, *args: Any, **media: Any) -> Any:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.model.generate(*args, **media)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def test_a_killed_run_goes_on(questions: Path, tmp_path: Path, model: vila_engine.Model) -> None:
    items = load_items(questions)
    whole = evaluate(model, items, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(model, 2), items, tmp_path / "broken")
    with (tmp_path / "broken" / "answers.jsonl").open("a") as stream:
        stream.write('{"id": "half')
    counted = Dying(model, 99)
    again = evaluate(counted, items, tmp_path / "broken")
    assert 99 - counted.left == 3
    assert [(row["id"], row["text"], row["score"]) for row in again] == [
        (r["id"], r["text"], r["score"]) for r in whole
    ]


class InPairs(OneByOne):
    """Answers two questions at a time and counts the batches; the reply tells the batch."""

    batch = 2

    def __init__(self, model: vila_engine.Model) -> None:
        super().__init__(model)
        self.asked: list[list[str]] = []

    def replies(self, items: Sequence[Item], quality: bool) -> list[Reply]:
        self.asked.append([item.id for item in items])
        return super().replies(items, quality)


def test_a_resumed_run_asks_the_same_batches(questions: Path, tmp_path: Path, model: vila_engine.Model) -> None:
    items = load_items(questions)
    whole, broken = InPairs(model), InPairs(model)
    rows = evaluate(whole, items, tmp_path / "out")
    assert whole.asked == [["a", "c"], ["b", "d"], ["e"]]
    path = tmp_path / "out" / "answers.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))  # the header and a, c, b
    assert evaluate(broken, items, tmp_path / "out") == rows
    assert broken.asked == [["b", "d"], ["e"]]


def test_greedy_differences_come_with_the_margin_of_the_first_that_differs() -> None:
    asked = [Item(name, "name", "seen", (), False, "?", "") for name in "pqr"]
    one = {"p": {"ids": [5, 2], "text": "a"}, "q": {"ids": [5, 6, 2], "text": "b c"}, "r": {"ids": [9, 2], "text": "d"}}
    other = {**one, "q": {"ids": [5, 2], "text": "b"}, "r": {"ids": [8, 7, 2], "text": "e f"}}
    seen = []

    def next_logits(item: Item, ids: Sequence[int]) -> np.ndarray:
        seen.append((item.id, list(ids)))
        return np.arange(10, dtype=np.float32) * (0.5 if item.id == "q" else 3.0)

    found = GreedyComparison(asked, one, other).differences(next_logits)
    assert [(d.item.id, d.place, d.tokens, d.texts, d.margin) for d in found] == [
        ("r", 0, (9, 8), ("d", "e f"), 3.0),
        ("q", 1, (6, 2), ("b c", "b"), 2.0),
    ]
    assert seen == [("q", [5]), ("r", [])]
    assert GreedyComparison(asked, one, one).differences(next_logits) == []
    with pytest.raises(InvalidArgument, match=r"all 3 questions, got none to \['p'\]"):
        GreedyComparison(asked, {key: one[key] for key in "qr"}, one)


def test_another_run_in_the_same_folder_is_refused(questions: Path, tmp_path: Path, model: vila_engine.Model) -> None:
    evaluate(model, load_items(questions, ["text"]), tmp_path / "out")
    with pytest.raises(InvalidArgument, match="choose another output folder"):
        evaluate(model, load_items(questions), tmp_path / "out")


def test_the_likelihood_is_that_of_the_models_own_answer(
    questions: Path, tmp_path: Path, model: vila_engine.Model
) -> None:
    asked = load_items(questions, ["name"])[0]
    result = model.generate([{"role": "user", "content": asked.question}], **media_of(asked), max_new_tokens=12)
    said = [piece for piece in model.tokenizer.encode(result.text, add_special=False)]
    own = Item("own", "name", "seen", asked.images, False, asked.question, result.text)
    gold = gold_answer(model, own, media_of(own))
    stream = model.stream([{"role": "user", "content": asked.question}], **media_of(asked), max_new_tokens=12)
    expected = [piece.logprob for piece in stream]
    assert gold.tokens == len(said) + 1  # the end of the answer is part of it
    shared = min(len(expected), len(said))
    if said[:shared] == result.token_ids[:shared]:
        rows = gold.log_probabilities[np.arange(shared), said[:shared]]
        assert np.allclose(rows, expected[:shared], atol=2e-3)
    assert np.allclose(np.exp(gold.log_probabilities).sum(-1), 1)


def test_a_model_does_not_differ_from_itself(questions: Path, tmp_path: Path, model: vila_engine.Model) -> None:
    items = load_items(questions)
    evaluate(model, items, tmp_path / "one", quality=True)
    rows = evaluate(model, items, tmp_path / "two", quality=True, reference=tmp_path / "one")
    assert all(row["kl"] < 1e-9 and row["flipped"] is False and row["nll"] > 0 for row in rows)


def test_int4_differs_from_f32(questions: Path, tmp_path: Path, model: vila_engine.Model, converted: Any) -> None:
    items = load_items(questions)
    evaluate(model, items, tmp_path / "f32", quality=True)
    with vila_engine.load(converted("vila3b", "int4")) as coarse:
        rows = evaluate(coarse, items, tmp_path / "int4", quality=True, reference=tmp_path / "f32")
    assert all(row["kl"] > 1e-7 for row in rows)


def test_mcnemar_is_the_sign_test_of_the_changes() -> None:
    assert mcnemar([True] * 5, [True] * 5) == 1
    assert mcnemar([True] * 6 + [False], [False] * 6 + [False]) == pytest.approx(2 / 2**6)
    assert mcnemar([True, False], [False, True]) == 1
    lost, won = [True] * 9 + [False], [False] * 9 + [True]
    assert mcnemar(lost, won) == pytest.approx(2 * (1 + 10) / 2**10)


def test_runs_side_by_side(
    questions: Path, tmp_path: Path, model: vila_engine.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    items = load_items(questions)
    evaluate(model, items, tmp_path / "one", quality=True)
    evaluate(model, items, tmp_path / "two", quality=True, reference=tmp_path / "one")
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    args = parser.parse_args(["eval-compare", *runs, "-o", str(tmp_path / "table.md")])
    assert args.run(args) == 0
    text = (tmp_path / "table.md").read_text()
    assert text == capsys.readouterr().out and "| p against one (McNemar) |  | - | 1.000 |" in text
    assert "| answers that flipped |  | - | 0.00 % |" in text and text.count("\n") == 2 + 5 + 4

    lines = (tmp_path / "two" / "answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "answers.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InvalidArgument, match="expected 5 answers, got 4"):
        args.run(args)
    evaluate(model, load_items(questions, ["text"]), tmp_path / "three")
    with pytest.raises(InvalidArgument, match="expected the 5 questions of one, got 1 of which 1"):
        compare({name: read_run(tmp_path / name) for name in ("one", "three")})
    with pytest.raises(IoError, match=r"answers\.jsonl, got none"):
        read_run(tmp_path)


def test_the_report_adds_up() -> None:
    same = {"task": "name", "split": "seen", "text": "", "gold": "", "extra": 1.0, "nll": 2.0, "tokens": 2, "kl": 0.5}
    counts = {"image_tokens": 4, "cached_tokens": 2}
    rows = [{"id": str(i), "score": float(i < 6), "flipped": i < 2, **same, **counts} for i in range(8)]
    lines = summarise(rows)
    assert [(line.task, line.count, line.score) for line in lines] == [("name", 8, 0.75), ("all", 8, 0.75)]
    assert lines[0].extra_measure == "keyword match" and lines[0].extra == 1.0
    assert lines[0].nll == (1.0, 1.0, 1.0) and lines[0].flips is not None and lines[0].flips[0] == 0.25
    report = as_json(lines, rows, {"source": "m"})
    assert report["picture_tokens"] == 32 and report["cached_tokens"] == 16 and report["lines"][0]["kl"][0] == 0.5
    assert "75.0 %" in table(lines) and "25.0 %" in table(lines) and "KL" in table(lines)
    assert "KL" not in table(summarise([{k: v for k, v in row.items() if k != "kl"} for row in rows]))
    assert summarise([]) == []


def test_photographs_have_a_line_but_no_part_in_the_total() -> None:
    def row(name: str, split: str, score: float) -> dict[str, Any]:
        return {"id": name, "task": "name", "split": split, "text": "", "gold": "", "score": score}

    rows = [row("a", "seen", 1.0), row("b", "seen", 1.0), row("c", "photograph", 0.0)]
    scores = {(line.task, line.split): (line.count, line.score) for line in summarise(rows)}
    assert scores == {("name", "photograph"): (1, 0.0), ("name", "seen"): (2, 1.0), ("all", "all"): (2, 1.0)}
    assert summarise(rows[2:])[-1].count == 1, "a set of photographs alone has a total"
    other = [{**r, "score": 1.0 - r["score"]} for r in rows]
    assert verdicts({r["id"]: r for r in rows}, {r["id"]: r for r in other}) == ([True, True], [False, False])


def test_the_command_writes_report_table_and_chart(
    questions: Path, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["eval", str(folder), "--set", str(questions), "-o", str(tmp_path / "out"), "--json"])
    assert args.run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "report.json").read_text())
    assert {line["task"] for line in printed["lines"]} == {"name", "count", "video", "text", "all"}
    assert "| task" in (tmp_path / "out" / "report.md").read_text()
    with Image.open(tmp_path / "out" / "chart.png") as chart:
        assert chart.width == 900 and len(chart.getcolors(1 << 20) or []) > 3


def test_the_command_needs_the_extra_for_torch(questions: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["eval", "m", "--set", str(questions), "-o", str(tmp_path / "o"), "--torch"])
    with pytest.raises(ImportError, match="train"):
        args.run(args)
