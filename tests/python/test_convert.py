"""Conversion of complete checkpoints: what is written, whatever container it comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import convert_helpers as h
import numpy as np
import pytest
import vila_engine
from vila_engine import _core
from vila_engine.convert import convert
from vila_engine.convert.folders import detect_conv_mode

SMALL = "linear_bias_fp32"  # converts in milliseconds
VISION_PREFIX = "vision_model."


def source_tensors(checkpoint: Path) -> h.Tensors:
    """All tensors of a plain safetensors checkpoint under the names of the model folder."""
    tensors = {f"llm.{name}": raw for name, raw in h.published_llm(checkpoint).items()}
    for part, prefix in (("vision_tower", "vision"), ("mm_projector", "projector")):
        for name, raw in h.read_safetensors(checkpoint / part / "model.safetensors").items():
            tensors[f"{prefix}.{name.removeprefix(VISION_PREFIX)}"] = raw
    return tensors


def bound_of(form: str, scale: h.Array) -> h.Array:
    """How far a rounded weight may be from the published one.

    Half a step; for int4 with zero points the scale's own rounding to f16 (relative 2^-11) moves the end of a range of
    15 steps by 15 * 2^-11 steps at most. The product is taken in double, so nothing else is rounded.
    """
    steps = 0.5 if form.startswith("w8") else 0.5 + 15 * 2.0**-11
    return steps * scale.astype(np.float64) * (1 + 1e-12)


@pytest.mark.parametrize("weights", h.FORMATS)
@pytest.mark.parametrize("variant", h.VARIANTS)
def test_every_fixture_converts_and_loads(variant: str, weights: Any, tmp_path: Path) -> None:
    report = convert(h.GOLDEN / variant / "checkpoint", tmp_path / "model", weights=weights)
    assert h.tree(tmp_path).keys() == {"model/config.json", "model/model.safetensors"}
    header, _ = h.read_header(tmp_path / "model" / "model.safetensors")
    formats = header.pop("__metadata__")
    assert report.n_bytes == (tmp_path / "model" / "model.safetensors").stat().st_size
    assert report.n_tensors == len(header)
    assert sum(report.formats.values()) == len(formats)
    assert report.formats == {form: list(formats.values()).count(form) for form in formats.values()}
    assert report.path == tmp_path / "model"
    with vila_engine.load(tmp_path / "model", threads=1) as model:
        assert model.info["conv_mode"] == report.conv_mode
        answer = model.generate("hello", max_new_tokens=2, ignore_eos=True)
        assert len(answer.token_ids) == 2


@pytest.mark.parametrize("weights", h.FORMATS)
@pytest.mark.parametrize("variant", [variant for variant in h.PLAIN if variant != "mlp2x_pad_bin"])
def test_weights_are_the_published_ones(variant: str, weights: Any, tmp_path: Path) -> None:
    """f32 exactly, f16 rounded once, int8 and int4 within half a step: every tensor, every number."""
    checkpoint = h.GOLDEN / variant / "checkpoint"
    convert(checkpoint, tmp_path / "model", weights=weights, vision_weights=weights, head_weights=weights)
    written = h.read_safetensors(tmp_path / "model" / "model.safetensors")
    formats = h.read_header(tmp_path / "model" / "model.safetensors")[0]["__metadata__"]
    seen = set()
    for name, raw in source_tensors(checkpoint).items():
        values, stem = raw.as_f32(), name.removesuffix(".weight")
        if stem in formats:
            matrix = values.reshape(values.shape[0], -1)
            q, scale, zero = h.unpack(written, formats[stem], stem, *matrix.shape)
            if scale is None:
                np.testing.assert_array_equal(q, matrix.astype(q.dtype), err_msg=name)
            else:
                steps = q - (0 if zero is None else zero.astype(np.int64))
                error = np.abs(steps * scale.astype(np.float64) - matrix)
                assert (error <= bound_of(formats[stem], scale)).all(), name
            seen |= {f"{stem}.{part}" for part in ("weight", "weight_scale", "weight_zero")}
        elif name in written:
            expected = values.astype(written[name].values.dtype)
            np.testing.assert_array_equal(written[name].values, expected.reshape(written[name].values.shape))
            seen.add(name)
    assert {name for name in written if not name.startswith("tokenizer.")} <= seen


def test_unneeded_tensors_are_left_out(tmp_path: Path) -> None:
    """The tower of vila3b is read at -2: its last block, its last norm and its head are not written."""
    convert(h.GOLDEN / "vila3b" / "checkpoint", tmp_path / "model", weights="f16")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    published = json.loads((h.GOLDEN / "vila3b/checkpoint/vision_tower/config.json").read_text())["num_hidden_layers"]
    assert config["vision"]["n_layers"] == published - 1
    names = h.read_safetensors(tmp_path / "model" / "model.safetensors").keys()
    assert not any(f"layers.{published - 1}." in name for name in names if name.startswith("vision."))
    assert not any("post_layernorm" in name or "vision.head" in name for name in names)


def test_the_file_is_laid_out_as_documented(tmp_path: Path) -> None:
    convert(h.GOLDEN / "vila40b" / "checkpoint", tmp_path / "model")
    header, start = h.read_header(tmp_path / "model" / "model.safetensors")
    header.pop("__metadata__")
    assert start % 64 == 0
    end = 0
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        assert begin == end, name
        item = np.dtype(h.NUMPY[entry["dtype"]]).itemsize
        assert begin % (64 if (stop - begin) % 64 == 0 else item) == 0, name
        end = stop
    assert (tmp_path / "model" / "model.safetensors").stat().st_size == start + end


def rewrite(checkpoint: Path, form: str) -> None:
    """Puts the language model of linear_bias_fp32 into another container."""
    path = checkpoint / "llm" / "model.safetensors"
    tensors = h.read_safetensors(path)
    path.unlink()
    names = list(tensors)
    if form in ("bin", "legacy bin"):
        (h.write_torch if form == "bin" else h.write_legacy_torch)(path.with_name("pytorch_model.bin"), tensors)
        return
    suffix = "safetensors" if form == "sharded" else "bin"
    stem = "model" if form == "sharded" else "pytorch_model"
    mapping = {name: f"{stem}-{index % 3 + 1:05d}-of-00003.{suffix}" for index, name in enumerate(names)}
    for file in set(mapping.values()):
        part = {name: tensors[name] for name in names if mapping[name] == file}
        if form == "sharded":
            (path.parent / file).write_bytes(h.safetensors_bytes(part))
        else:
            h.write_torch(path.parent / file, part)
    index = "model.safetensors.index.json" if form == "sharded" else "pytorch_model.bin.index.json"
    (path.parent / index).write_text(json.dumps({"metadata": {}, "weight_map": mapping}))


@pytest.mark.parametrize("form", ["bin", "legacy bin", "sharded", "sharded bin"])
def test_the_container_does_not_matter(form: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    convert(checkpoint, tmp_path / "plain", weights="int4")
    rewrite(checkpoint, form)
    convert(checkpoint, tmp_path / "other", weights="int4")
    assert h.tree(tmp_path / "other") == h.tree(tmp_path / "plain")


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_type_does_not_matter_where_it_holds_the_numbers(dtype: str, tmp_path: Path) -> None:
    """Numbers that are exact in a small type convert to the same bytes from that type and from fp32."""
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)

    def narrow(tensors: h.Tensors) -> None:
        for name, raw in tensors.items():
            # Seven bits of mantissa, and no exponent that f16 lacks: exact in both types.
            rounded = (raw.values.view(np.uint32) & 0xFFFF0000).view(np.float32)
            tensors[name] = h.Raw("F32", np.where(np.abs(rounded) < 2.0**-10, np.float32(0), rounded))

    def store(tensors: h.Tensors) -> None:
        for name, raw in tensors.items():
            half = raw.values.astype(np.float16)
            bits = (raw.values.view(np.uint32) >> 16).astype(np.uint16)
            tensors[name] = h.Raw(dtype, half if dtype == "F16" else bits)

    for change, target in ((narrow, "wide"), (store, "narrow")):
        for part in ("llm", "vision_tower", "mm_projector"):
            h.edit_safetensors(checkpoint / part / "model.safetensors", change)
        convert(checkpoint, tmp_path / target, weights="f32")
    assert h.tree(tmp_path / "narrow") == h.tree(tmp_path / "wide")


@pytest.mark.parametrize("variant", [SMALL, *h.PACKED])
@pytest.mark.parametrize("weights", ["f32", "int4"])
def test_the_size_of_blocks_does_not_matter(
    variant: str, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = h.GOLDEN / variant / "checkpoint"
    convert(checkpoint, tmp_path / "whole", weights=weights)
    monkeypatch.setattr("vila_engine.convert.conversion.BLOCK_BYTES", 1)  # 16 rows at a time
    convert(checkpoint, tmp_path / "blocks", weights=weights)
    assert h.tree(tmp_path / "blocks") == h.tree(tmp_path / "whole")


def pad_vocabulary(checkpoint: Path, rows: int) -> None:
    """Adds rows behind the last token, as training frameworks do."""

    def change(tensors: h.Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            raw = tensors[name]
            extra = np.full((rows, raw.values.shape[1]), 3, raw.values.dtype)
            tensors[name] = h.Raw(raw.dtype, np.concatenate([raw.values, extra]))

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", change)
    config = json.loads((checkpoint / "llm" / "config.json").read_text())
    h.edit_json(checkpoint / "llm" / "config.json", vocab_size=config["vocab_size"] + rows)


@pytest.mark.parametrize(("variant", "rows"), [(SMALL, 1), (SMALL, 20), ("vila40b", 32)])
def test_padding_of_the_vocabulary_is_dropped(variant: str, rows: int, tmp_path: Path) -> None:
    """A sixteenth of the rows, or up to a multiple of 64: vila40b has 352 tokens."""
    checkpoint = h.copy_checkpoint(variant, tmp_path)
    convert(checkpoint, tmp_path / "plain")
    pad_vocabulary(checkpoint, rows)
    report = convert(checkpoint, tmp_path / "padded")
    assert f"{rows} padding rows of the vocabulary dropped" in report.notes
    assert h.tree(tmp_path / "padded") == h.tree(tmp_path / "plain")


def put_tokenizer(variant: str, checkpoint: Path) -> None:
    """Replaces the tokenizer of a checkpoint by that of a fixture."""
    for file in (checkpoint / "llm").glob("*token*"):
        file.unlink()
    for file in (h.GOLDEN / variant / "checkpoint" / "llm").glob("*token*"):
        (checkpoint / "llm" / file.name).write_bytes(file.read_bytes())


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    tokens = json.loads((checkpoint / "llm" / "config.json").read_text())["vocab_size"]
    pad_vocabulary(checkpoint, 63)
    with pytest.raises(_core.CheckpointError, match=rf"expected vocab_size = {tokens + 63} tokens.*got {tokens}$"):
        convert(checkpoint, tmp_path / "model")
    h.edit_json(checkpoint / "llm" / "config.json", vocab_size=tokens - 1)
    with pytest.raises(_core.CheckpointError, match=rf"expected vocab_size = {tokens - 1} tokens.*got {tokens}\n"):
        convert(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("other", ["vila3b", "vila40b", SMALL])
def test_a_tokenizer_of_another_model_is_refused(other: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("llama3", tmp_path)
    put_tokenizer(other, checkpoint)
    with pytest.raises(_core.CheckpointError, match="- tokenizer: expected vocab_size = 345 tokens"):
        convert(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_ids_of_another_tokenizer_are_noticed(tmp_path: Path) -> None:
    """A tokenizer of the right size that has ordinary pieces where the model's begin and end are."""
    checkpoint = h.copy_checkpoint("llama3", tmp_path)
    put_tokenizer(SMALL, checkpoint)
    h.edit_json(checkpoint / "llm" / "config.json", vocab_size=304, bos_token_id=301)
    h.edit_json(checkpoint / "llm" / "generation_config.json", bos_token_id=301, eos_token_id=[302, 400])
    with pytest.raises(_core.CheckpointError) as caught:
        convert(checkpoint, tmp_path / "model")
    assert re.search(r"expected special tokens at bos_token_id \[301\], got \['.+'\]", str(caught.value))
    assert re.search(r"at eos_token_id \[302, 400\], got \['.+', 'nothing at 400'\]", str(caught.value))


