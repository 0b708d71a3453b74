"""The tools around conversion: checkpoints with random weights, and the memory that converting and running take."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import convert_helpers as h
import measure_memory
import numpy as np
import pytest
import random_checkpoint
import vila_engine
from random_checkpoint import SHAPES, Llm, Shape, Vision, write_checkpoint
from random_tokenizer import write_tokenizer
from vila_engine import _core
from vila_engine.convert import convert
from vila_engine.convert.conversion import BLOCK_BYTES
from vila_engine.convert.tokenizers import read_tokenizer, spec_to_tensors, tensors_to_spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sentencepiece
    import tokenizers

TINY = SHAPES["tiny"]
PUBLISHED = {  # width, layers, heads, heads of keys and values, feed-forward width, vocabulary
    "3b": (2560, 32, 20, 20, 6912, 32000),
    "3b-s2": (2560, 32, 20, 20, 6912, 32000),
    "8b": (4096, 32, 32, 8, 14336, 128257),
    "13b": (5120, 40, 40, 40, 13824, 32000),
    "40b": (7168, 60, 56, 8, 20480, 64000),
}
INTERN = Vision("intern_vit", 50, 2, 5, 64, 56, 14, -1)
KINDS = {
    "llama_2": TINY,
    "s2": replace(TINY, scales=(56, 112)),
    "llama_3": Shape(Llm(64, 1, 4, 2, 96, 600, 5e5, "llama_3"), TINY.vision),
    "yi": Shape(Llm(64, 1, 4, 1, 96, 512, 5e6, "yi"), INTERN),
}
MODES = {"llama_2": "vicuna_v1", "s2": "vicuna_v1", "llama_3": "llama_3", "yi": "hermes-2"}


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool as a user does."""
    tool = Path(random_checkpoint.__file__).with_name(name)
    return subprocess.run(
        [sys.executable, str(tool), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_shapes_are_the_published_ones() -> None:
    for name, numbers in PUBLISHED.items():
        c = SHAPES[name].llm
        assert (c.dim, c.layers, c.heads, c.kv_heads, c.ffn, c.vocab) == numbers
        assert c.dim // c.heads == 128
        tower = SHAPES[name].vision
        assert (tower.dim, tower.layers, tower.heads) == ((3200, 45, 25) if name == "40b" else (1152, 27, 16))
    sizes = {name: sum(t.n_bytes for t in random_checkpoint.llm_tensors(SHAPES[name].llm)) / 2e9 for name in PUBLISHED}
    assert {name: round(size, 1) for name, size in sizes.items()} == {
        "3b": 2.7,
        "3b-s2": 2.7,
        "8b": 8.0,
        "13b": 13.0,
        "40b": 34.4,
    }


def test_from_the_command_line_to_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    done = run_tool("random_checkpoint.py", "tiny", "-o", str(folder), "--shard-gb", "0.0002", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "MB of weights" in done.stdout
    assert len(list(folder.glob("llm/model-*-of-*.safetensors"))) > 1
    before = h.tree(folder)
    again = run_tool("random_checkpoint.py", "tiny", "-o", str(folder))
    assert again.returncode == 1
    assert "expected a new folder, got an existing one" in again.stderr
    assert h.tree(folder) == before
    convert(folder, tmp_path / "model")
    picture = np.zeros((20, 30, 3), np.uint8)
    with vila_engine.load(tmp_path / "model", threads=1) as model:
        answer = model.generate("<image>\nWhat is this?", images=[picture], max_new_tokens=4, ignore_eos=True)
    assert len(answer.token_ids) == 4
    assert answer.usage.image_tokens == 4


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_converts_and_runs(kind: str, tmp_path: Path) -> None:
    shape = KINDS[kind]
    write_checkpoint(tmp_path / "c", shape, dtype="float16")
    report = convert(tmp_path / "c", tmp_path / "m")
    assert report.conv_mode == MODES[kind]
    assert not any("padding" in note for note in report.notes)
    with vila_engine.load(tmp_path / "m", threads=1) as model:
        assert model.info["llm"]["vocab_size"] == shape.llm.vocab
        picture = np.zeros((20, 30, 3), np.uint8)
        assert len(model.generate("hello", images=[picture], max_new_tokens=4, ignore_eos=True).token_ids) == 4
        text = "the quick brown fox, 12 jumps! Grüße"
        ids = model.tokenizer.encode(text)
        assert model.tokenizer.decode(ids).strip() == text
        assert len(ids) < len(text)  # pieces of letters are merged


def first_logits(folder: Path) -> np.ndarray:
    """Logits of a short prompt with a picture."""
    with vila_engine.load(folder, threads=1) as model:
        return model.logits("<image>\nhello", images=[np.full((20, 30, 3), 77, np.uint8)])


def test_an_identity_projector(tmp_path: Path) -> None:
    """It has no weights; the tower's rows are the language model's."""
    shape = replace(TINY, llm=replace(TINY.llm, dim=TINY.vision.dim))
    write_checkpoint(tmp_path / "c", shape)
    h.edit_json(tmp_path / "c" / "mm_projector" / "config.json", mm_projector_type="identity")
    (tmp_path / "c" / "mm_projector" / "model.safetensors").unlink()
    convert(tmp_path / "c", tmp_path / "m", weights="f32")
    with vila_engine.load(tmp_path / "m", threads=1) as model:
        picture = np.zeros((20, 30, 3), np.uint8)
        np.testing.assert_array_equal(model.encode_image(picture), model.vision_features(picture))


def test_tied_embeddings_are_written_out(tmp_path: Path) -> None:
    """The same numbers as a head of its own give the same logits."""
    write_checkpoint(tmp_path / "c", TINY)

    def copy_head(tensors: h.Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    def drop_head(tensors: h.Tensors) -> None:
        del tensors["lm_head.weight"]

    h.edit_safetensors(tmp_path / "c" / "llm" / "model.safetensors", copy_head)
    convert(tmp_path / "c", tmp_path / "untied")
    h.edit_safetensors(tmp_path / "c" / "llm" / "model.safetensors", drop_head)
    with pytest.raises(_core.CheckpointError, match=r"llm: missing lm_head\.weight"):
        convert(tmp_path / "c", tmp_path / "refused")
    h.edit_json(tmp_path / "c" / "llm" / "config.json", tie_word_embeddings=True)
    convert(tmp_path / "c", tmp_path / "tied")
    np.testing.assert_array_equal(first_logits(tmp_path / "tied"), first_logits(tmp_path / "untied"))


def test_weights_depend_on_seed_and_name_only(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", TINY, seed=1)
    write_checkpoint(tmp_path / "b", TINY, seed=1, shard_bytes=200_000)
    write_checkpoint(tmp_path / "c", TINY, seed=2)
    first, second, other = (h.published_llm(tmp_path / name) for name in "abc")
    assert first.keys() == second.keys() == other.keys()
    for name, raw in first.items():
        np.testing.assert_array_equal(raw.values, second[name].values)
        assert not np.array_equal(raw.values, other[name].values)


def test_weights_have_the_spread_that_they_should(tmp_path: Path) -> None:
    """65,536 and more normal numbers: mean and deviation within five standard errors and bf16's rounding."""
    write_checkpoint(tmp_path / "c", replace(TINY, llm=replace(TINY.llm, vocab=4096)))
    head = h.published_llm(tmp_path / "c")["lm_head.weight"].as_f32()
    n = head.size
    assert abs(head.mean() * 8) < 5 / n**0.5
    assert abs(head.std() * 8 - 1) < 5 / (2 * n) ** 0.5 + 2.0**-9


@pytest.mark.parametrize("kind", ["llama_2", "yi"])
def test_the_sentencepiece_model_is_one(kind: str, tmp_path: Path) -> None:
    ids = write_tokenizer(tmp_path, kind, 3000)  # type: ignore[arg-type]
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert oracle.vocab_size() == 3000
    assert oracle.unk_id() == ids["pad"]
    ours = _core.Tokenizer.from_spec(tensors_to_spec(*spec_to_tensors(read_tokenizer(tmp_path))))
    for text in ("hello world", "a  b", "Zebra 99", "naïve ☃", "abcdefghij klm"):
        found = ours.encode(text, add_special=False)
        assert found == oracle.encode(text)


def test_the_byte_level_tokenizer_is_one(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama_3", 3000)
    oracle = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert oracle.get_vocab_size() == 3000
    ours = _core.Tokenizer.from_spec(tensors_to_spec(*spec_to_tensors(read_tokenizer(tmp_path))))
    for text in ("hello world", "a  b", "Zebra 99", "naïve ☃", "<|eot_id|>x", "abcdefghij klm"):
        assert ours.encode(text, add_special=False) == oracle.encode(text, add_special_tokens=False).ids


def test_a_vocabulary_that_is_too_small(tmp_path: Path) -> None:
    for kind in ("llama_2", "llama_3", "yi"):
        with pytest.raises(ValueError, match="vocab_size: expected at least"):
            write_tokenizer(tmp_path, kind, 300)  # type: ignore[arg-type]


def test_a_failure_leaves_no_checkpoint(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "c", TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_converting_takes_two_blocks_of_memory(tmp_path: Path) -> None:
    """One block of rows is in memory, whatever the size of its matrix.

    It is there as stored (half a block, bf16) and as f32 (one); later as f32, as a mask of finite numbers (a quarter)
    or packed to int4 (an eighth) twice. That is a block and a half; another half is left to the allocator. The
    matrices here take three blocks as f32.
    """
    ffn = 3 * BLOCK_BYTES // 4 // 256
    write_checkpoint(tmp_path / "c", replace(TINY, llm=replace(TINY.llm, dim=256, layers=1, ffn=ffn)))
    write_checkpoint(tmp_path / "small", TINY)
    base = measure_memory.in_own_process("convert", str(tmp_path / "small"), str(tmp_path / "base"), "int4")
    large = measure_memory.in_own_process("convert", str(tmp_path / "c"), str(tmp_path / "m"), "int4")
    grown = large["VmHWM"] - base["VmHWM"]
    assert grown > BLOCK_BYTES  # else this measures nothing
    assert grown < 2 * BLOCK_BYTES


def test_memory_is_measured_and_judged(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", TINY)
    done = run_tool("measure_memory.py", str(tmp_path / "c"), "--scratch", str(tmp_path / "s"), "--weights", "int4")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| int4")]
    assert len(rows) == 3
    assert rows[1].endswith("| yes |")
    assert json.loads((tmp_path / "s" / "int4" / "config.json").read_text())["format"] == "vila_engine"


def test_a_broken_bound_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "c", TINY)
    monkeypatch.setattr(measure_memory, "ALLOWANCE", 1000)
    assert not measure_memory.measure(tmp_path / "c", tmp_path / "s", ["int4"], 2)
    assert "| no |" in capsys.readouterr().out
