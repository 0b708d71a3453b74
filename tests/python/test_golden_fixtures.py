"""The golden fixtures are complete, consistent with their manifests, small, and can be made again."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
MAX_TOTAL_BYTES = 3_000_000
VARIANTS = (
    "vila3b",
    "llama3",
    "llama3_nobos",
    "vila3b_s2",
    "vila40b",
    "mlp2x_pad_bin",
    "linear_bias_fp32",
    "vila3b_awq",
    "autoawq_gqa",
)
MIN_MARGIN = 5e-3
N_STEPS = 32
IMAGE_ID = -200
LOGIT_UNIT = 2.0**-14

Manifest = dict[str, Any]
FloatArray = npt.NDArray[np.float32]


def read_json(path: Path) -> Manifest:
    """Reads one JSON object."""
    value = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def read_safetensors(path: Path) -> dict[str, FloatArray]:
    """Reads bf16, f16 and f32 tensors as f32, by the format's own description."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            values = wide.view(np.float32)
        else:
            values = np.frombuffer(data[begin:end], {"F16": np.float16, "F32": np.float32}[entry["dtype"]])
        tensors[name] = values.astype(np.float32).reshape(entry["shape"])
    return tensors


def check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """The files on disk are those of the table, byte for byte."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"manifest.json"}
    assert found == set(files)
    for name, entry in files.items():
        data = (folder / name).read_bytes()
        assert len(data) == entry["bytes"], name
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], name


def all_cases() -> list[tuple[str, str]]:
    """Every (variant, case) pair that the manifests name."""
    return [(v, c["name"]) for v in VARIANTS for c in read_json(GOLDEN / v / "manifest.json")["cases"]]


def load_case(variant: str, name: str) -> tuple[Manifest, Manifest, dict[str, npt.NDArray[Any]]]:
    """Returns the manifest, the case's entry and its arrays."""
    manifest = read_json(GOLDEN / variant / "manifest.json")
    (case,) = (c for c in manifest["cases"] if c["name"] == name)
    with np.load(GOLDEN / variant / case["file"]) as stored:
        return manifest, case, dict(stored)


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_match_manifest(variant: str) -> None:
    """Nothing is missing, changed or left over in a fixture folder."""
    check_files(GOLDEN / variant, read_json(GOLDEN / variant / "manifest.json")["files"])


def test_pictures_match_manifest() -> None:
    """The same for the pictures; and every picture that a case names exists."""
    files = read_json(GOLDEN / "images" / "manifest.json")["files"]
    check_files(GOLDEN / "images", files)
    named = {name for v in VARIANTS for c in read_json(GOLDEN / v / "manifest.json")["cases"] for name in c["images"]}
    assert named <= set(files)


def test_variants_are_those_of_the_manifests() -> None:
    """The list in this file is the list of folders."""
    folders = {path.parent.name for path in GOLDEN.glob("*/manifest.json")} - {"images"}
    assert folders == set(VARIANTS)
    for variant in VARIANTS:
        assert read_json(GOLDEN / variant / "manifest.json")["variant"] == variant