def test_the_patch_token_of_old_configurations_is_added(tmp_path: Path) -> None:
    """Where mm_use_im_patch_token is true or missing, the reference appends <im_patch> to the tokenizer."""
    checkpoint = h.copy_checkpoint(SMALL, tmp_path)
    tokens = json.loads((checkpoint / "llm" / "config.json").read_text())["vocab_size"]
    pad_vocabulary(checkpoint, 1)
    h.edit_json(checkpoint / "config.json", mm_use_im_patch_token=...)
    report = convert(checkpoint, tmp_path / "model")
    assert any("<im_patch>" in note for note in report.notes)
    with vila_engine.load(tmp_path / "model") as model:
        assert model.info["llm"]["vocab_size"] == tokens + 1
        assert model.tokenizer.encode("<im_patch>")[-1] == tokens


def test_dequantized_folders_hold_what_the_integers_stand_for(tmp_path: Path) -> None:
    checkpoint = h.GOLDEN / SMALL / "checkpoint"
    convert(checkpoint, tmp_path / "int4", weights="int4")
    convert(checkpoint, tmp_path / "f32", weights="int4", dequantize=True)
    packed = h.read_safetensors(tmp_path / "int4" / "model.safetensors")
    floats = h.read_safetensors(tmp_path / "f32" / "model.safetensors")
    formats = h.read_header(tmp_path / "int4" / "model.safetensors")[0]["__metadata__"]
    stem = "llm.model.layers.0.mlp.down_proj"
    n, k = h.published_llm(checkpoint)["model.layers.0.mlp.down_proj.weight"].values.shape
    q, scale, zero = h.unpack(packed, formats[stem], stem, n, k)
    assert scale is not None
    assert zero is not None
    meant = ((q - zero.astype(np.int64)) * scale.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(h.unpack(floats, "f32p16", stem, n, k)[0], meant)
    table = "llm.model.embed_tokens.weight"
    np.testing.assert_array_equal(floats[table].values, packed[table].values.astype(np.float32))


def test_formats_can_be_chosen_by_part(tmp_path: Path) -> None:
    source = h.GOLDEN / SMALL / "checkpoint"
    convert(source, tmp_path / "m", weights="int8", vision_weights="f32", head_weights="f16", group_size=32)
    formats = h.read_header(tmp_path / "m" / "model.safetensors")[0]["__metadata__"]
    assert formats["llm.model.layers.0.mlp.up_proj"] == "w8p16x4g32"
    assert formats["llm.lm_head"] == "f16p16"
    assert {form for name, form in formats.items() if not name.startswith("llm.")} == {"f32p16"}


WRONG_ARGUMENTS = [
    ({"weights": "int3"}, "weights: expected one of f32, f16, int8, int4, got int3"),
    ({"vision_weights": "bf16"}, "vision_weights: expected one of .*, got bf16"),
    ({"head_weights": ""}, "head_weights: expected one of .*, got $"),
    ({"group_size": 48}, "group_size: expected one of .*, got 48"),
    ({"conv_mode": "alpaca"}, "conv_mode: expected one of vicuna_v1, .*, got alpaca"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(_core.InvalidArgument, match=message):
        convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "model", **arguments)


MODES = [
    ("VILA1.5-3b", set(), "vicuna_v1"),
    ("VILA1.5-13b-AWQ", set(), "vicuna_v1"),
    ("Llama-3-VILA1.5-8B", set(), "llama_3"),
    ("vila1.5-8b", set(), "llama_3"),
    ("Llama-3-VILA1.5-8B-Fix", set(), "llama_3_fix"),
    ("llama3_fix", set(), "llama_3_fix"),
    ("llama3-fixture", set(), "llama_3"),
    ("VILA1.5-40b", set(), "hermes-2"),
    ("checkpoint", {"<|start_header_id|>", "<|eot_id|>"}, "llama_3"),
    ("checkpoint", {"<|im_start|>", "<|im_end|>"}, "hermes-2"),
    ("checkpoint", {"<s>", "</s>"}, "vicuna_v1"),
]


@pytest.mark.parametrize(("name", "tokens", "mode"), MODES)
def test_the_chat_template_is_detected(name: str, tokens: set[str], mode: str) -> None:
    found, reason = detect_conv_mode(name, tokens)
    assert found == mode
    assert reason


@pytest.mark.parametrize(("variant", "mode"), [("vila40b", "hermes-2"), ("llama3", "llama_3"), ("vila3b", "vicuna_v1")])
def test_the_detected_template_is_stored(variant: str, mode: str, tmp_path: Path) -> None:
    """From the tokenizer alone: these folders' names say nothing."""
    source = h.GOLDEN / variant / "checkpoint"
    assert convert(source, tmp_path / "detected").conv_mode == mode
    assert convert(source, tmp_path / "forced", conv_mode="plain").conv_mode == "plain"
    for folder, stored in (("detected", mode), ("forced", "plain")):
        assert json.loads((tmp_path / folder / "config.json").read_text())["prompt"]["conv_mode"] == stored


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = convert(h.GOLDEN / "vila3b_awq" / "checkpoint", tmp_path / "m", progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    totals = {call[1] for call in calls}
    assert len(totals) == 1
    assert done == sorted(done)
    assert len(done) > report.n_tensors / 4
    assert done[-1] == totals.pop()
    start = h.read_header(tmp_path / "m" / "model.safetensors")[1]
    assert done[-1] == report.n_bytes - start


def test_the_progress_bar_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    convert(h.GOLDEN / SMALL / "checkpoint", tmp_path / "loud", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "converting" in err
