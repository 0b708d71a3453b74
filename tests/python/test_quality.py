"""The bundled model on the questions of tests/quality: as good as recorded, and the same answers as PyTorch at f32.

`python tools/quality_report.py --work DIR` renews questions and record; tools/quality_subset.py says what they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import quality_page
import quality_report
import quality_subset
from PIL import Image
from support import PICTURES
from vila_engine.convert import convert
from vila_engine.evaluate import Item, load_items
from vila_engine.evaluate.greedy import Difference, GreedyComparison
from vila_engine.evaluate.metrics import wilson
from vila_engine.evaluate.runner import Reply


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return load_items(quality_subset.FOLDER)


def test_the_questions_are_small_and_of_all_tasks(items: list[Item]) -> None:
    pictures = list(quality_subset.FOLDER.glob("*.webp"))
    assert sum(path.stat().st_size for path in pictures) < 2_000_000
    assert {path for item in items for path in item.images} == set(pictures)
    assert len(items) == 600 and len({item.task for item in items}) == 12
    assert not {item.split for item in items} & {"unseen_artist", "photograph"}


@pytest.mark.slow
def test_the_bundled_model_is_as_good_as_recorded(items: list[Item]) -> None:
    """The engine gives the same bits on every machine, so the count should be equal; a change of arithmetic may turn
    close answers either way, but not below the lower end of the 95 % interval of the recorded share.
    """
    recorded = json.loads((quality_subset.FOLDER / "recorded.json").read_text(encoding="utf-8"))
    assert recorded["questions"] == len(items)
    right = quality_subset.count_right(items, quality_subset.replies_of(quality_report.BUNDLED, items))
    assert right >= wilson(recorded["right"], len(items))[0] * len(items), f"{recorded['right']} were right"


@pytest.mark.slow
def test_pytorch_and_the_engine_at_f32_give_the_same_answers(items: list[Item], tmp_path: Path) -> None:
    """Token by token; only where PyTorch is undecided within rounding may the engine choose the other one."""
    pytest.importorskip("torch", reason="the reference needs PyTorch (extra: train)")
    pytest.importorskip("sentencepiece", reason="the reference needs SentencePiece (extra: train)")
    from vila_engine.train.reference import TorchModel

    convert(quality_report.MASTER, tmp_path / "f32", weights="f32", conv_mode="vicuna_v1_nosys")
    engine = quality_subset.replies_of(tmp_path / "f32", items, "f32")
    torch_model = TorchModel(quality_report.MASTER, threads=1)
    batches = [items[at : at + torch_model.batch] for at in range(0, len(items), torch_model.batch)]
    answers = [reply for batch in batches for reply in torch_model.replies(batch, False)]
    reference = {item.id: reply for item, reply in zip(items, answers, strict=True)}
    found = GreedyComparison(items, rows(reference), rows(engine)).differences(torch_model.next_logits)
    assert [difference for difference in found if difference.margin > quality_page.ROUNDING] == []
    assert len(found) <= 0.01 * len(items), "draws are rare"


def rows(replies: dict[str, Reply]) -> dict[str, dict[str, object]]:
    return {name: {"ids": reply.token_ids, "text": reply.text} for name, reply in replies.items()}


def question(name: str, answer: str, *images: Path, split: str = "seen") -> Item:
    return Item(name, "count", split, images, False, "How many?", answer)


def test_the_subset_takes_the_smallest_of_each_answer_first(tmp_path: Path) -> None:
    sizes = {"a": 30, "b": 10, "c": 20, "d": 40, "e": 5}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    answers = {"a": "1", "b": "1", "c": "1", "d": "2"}
    asked = [question(name, answer, tmp_path / name) for name, answer in answers.items()]
    asked.append(question("e", "3", tmp_path / "e", split="unseen_artist"))
    assert [item.id for item in quality_subset.choose(asked, 2)] == ["b", "d"]
    assert [item.id for item in quality_subset.choose(asked, 3)] == ["b", "c", "d"]


def test_the_subset_has_the_pixels_of_the_frozen_set(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    (source / "square.png").write_bytes((PICTURES / "square.png").read_bytes())
    row = {"id": "x", "task": "count", "split": "seen", "images": ["square.png"], "question": "?", "answer": "1"}
    (source / "questions.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = quality_subset.write(source, tmp_path / "subset")
    one, other = (np.asarray(Image.open(p).convert("RGB")) for p in (source / "square.png", item.images[0]))
    assert item.images[0].suffix == ".webp" and np.array_equal(one, other)


def test_parts_keep_questions_about_one_picture_together() -> None:
    one, other = Path("one.png"), Path("other.png")
    asked = [question("a", "", one), question("b", "", one), question("c", "", other), question("d", "")]
    asked.append(question("e", ""))
    parts = [[item.id for item in quality_report.part_of(asked, part, 2)] for part in range(2)]
    assert parts == [["a", "b", "d"], ["c", "e"]]


def test_other_files_are_another_state(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = quality_report.digest([tmp_path / "a"], 20)
    assert before == quality_report.digest([tmp_path / "a"], 20) != quality_report.digest([tmp_path / "a"], 21)
    (tmp_path / "a").write_text("2")
    assert before != quality_report.digest([tmp_path / "a"], 20)


def facts(differences: list[Difference]) -> quality_page.Facts:
    """Four questions and a photograph; int4 gets one wrong, and none right that was wrong before."""
    asked = [question(name, "1") for name in "abcd"] + [question("e", "1", split="photograph")]

    def row(item: Item, score: float, **figures: object) -> dict[str, object]:
        shared = {"id": item.id, "task": item.task, "split": item.split, "text": "1", "gold": "1", "ids": [1]}
        return {**shared, "score": score, "nll": 1.0, "tokens": 2, **figures}

    wrong = {"e"}, {"a", "e"}
    first = {item.id: row(item, float(item.id not in wrong[0])) for item in asked}
    last = {item.id: row(item, float(item.id not in wrong[1]), kl=0.25, flipped=item.id == "a") for item in asked}
    runs = {"fp32": first, "int4": last}
    return quality_page.Facts(asked, runs, differences, {"int4": 12_000_000}, "w" * 12, "q" * 12, True)


def test_the_page_counts_what_the_rows_say(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib (extra: train)")
    pytest.importorskip("torch", reason="the page names the version of PyTorch")
    quality_page.write(facts([]), tmp_path)
    text = (tmp_path / "QUALITY.md").read_text(encoding="utf-8")
    assert "5 of 5 greedy answers have the same tokens." in text
    assert "| engine, int4 | 12.0 | 75.0 (30.1 to 95.4) | 25.00 (0.00 to 75.00) | 1 / 0 | 1.000 | 0.5000" in text
    assert "| count | photograph | 1 | 0.0 (0.0 to 79.3) | 0.0 (0.0 to 79.3) |" in text
    assert "| all | all | 4 | 100.0 (51.0 to 100.0) | 75.0 (30.1 to 95.4) |" in text
    for chart in ("quality-tasks.png", "quality-formats.png"):
        with Image.open(tmp_path / chart) as picture:
            assert picture.width == 900


def test_the_page_lists_every_difference_and_says_which_are_no_rounding() -> None:
    asked = facts([]).items
    found = [Difference(asked[0], ("1", "2|3"), 0, (4, 5), 0.5), Difference(asked[1], ("1", "2"), 1, (4, 5), 1e-6)]
    text = quality_page.greedy_section(facts(found))
    assert "3 of 5 greedy answers" in text and "1 of these margins are above 0.001" in text
    assert "| `a` | How many? | 1 | 1 | 2\\|3 | 1 | 5.0e-01 |" in text and "| 1.0e-06 |" in text
