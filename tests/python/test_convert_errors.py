"""Damaged, contradictory and foreign checkpoints: typed errors that list everything, before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import convert_helpers as h
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vila_engine import _core
from vila_engine.convert import convert
from vila_engine.convert.folders import read_folder
from vila_engine.convert.tokenizers import read_tokenizer, spec_to_tensors

SMALL = "linear_bias_fp32"
UP = "model.layers.0.mlp.up_proj.weight"
TYPED = (_core.CheckpointError, _core.UnsupportedError)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(checkpoint: Path, error: type[Exception] = _core.CheckpointError) -> str:
    """Converts, which must fail with this error and leave nothing; returns the message."""
    target = checkpoint.parent / "refused" / "model"
    with pytest.raises(error) as caught:
        convert(checkpoint, target)
    assert not target.parent.exists()
    message = str(caught.value)
    assert "expected" in message
    assert "got" in message
    return message


def test_all_differences_are_listed_together(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    q = "model.layers.0.self_attn.q_proj"

    def spoil_llm(tensors: h.Tensors) -> None:
        del tensors["model.norm.weight"]
        tensors[q + ".weight"] = h.Raw("F32", tensors[q + ".weight"].values[:, :-1])
        tensors["lm_head.weight"] = h.Raw("I32", tensors["lm_head.weight"].values.astype(np.int32))
        tensors["score.weight"] = h.Raw("F32", np.zeros((2, 2), np.float32))

    def spoil_tower(tensors: h.Tensors) -> None:
        bias = tensors["vision_model.encoder.layers.0.mlp.fc1.bias"].values
        tensors["vision_model.encoder.layers.0.mlp.fc1.bias"] = h.Raw("I64", bias[:5].astype(np.int64))

    def spoil_projector(tensors: h.Tensors) -> None:
        tensors["layer.weight"] = tensors.pop("layers.weight")

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil_llm)
    h.edit_safetensors(checkpoint / "vision_tower" / "model.safetensors", spoil_tower)
    h.edit_safetensors(checkpoint / "mm_projector" / "model.safetensors", spoil_projector)
    (checkpoint / "llm" / "tokenizer.model").unlink()
    lines = refused(checkpoint).splitlines()
    c = json.loads((checkpoint / "llm" / "config.json").read_text())
    dim = c["hidden_size"]
    ffn = json.loads((checkpoint / "vision_tower" / "config.json").read_text())["intermediate_size"]
    assert "got 9 problems" in lines[0]
    assert lines[1].startswith("  - [tokenizer]")
    assert set(lines[2:]) == {
        "  - llm: missing model.norm.weight",
        "  - llm: unknown tensor score.weight",
        f"  - llm: {q}.weight: expected shape ({dim}, {dim}), got ({dim}, {dim - 1})",
        "  - llm: lm_head.weight: expected floating-point numbers, got int32",
        f"  - vision: vision_model.encoder.layers.0.mlp.fc1.bias: expected shape ({ffn},), got (5,)",
        "  - vision: vision_model.encoder.layers.0.mlp.fc1.bias: expected floating-point numbers, got int64",
        "  - projector: missing layers.weight",
        "  - projector: unknown tensor layer.weight",
    }


def test_missing_weight_files_are_listed_together(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("vila3b", tmp_path)
    (checkpoint / "llm" / "model-00002-of-00002.safetensors").unlink()
    (checkpoint / "mm_projector" / "model.safetensors").unlink()
    message = refused(checkpoint)
    assert "got 2 problems" in message
    assert "model-00002-of-00002.safetensors (" in message
    assert "- projector: " in message


@pytest.mark.parametrize("name", ["config.json", "llm/config.json", "vision_tower/config.json", "mm_projector"])
def test_missing_parts_are_named(name: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    path = checkpoint / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert name in refused(checkpoint)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_missing_tokenizer_files_are_named(name: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    (checkpoint / "llm" / name).unlink()
    assert name in refused(checkpoint)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.mlp.up_proj.weight"]
)
def test_numbers_that_are_not_finite(name: str, bad: float, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)

    def spoil(tensors: h.Tensors) -> None:
        values = tensors[name].values.copy()
        values.flat[7] = bad
        tensors[name] = h.Raw("F32", values)

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil)
    message = refused_late(checkpoint, tmp_path)
    assert f"llm: {name}: expected finite numbers" in message


def refused_late(checkpoint: Path, folder: Path, **arguments: Any) -> str:
    """As `refused`, for what only the numbers show: the folder above the result stays."""
    (folder / "target").mkdir()
    with pytest.raises(_core.CheckpointError) as caught:
        convert(checkpoint, folder / "target" / "model", **arguments)
    assert list((folder / "target").iterdir()) == []
    return str(caught.value)


LARGE = [
    ("model.embed_tokens.weight", 65520.0, "f16", "expected numbers within float16, got 65520"),
    (UP, -1e9, "f16", "expected numbers within float16, got 1e+09"),
    (UP, 1e9, "int8", "expected a scale within f16"),
    (UP, 1e9, "int4", "expected a scale within f16"),
]


@pytest.mark.parametrize(("name", "value", "weights", "message"), LARGE)
def test_numbers_that_the_format_does_not_hold(
    name: str, value: float, weights: str, message: str, tmp_path: Path
) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)

    def spoil(tensors: h.Tensors) -> None:
        values = tensors[name].values.copy()
        values.flat[7] = value
        tensors[name] = h.Raw("F32", values)

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil)
    found = refused_late(checkpoint, tmp_path, weights=weights)
    assert f"llm: {name}: " in found
    assert message in found
    convert(checkpoint, tmp_path / "f32", weights="f32")


UNSUPPORTED = [
    ("config.json", {"architectures": ["GPT2LMHeadModel"]}, "architectures: expected a LLaVA type model"),
    ("config.json", {"mm_use_im_start_end": True}, "mm_use_im_start_end: expected false"),
    ("config.json", {"mm_vision_select_feature": "cls"}, "mm_vision_select_feature: expected patch or cls_patch"),
    ("config.json", {"image_aspect_ratio": "dynamic_s2"}, "image_aspect_ratio: expected resize or pad"),
    ("config.json", {"s2": True, "s2_scales": "a,b"}, "s2_scales: expected sizes separated by commas"),
    ("config.json", {"s2": True, "s2_scales": "336,672", "s2_max_split_size": 336}, "got scales .336, 672., split 336"),
    ("llm/config.json", {"architectures": ["MistralForCausalLM"]}, "architectures: expected .'LlamaForCausalLM'."),
    ("llm/config.json", {"hidden_act": "gelu"}, "hidden_act: expected silu, got 'gelu'"),
    ("llm/config.json", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling: expected null"),
    ("vision_tower/config.json", {"model_type": "clip_vision_model"}, "expected siglip_vision_model or intern_vit_6b"),
    ("vision_tower/config.json", {"hidden_act": "quick_gelu"}, "expected gelu_pytorch_tanh or gelu, got 'quick_gelu'"),
    ("vision_tower/preprocessor_config.json", {"resample": 2}, "resample: expected 3 .bicubic., got 2"),
    ("vision_tower/preprocessor_config.json", {"do_rescale": False}, "do_rescale: expected true, got False"),
    ("mm_projector/config.json", {"mm_projector_type": "mlp_downsample_2x2_fix"}, "expected linear, mlp<N>x_gelu, "),
]


@pytest.mark.parametrize(("file", "change", "message"), UNSUPPORTED)
def test_unknown_architectures(file: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    h.edit_json(checkpoint / file, **change)
    with pytest.raises(_core.UnsupportedError, match=message):
        convert(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


CONTRADICTIONS = [
    ("config.json", {"mm_vision_select_layer": -9}, "expected one of 3 states, got -9"),
    ("config.json", {"num_video_frames": 0}, "num_video_frames: expected at least 1, got 0"),
    ("config.json", {"mm_use_im_patch_token": "false"}, "mm_use_im_patch_token: expected true or false, got 'false'"),
    ("llm/config.json", {"hidden_size": "64"}, "hidden_size: expected an integer, got '64'"),
    ("llm/config.json", {"hidden_size": ...}, "hidden_size: expected an integer, got None"),
    ("llm/config.json", {"num_attention_heads": 7}, "a multiple of 7 attention heads"),
    ("llm/config.json", {"num_key_value_heads": 3}, "a multiple of num_key_value_heads, got"),
    ("llm/config.json", {"head_dim": 7}, "expected heads of even width"),
    ("llm/config.json", {"num_hidden_layers": 0}, "num_hidden_layers: expected at least 1, got 0"),
    ("llm/config.json", {"rms_norm_eps": "1e-5"}, "rms_norm_eps: expected a number"),
    ("llm/config.json", {"rope_theta": float("inf")}, "rope_theta: expected a finite number"),
    ("llm/config.json", {"bos_token_id": [1]}, "bos_token_id: expected an integer, got .1."),
    ("llm/generation_config.json", {"eos_token_id": ["</s>"]}, "eos_token_id: expected integers"),
    ("llm/generation_config.json", {"eos_token_id": 100_000}, "got .'nothing at 100000'."),
    ("vision_tower/config.json", {"num_attention_heads": 5}, "a multiple of num_attention_heads and image_size"),
    ("vision_tower/config.json", {"patch_size": 1000}, "at least patch_size"),
    ("vision_tower/preprocessor_config.json", {"size": {"height": 10, "width": 10}}, "as the tower's image_size"),
    ("vision_tower/preprocessor_config.json", {"size": [56, 56]}, "as the tower's image_size"),
    ("vision_tower/preprocessor_config.json", {"image_mean": [0.5]}, "image_mean: expected three numbers"),
    ("vision_tower/preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std: expected positive numbers"),
    ("mm_projector/config.json", {"mm_projector_type": "identity"}, "expected a tower of the language model's width"),
    ("mm_projector/config.json", {"mm_projector_type": 3}, "mm_projector_type: expected a string, got 3"),
]


@pytest.mark.parametrize(("file", "change", "message"), CONTRADICTIONS)
def test_contradictory_configurations(file: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    h.edit_json(checkpoint / file, **change)
    with pytest.raises(_core.CheckpointError, match=message):
        convert(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '"x"', "\xff"])
@pytest.mark.parametrize("file", ["config.json", "vision_tower/config.json", "llm/tokenizer_config.json"])
def test_configurations_that_are_no_json_objects(file: str, text: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    (checkpoint / file).write_bytes(text.encode("latin-1"))
    assert "expected" in refused(checkpoint)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CONFIG_FILES = ("config.json", "llm/config.json", "vision_tower/config.json", "mm_projector/config.json")
CONFIG_FILES += ("llm/generation_config.json", "vision_tower/preprocessor_config.json")


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize("variant", ["vila3b_s2", "vila40b"])
def test_any_value_anywhere_gives_a_model_or_a_typed_error(data: st.DataObject, variant: str, tmp_path: Path) -> None:
    source, target = h.GOLDEN / variant / "checkpoint", tmp_path / "fuzz"
    file = data.draw(st.sampled_from(CONFIG_FILES))
    shutil.rmtree(target, ignore_errors=True)
    for name in CONFIG_FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)
    key = data.draw(st.sampled_from(sorted(json.loads((source / file).read_text()))))
    h.edit_json(target / file, **{key: data.draw(JSON)})
    try:
        model = read_folder(target)
    except TYPED as error:
        assert "expected" in str(error)
    else:
        assert model.llm["n_heads"] % model.llm["n_kv_heads"] == 0
        assert model.vision["n_layers"] <= model.vision_layers_in_file


TOKENIZER_FILES = {"llama3": ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")}
TOKENIZER_FILES["vila3b"] = ("tokenizer_config.json", "special_tokens_map.json")


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize("variant", ["llama3", "vila3b"])
def test_any_value_in_a_tokenizer_gives_one_or_a_typed_error(data: st.DataObject, variant: str, tmp_path: Path) -> None:
    source = h.GOLDEN / variant / "checkpoint" / "llm"
    for path in source.glob("*token*"):
        shutil.copy(path, tmp_path / path.name)
    file = data.draw(st.sampled_from(TOKENIZER_FILES[variant]))
    root = json.loads((source / file).read_text())
    place = root
    # Walks down to some place in the file and puts something else there.
    for _ in range(data.draw(st.integers(0, 3))):
        keys = [key for key in (place if isinstance(place, dict) else range(len(place))) if place[key]]
        inner = [key for key in keys if isinstance(place[key], dict | list)]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(inner))]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    (tmp_path / file).write_text(json.dumps(root))
    try:
        spec = read_tokenizer(tmp_path)
        spec_to_tensors(spec)
    except TYPED as error:
        assert "expected" in str(error)
    else:
        assert len(spec["pieces"]) == len(spec["types"])


@FUZZ
@given(data=st.data())
def test_any_byte_in_a_sentencepiece_model_gives_one_or_a_typed_error(data: st.DataObject, tmp_path: Path) -> None:
    source = h.GOLDEN / SMALL / "checkpoint" / "llm"
    for path in source.glob("*token*"):
        shutil.copy(path, tmp_path / path.name)
    model = bytearray((source / "tokenizer.model").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "tokenizer.model").write_bytes(model[: data.draw(st.sampled_from([len(model), len(model) // 2]))])
    try:
        spec_to_tensors(read_tokenizer(tmp_path))
    except TYPED as error:
        assert "expected" in str(error)


@pytest.mark.parametrize("id_", [1 << 40, -1, "7", True, 1.5, None])
def test_ids_that_no_vocabulary_has(id_: Any, tmp_path: Path) -> None:
    """An id of a million millions would take as many empty pieces."""
    for path in (h.GOLDEN / "llama3" / "checkpoint" / "llm").glob("*token*"):
        shutil.copy(path, tmp_path / path.name)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["added_tokens"][0]["id"] = id_
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(_core.CheckpointError, match="expected ids from 0 to 1048575, got"):
        read_tokenizer(tmp_path)


def test_endless_numbers_in_a_sentencepiece_model(tmp_path: Path) -> None:
    """A number of a million bytes takes a quadratic time to put together."""
    for path in (h.GOLDEN / SMALL / "checkpoint" / "llm").glob("*token*"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "tokenizer.model").write_bytes(b"\x80" * 5_000_000 + b"\x01")
    with pytest.raises(_core.CheckpointError, match="expected a SentencePiece model, got a broken file"):
        read_tokenizer(tmp_path)
