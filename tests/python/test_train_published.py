"""The PyTorch model of training and our engine are the same model: ids, logits and greedy answers agree."""

# ruff: noqa: E402 - skips come before imports that may fail
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch (extra: train)")
pytest.importorskip("sentencepiece", reason="training needs SentencePiece (extra: train)")
import vila_engine
from test_train_world import make_world
from vila_engine.convert import convert
from vila_engine.evaluate import load_items
from vila_engine.evaluate.runner import OneByOne
from vila_engine.train.config import Plan, StageConfig
from vila_engine.train.evalset import write_eval_set
from vila_engine.train.language import LanguageTask
from vila_engine.train.layout import TRAIN
from vila_engine.train.loop import Batch, make_state, train_step
from vila_engine.train.models import IMAGE_ID, Llama, LlmConfig, Vila, VilaConfig, VisionConfig
from vila_engine.train.multimodal import (
    MIX,
    TRAINED,
    Example,
    Packer,
    Painter,
    StageTask,
    encode_pictures,
    freeze,
)
from vila_engine.train.published import export_folder, import_folder, read_config
from vila_engine.train.reference import TorchModel
from vila_engine.train.stages import current_model, run_plan
from vila_engine.train.tasks import PICTURE_TASKS, Sample
from vila_engine.train.texts import text_task
from vila_engine.train.tokenizer import Tokenizer, conversation, train_tokenizer
from vila_engine.train.world import World

CONFIG = VilaConfig(VisionConfig(64, 128, 2, 2, 126, 14), LlmConfig(64, 96, 2, 2, 1, 640, max_position_embeddings=512))
TASKS = {**PICTURE_TASKS, "text": text_task}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), 20)


@pytest.fixture(scope="module")
def tokenizer(world: World) -> Tokenizer:
    return train_tokenizer(world, CONFIG.llm.vocab_size, 0, documents=300)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    model = Vila(CONFIG)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases too, or their mix-up would go unseen
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.llm.model.embed_tokens.weight.data *= 10
    folder = tmp_path_factory.mktemp("published") / "tiny"
    export_folder(model, tokenizer, folder, "fp32")
    return folder


@pytest.fixture(scope="module")
def engine(published: Path) -> Iterator[vila_engine.Model]:
    convert(published, published.parent / "engine", weights="f32", conv_mode="vicuna_v1_nosys")
    with vila_engine.load(published.parent / "engine", kv_cache="f32") as model:
        yield model


def sample_of(world: World, task: str, seed: int) -> Sample:
    return TASKS[task](world, np.random.default_rng(seed), TRAIN)


def messages_of(sample: Sample) -> list[vila_engine.ChatMessage]:
    """All turns but the last answer."""
    messages: list[vila_engine.ChatMessage] = []
    for turn in sample.turns:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    return messages[:-1]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_prompts_have_the_ids_of_the_engine(
    world: World, tokenizer: Tokenizer, engine: vila_engine.Model, task: str
) -> None:
    for seed in range(12):
        sample = sample_of(world, task, seed)
        encoded = conversation(tokenizer, sample)
        media = {"videos": [len(sample.scenes)]} if sample.video else {"images": len(sample.scenes)}
        ids = engine.prompt_ids(messages_of(sample), **media)  # type: ignore[arg-type]
        assert encoded.ids[: len(ids)] == ids
        assert tokenizer.decode(encoded.ids[len(ids) :]) == sample.turns[-1].answer
        assert engine.tokenizer.decode(encoded.ids[len(ids) :]).strip() == sample.turns[-1].answer
        learnt = [label for label in encoded.labels if label >= 0]
        assert learnt.count(tokenizer.eos) == len(sample.turns)


@pytest.mark.parametrize("task", ["name", "changed", "video", "in-context", "easy-vqa", "text"])
def test_logits_and_greedy_answers_agree(world: World, published: Path, engine: vila_engine.Model, task: str) -> None:
    reference = TorchModel(published, threads=1)
    sample = sample_of(world, task, 3)
    painter = Painter(world, CONFIG.vision.image_size)
    pictures = [painter.paint(scene) for scene in sample.scenes]
    media = {"videos": [pictures]} if sample.video else {"images": pictures}
    messages = messages_of(sample)
    expected = reference.logits(messages, **media)
    found = engine.logits(messages, **media)  # type: ignore[arg-type]
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.5, "logits too small to say anything"
    assert np.abs(found - expected).max() < 5e-4
    result = engine.generate(messages, max_new_tokens=8, **media)  # type: ignore[arg-type]
    answer = reference.generate(messages, max_new_tokens=8, **media)
    assert (answer.text, answer.token_ids) == (result.text, result.token_ids)