def test_total_size_is_small() -> None:
    """The whole folder, scripts included, stays below 3 MB."""
    files = (p for p in GOLDEN.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert sum(p.stat().st_size for p in files) < MAX_TOTAL_BYTES


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoint_configs_agree(variant: str) -> None:
    """Top-level copies equal the sub-folders' files; the vocabulary is the one that the expected logits have."""
    manifest = read_json(GOLDEN / variant / "manifest.json")
    checkpoint = GOLDEN / variant / "checkpoint"
    top = read_json(checkpoint / "config.json")
    for key, folder in (("llm_cfg", "llm"), ("vision_tower_cfg", "vision_tower"), ("mm_projector_cfg", "mm_projector")):
        assert top[key] == read_json(checkpoint / folder / "config.json")
    assert top["llm_cfg"]["vocab_size"] == manifest["vocab_size"]
    assert top["hidden_size"] == manifest["config"]["llm"]["hidden"]
    n_scales = max(1, len(manifest["config"]["s2_scales"]))
    assert top["mm_hidden_size"] == manifest["config"]["vision"]["hidden"] * n_scales
    assert top["s2"] == (n_scales > 1)
    for name in ("special_tokens_map.json", "tokenizer_config.json", "generation_config.json"):
        assert (checkpoint / "llm" / name).is_file()
    models = [checkpoint / "llm" / name for name in ("tokenizer.model", "tokenizer.json")]
    assert sum(path.is_file() for path in models) == 1


@pytest.mark.parametrize(("variant", "name"), all_cases())
def test_case_is_consistent(variant: str, name: str) -> None:
    """Shapes, counts and derived values of a case fit its manifest entry."""
    manifest, case, arrays = load_case(variant, name)
    ids, logits, positions = arrays["input_ids"], arrays["logits"], arrays["logit_positions"]
    n_images = len(case["images"])
    assert ids.dtype == np.int32
    assert len(ids) == case["prompt_tokens"]
    assert int((ids == IMAGE_ID).sum()) == n_images == case["prompt"].count("<image>")
    assert case["sequence_length"] == len(ids) + n_images * (case["visual_tokens_per_image"] - 1)
    text_ids = ids[ids != IMAGE_ID]
    assert text_ids.min() >= 0
    assert text_ids.max() < manifest["vocab_size"]

    assert logits.dtype == np.float32
    assert logits.shape == (len(positions), manifest["vocab_size"])
    assert np.array_equal(np.rint(logits / LOGIT_UNIT) * LOGIT_UNIT, logits)
    assert (np.diff(positions) > 0).all()
    assert positions[-1] == case["sequence_length"] - 1
    if name in manifest["config"]["all_logits"]:
        assert len(positions) == case["sequence_length"]

    greedy, margin = arrays["greedy_ids"], arrays["greedy_margin"]
    assert greedy.shape == margin.shape == (N_STEPS,)
    assert greedy[0] == logits[-1].argmax()
    best = np.sort(logits[-1])[-2:]
    assert abs(float(best[1] - best[0]) - float(margin[0])) <= 2 * LOGIT_UNIT
    assert margin.min() >= MIN_MARGIN
    assert case["min_greedy_margin"] == pytest.approx(float(margin.min()))
    assert case["stops_early"] == (case["stop_token_id"] in greedy.tolist())


@pytest.mark.parametrize("variant", VARIANTS)
def test_vision_arrays_of_first_single_case(variant: str) -> None:
    """One case of each variant has the tower's and the projector's output, some its pixels."""
    manifest = read_json(GOLDEN / variant / "manifest.json")
    config = manifest["config"]
    name = next(c["name"] for c in manifest["cases"] if len(c["images"]) == 1)
    _, case, arrays = load_case(variant, name)
    n_patches = (config["vision"]["image"] // config["vision"]["patch"]) ** 2
    width = config["vision"]["hidden"] * max(1, len(config["s2_scales"]))
    assert arrays["vision_features"].shape == (1, n_patches, width)
    assert arrays["projector_output"].shape == (1, case["visual_tokens_per_image"], config["llm"]["hidden"])
    if config["pixels"]:
        side = max([config["vision"]["image"], *config["s2_scales"]])
        assert arrays["pixel_values"].shape == (1, 3, side, side)


def rms_norm(x: FloatArray, weight: FloatArray) -> FloatArray:
    """RMSNorm over the last axis, eps 1e-6."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * weight


def gelu_erf(x: FloatArray) -> FloatArray:
    """GELU in its exact form."""
    erf = np.vectorize(math.erf)
    return 0.5 * x * (1 + erf(x / np.sqrt(2.0)))


def intern_block(x: FloatArray, t: dict[str, FloatArray], layer: str, heads: int) -> FloatArray:
    """x + ls1 * attn(norm1 x), then x + ls2 * mlp(norm2 x), with published tensor names, for `[N, C]`."""
    n, width = x.shape
    qkv = (rms_norm(x, t[layer + "norm1.weight"]) @ t[layer + "attn.qkv.weight"].T).reshape(n, 3, width)
    q = rms_norm(qkv[:, 0], t[layer + "attn.q_norm.weight"]).reshape(n, heads, -1)
    k = rms_norm(qkv[:, 1], t[layer + "attn.k_norm.weight"]).reshape(n, heads, -1)
    v = qkv[:, 2].reshape(n, heads, -1)
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(width / heads)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(n, width)
    x = x + t[layer + "ls1"] * (mixed @ t[layer + "attn.proj.weight"].T + t[layer + "attn.proj.bias"])
    h = rms_norm(x, t[layer + "norm2.weight"]) @ t[layer + "mlp.fc1.weight"].T + t[layer + "mlp.fc1.bias"]
    return x + t[layer + "ls2"] * (gelu_erf(h) @ t[layer + "mlp.fc2.weight"].T + t[layer + "mlp.fc2.bias"])


def test_intern_vit_features_by_hand() -> None:
    """A few lines of numpy on the published names give the stored InternViT features."""
    manifest, _, arrays = load_case("vila40b", "single_wide")
    vision = manifest["config"]["vision"]
    t = read_safetensors(GOLDEN / "vila40b" / "checkpoint" / "vision_tower" / "model.safetensors")
    patch, side = vision["patch"], vision["image"] // vision["patch"]
    patches = arrays["pixel_values"][0].reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
    kernel = t["embeddings.patch_embedding.weight"].reshape(vision["hidden"], -1)
    x = patches.reshape(side * side, -1) @ kernel.T + t["embeddings.patch_embedding.bias"]
    x = np.concatenate([t["embeddings.class_embedding"][0], x]) + t["embeddings.position_embedding"][0]
    for index in range(vision["layers"]):
        x = intern_block(x, t, f"encoder.layers.{index}.", vision["heads"])
    assert np.abs(x[1:] - arrays["vision_features"][0]).max() < manifest["tolerance"]["vision_features"]


@pytest.fixture
def awq_pack(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator's packing module, which needs numpy only."""
    monkeypatch.syspath_prepend(str(GOLDEN))
    return pytest.importorskip("awq_pack")


def test_llm_awq_v2_packing_by_formula(awq_pack: Any) -> None:
    """Every nibble is where the layout's formula puts it, and unpacking inverts packing."""
    rng = np.random.default_rng(1)
    q, scale, zero = awq_pack.quantize_rtn(rng.standard_normal((8, 256)).astype(np.float32))
    packed = awq_pack.pack_llm_awq_v2(q, scale, zero)
    words = packed["qweight"].view(np.uint32)
    assert packed["qweight"].shape == (2, 256)
    for row in range(8):
        strip, i = divmod(row, 4)
        for word in range(4 * 8):
            block, t = divmod(word, 8)
            value = int(words[strip, 32 * block + 8 * i + t])
            for m in range(8):
                k = 64 * block + 32 * (t // 4) + 2 * (t % 4) + 8 * (m % 4) + m // 4
                assert (value >> (4 * m)) & 15 == q[row, k]
    assert packed["scales"].shape == packed["scaled_zeros"].shape == (8, 8)
    assert not packed["scales"][2:].any()
    back, weights = awq_pack.unpack_llm_awq_v2(**packed)
    assert np.array_equal(back, q)
    zeros = -(zero.astype(np.float32) * scale).astype(np.float16).astype(np.float32)
    assert np.array_equal(weights[:, 130], q[:, 130] * scale[:, 1].astype(np.float32) + zeros[:, 1])


def test_autoawq_gemm_packing_by_formula(awq_pack: Any) -> None:
    """The same for AutoAWQ's interleaved words."""
    rng = np.random.default_rng(2)
    q, scale, zero = awq_pack.quantize_rtn(rng.standard_normal((16, 256)).astype(np.float32))
    packed = awq_pack.pack_autoawq_gemm(q, scale, zero)
    assert packed["qweight"].shape == (256, 2)
    assert packed["qzeros"].shape == (2, 2)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    for k in (0, 1, 129, 255):
        for column in range(2):
            value = int(packed["qweight"].view(np.uint32)[k, column])
            assert [(value >> (4 * j)) & 15 for j in range(8)] == [q[8 * column + o, k] for o in order]
    back, weights = awq_pack.unpack_autoawq_gemm(**packed)
    assert np.array_equal(back, q)
    difference = q[:, 130].astype(np.float32) - zero[:, 1].astype(np.float32)
    assert np.array_equal(weights[:, 130], difference * scale[:, 1].astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vila3b_s2"])
def test_made_again_it_is_the_same(variant: str, tmp_path: Path) -> None:
    """The generator gives the stored prompts, ids and arrays again."""
    for module in ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "PIL"):
        pytest.importorskip(module, reason="making fixtures needs the reference's libraries")
    command = [sys.executable, "-B", str(GOLDEN / "make_golden.py"), "--out", str(tmp_path), "--variant", variant]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    stored, made = (read_json(root / variant / "manifest.json") for root in (GOLDEN, tmp_path))
    assert made["config"] == stored["config"]
    texts = ("prompt", "input_ids", "decoded_skip_special", "stop_token_id", "sequence_length")
    for old, new in zip(stored["cases"], made["cases"], strict=True):
        assert {k: v for k, v in new.items() if k in texts} == {k: v for k, v in old.items() if k in texts}
        with np.load(GOLDEN / variant / old["file"]) as a, np.load(tmp_path / variant / new["file"]) as b:
            assert set(a.files) == set(b.files)
            for key in a.files:
                if a[key].dtype == np.int32:
                    assert np.array_equal(a[key], b[key]), key
                else:
                    assert np.abs(a[key] - b[key]).max() <= 1e-4, key