def test_questions_asked_together_are_answered_as_alone(world: World, published: Path, tmp_path: Path) -> None:
    """Other lengths, no picture, two, eight, and a gold answer that is what the model says, so that nothing is left."""
    write_eval_set(world, tmp_path, CONFIG.vision.image_size, 1, vqa=1)
    items = load_items(tmp_path, splits=["seen", "test"])
    reference = TorchModel(published, threads=1)
    own = OneByOne(reference).replies(items[:1], False)[0]
    items.append(dataclasses.replace(items[0], answer=own.text))
    together, alone = reference.replies(items, True), OneByOne(reference).replies(items, True)
    for item, one, other in zip(items, together, alone, strict=True):
        assert (one.text, one.token_ids) == (other.text, other.token_ids), item.id
        assert one.gold is not None and other.gold is not None
        assert one.gold.nll == pytest.approx(other.gold.nll, abs=1e-4)
        assert np.abs(one.gold.log_probabilities - other.gold.log_probabilities).max() < 1e-4
        beginning = one.token_ids[: len(one.token_ids) // 2]
        assert int(reference.next_logits(item, beginning).argmax()) == one.token_ids[len(beginning)]


def packed(examples: list[Example], rows: int, length: int) -> Batch:
    packer = Packer(rows, length, sum(len(pictures) for _, pictures in examples), 25, side=126)
    assert all(packer.add(example) for example in examples)
    return packer.batch()


def examples_of(world: World, tokenizer: Tokenizer, tasks: Sequence[str]) -> list[Example]:
    painter = Painter(world, CONFIG.vision.image_size)
    samples = [sample_of(world, task, 5) for task in tasks]
    return [(conversation(tokenizer, sample), [painter.paint(scene) for scene in sample.scenes]) for sample in samples]


def test_packed_conversations_do_not_see_each_other(world: World, published: Path) -> None:
    model, tokenizer = import_folder(published)
    examples = examples_of(world, tokenizer, ("name", "video", "text", "changed", "name"))
    task = StageTask(StageConfig("sft", 1, 4, 1e-3), world, tokenizer, CONFIG, seed=0)
    with torch.no_grad():
        together = task.loss(model, packed(examples, 2, 384))[0]
        weights = [sum(label >= 0 for label in encoded.labels) for encoded, _ in examples]
        alone = [task.loss(model, packed([example], 1, 384))[0] for example in examples]
    mean = sum(w * float(a) for w, a in zip(weights, alone, strict=True)) / sum(weights)
    assert float(together) == pytest.approx(mean, abs=2e-5)


def test_a_full_batch_takes_nothing_more(world: World, tokenizer: Tokenizer) -> None:
    (example,) = examples_of(world, tokenizer, ("changed",))
    needed = len(example[0].ids) + 2 * 24
    packer = Packer(2, needed + 5, 5, 25, side=126)
    assert packer.add(example) and packer.add(example) and not packer.add(example)
    batch = packer.batch()
    assert batch["document"].tolist() == [[i] * needed + [-1] * 5 for i in range(2)]
    assert batch["source"][1][batch["source"][1] >= 0].tolist() == list(range(50, 100))
    few = Packer(2, needed, 3, 25, side=126)
    assert few.add(example) and not few.add(example), "pictures run out before tokens"
    with pytest.raises(vila_engine.InvalidArgument, match=f"at most {needed - 1} tokens and 5 pictures, got {needed}"):
        Packer(2, needed - 1, 5, 25, side=126).add(example)


def test_what_was_written_is_read_back(published: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, again = import_folder(published)
    assert model.config == CONFIG and again.model == tokenizer.model
    export_folder(model, again, tmp_path / "copy", "fp32")
    for name in ("llm/model.safetensors", "vision_tower/model.safetensors", "config.json", "llm/config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (published / name).read_bytes()


def test_fp16_rounds_and_nothing_else(published: Path, tmp_path: Path) -> None:
    model, tokenizer = import_folder(published)
    export_folder(model, tokenizer, tmp_path / "half", "fp16")
    half, _ = import_folder(tmp_path / "half")
    for (name, a), b in zip(model.state_dict().items(), half.state_dict().values(), strict=True):
        assert torch.equal(a.half().float(), b), name


def test_another_architecture_is_refused(published: Path, tmp_path: Path) -> None:
    for part in ("", "llm", "vision_tower", "mm_projector"):
        (tmp_path / part).mkdir(exist_ok=True)
        values = json.loads((published / part / "config.json").read_text())
        values.update({"mm_projector_type": "linear"} if part == "mm_projector" else {})
        (tmp_path / part / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"mlp_downsample.*linear"):
        read_config(tmp_path)


@pytest.mark.parametrize("stage", ["align", "pretrain", "sft"])
def test_a_stage_changes_its_parts_only(world: World, tokenizer: Tokenizer, stage: str) -> None:
    torch.manual_seed(0)
    model = Vila(CONFIG)
    freeze(model, stage, {})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = StageConfig(stage, 4, 4, 1e-3)
    task = StageTask(StageConfig(stage, 1, 4, 1e-3), world, tokenizer, CONFIG, seed=0)
    state = make_state(model, config)
    losses = [train_step(state, task, task.batch(0), config, False)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(TRAINED[stage])


def test_batches_are_a_pure_function_of_seed_and_index(world: World, tokenizer: Tokenizer) -> None:
    for stage in ("align", "pretrain", "sft"):
        first, second = (
            StageTask(StageConfig(stage, 1, 5, 1e-3), world, tokenizer, CONFIG, seed=7).batch(3) for _ in range(2)
        )
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        other = StageTask(StageConfig(stage, 1, 5, 1e-3), world, tokenizer, CONFIG, seed=7).batch(4)
        assert not torch.equal(first["ids"], other["ids"])
    rows = LanguageTask(world, tokenizer, 7, 3, 64)
    assert torch.equal(rows.batch(2)["ids"], rows.batch(2)["ids"]) and rows.batch(2)["ids"].shape == (3, 65)


def test_the_language_stage_learns(world: World, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Llama(CONFIG.llm)
    config = StageConfig("language", 12, 8, 5e-3, warmup=0.0)
    task = LanguageTask(world, tokenizer, 0, 8, 64)
    state = make_state(model, config)
    losses = [train_step(state, task, task.batch(i), config, False)["loss"] for i in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_pictures_are_encoded_once_and_in_order(world: World, published: Path) -> None:
    model, _ = import_folder(published)
    pictures = torch.randint(0, 255, (3, 126, 126, 3), dtype=torch.uint8)
    with torch.no_grad():
        rows = encode_pictures(model, pictures)
        alone = encode_pictures(model, pictures[1:2])
    assert rows.shape == (75, 64) and torch.allclose(rows[25:50], alone, atol=1e-5)
    assert encode_pictures(model, pictures[:0]).shape == (0, 64)


def test_the_mix_is_a_distribution_over_all_tasks() -> None:
    assert sum(MIX.values()) == pytest.approx(1.0) and set(MIX) == set(TASKS)


def test_all_stages_run_one_after_the_other(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vila_engine.train.stages.build_world", lambda *_: world)
    monkeypatch.setattr(
        "vila_engine.train.stages.train_tokenizer", lambda w, size, seed: train_tokenizer(w, size, seed, 300)
    )
    names = ("vision-small", "vision", "language", "align", "pretrain", "sft")
    stages = tuple(StageConfig(name, 2, 2, 1e-3, image_size=42 if name == "vision-small" else 0) for name in names)
    plan = Plan(CONFIG, stages, threads=1, workers=0, device="cpu")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
    run_plan(folder)
    assert all((folder / name / "final.pt").exists() for name in names)
    model, _ = current_model(folder)
    exported, _ = import_folder(folder / "model")
    assert all(torch.equal(a.half().float(), b)
               for a, b in zip(model.state_dict().values(), exported.state_dict().values(), strict=True))  # fmt: skip
    onward = dataclasses.replace(plan, start=str(folder / "model"), stages=(StageConfig("sft", 1, 2, 1e-3),))
    (tmp_path / "onward").mkdir()
    (tmp_path / "onward" / "plan.json").write_text(json.dumps(dataclasses.asdict(onward)))
    run_plan(tmp_path / "onward")
    assert read_config(tmp_path / "onward" / "model") == CONFIG


def test_marks_are_where_the_pictures_go(world: World, tokenizer: Tokenizer) -> None:
    sample = sample_of(world, "in-context", 0)
    ids = conversation(tokenizer, sample).ids
    assert ids.count(IMAGE_ID) == 3 and ids[0] == tokenizer.bos
