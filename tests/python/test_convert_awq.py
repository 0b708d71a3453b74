"""4-bit AWQ checkpoints are kept bit for bit: compared with an unpacking after the description of the two layouts."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import convert_helpers as h
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vila_engine import _core
from vila_engine.convert import convert
from vila_engine.convert.awq import AwqLayout, AwqMatrix
from vila_engine.convert.readers import TensorSource, open_tensors

GEMM_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def llm_awq_values(qweight: h.Array) -> h.Array:
    """Unpacks int16 [N/4, K] number by number: nibble m of word t of row i and block b."""
    strips, k = qweight.shape
    q = np.zeros((4 * strips, k), np.int64)
    for strip in range(strips):
        words = np.frombuffer(qweight[strip].tobytes(), "<u4").tolist()
        for at, word in enumerate(words):
            block, row, t = at // 32, at % 32 // 8, at % 8
            for m in range(8):
                column = 64 * block + 32 * (t // 4) + 2 * (t % 4) + 8 * (m % 4) + m // 4
                q[4 * strip + row, column] = word >> (4 * m) & 15
    return q


def gemm_values(packed: h.Array) -> h.Array:
    """Unpacks int32 [rows, N/8] number by number to [rows, N]."""
    rows, n_words = packed.shape
    values = np.zeros((rows, 8 * n_words), np.int64)
    for row, column in np.ndindex(rows, n_words):
        for nibble, place in enumerate(GEMM_ORDER):
            values[row, 8 * column + place] = int(packed[row, column]) >> (4 * nibble) & 15
    return values


def expected_matrix(variant: str, name: str) -> tuple[h.Array, h.Array, h.Array]:
    """Integers [N, K], scales [N, G] and zero points or offsets [N, G] of a linear layer."""
    llm = h.GOLDEN / variant / "checkpoint" / "llm"
    if variant == "autoawq_gqa":
        tensors = h.read_safetensors(llm / "model.safetensors")
        qweight, qzeros, scales = (tensors[f"{name}.{part}"].values for part in ("qweight", "qzeros", "scales"))
        return gemm_values(qweight).T, scales.T, gemm_values(qzeros).T
    tensors = h.read_torch(next(llm.glob("*.pt")))
    qweight, scales, offsets = (tensors[f"{name}.{part}"].values for part in ("qweight", "scales", "scaled_zeros"))
    groups = qweight.shape[1] // 128
    return llm_awq_values(qweight), scales[:groups].T, offsets[:groups].T


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize(("variant", "form"), [("vila3b_awq", "w4p16x8g128o"), ("autoawq_gqa", "w4p16x8g128z")])
def test_values_scales_and_zeros_are_kept(variant: str, form: str, linear: str, converted: dict[str, Path]) -> None:
    name = f"model.layers.0.{linear}"
    q, scales, thirds = expected_matrix(variant, name)
    path = converted[variant] / "model.safetensors"
    assert h.read_header(path)[0]["__metadata__"][f"llm.{name}"] == form
    found, scale, third = h.unpack(h.read_safetensors(path), form, f"llm.{name}", *q.shape)
    assert scale is not None
    assert third is not None
    np.testing.assert_array_equal(found, q)
    assert len(np.unique(q)) == 16  # a fixture of zeros would prove nothing
    for spread, published in ((scale, scales), (third, thirds)):
        bits = "u2" if spread.dtype == np.float16 else "u1"
        wanted = np.repeat(published.astype(spread.dtype), 128, axis=1)
        np.testing.assert_array_equal(spread.view(bits), wanted.view(bits))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both packed fixtures, converted with their values kept."""
    folder = tmp_path_factory.mktemp("awq")
    for variant in h.PACKED:
        convert(h.GOLDEN / variant / "checkpoint", folder / variant, weights="int4")
    return {variant: folder / variant for variant in h.PACKED}


@pytest.mark.parametrize("variant", h.PACKED)
def test_floats_are_what_the_integers_stand_for(variant: str, tmp_path: Path) -> None:
    report = convert(h.GOLDEN / variant / "checkpoint", tmp_path / "m", weights="f32")
    assert any(note.endswith("values written as f32, not as they are") for note in report.notes)
    name = "model.layers.0.mlp.down_proj"
    q, scales, thirds = expected_matrix(variant, name)
    wide = [np.repeat(part.astype(np.float32), 128, axis=1) for part in (scales, thirds)]
    if variant == "autoawq_gqa":
        meant = (q.astype(np.float32) - wide[1]) * wide[0]
    else:
        meant = q.astype(np.float32) * wide[0] + wide[1]
    found = h.unpack(h.read_safetensors(tmp_path / "m" / "model.safetensors"), "f32p16", f"llm.{name}", *q.shape)[0]
    np.testing.assert_array_equal(found, meant)


def test_the_layout_is_told(converted: dict[str, Path]) -> None:
    for variant, layout in (("vila3b_awq", "llm-awq"), ("autoawq_gqa", "autoawq")):
        assert json.loads((converted[variant] / "config.json").read_text())["source"]["layout"] == layout


def test_a_stale_index_beside_the_pt_is_not_read(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("vila3b_awq", tmp_path)
    assert (checkpoint / "llm" / "model.safetensors.index.json").is_file()
    report = convert(checkpoint, tmp_path / "m")
    (file,) = (checkpoint / "llm").glob("*.pt")
    assert f"language model read from {file.name}" in report.notes
    file.unlink()
    with pytest.raises(_core.CheckpointError, match=r"expected all 2 files that it names, but 2 are missing"):
        convert(checkpoint, tmp_path / "other")


def test_two_pt_files_are_one_too_many(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("vila3b_awq", tmp_path)
    (file,) = (checkpoint / "llm").glob("*.pt")
    (file.parent / "second.pt").write_bytes(file.read_bytes())
    with pytest.raises(_core.CheckpointError, match=r"expected at most one \.pt file, got \['second.pt'"):
        convert(checkpoint, tmp_path / "m")


def test_everything_wrong_with_packed_tensors_is_listed(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("autoawq_gqa", tmp_path)
    at = "model.layers.0."

    def spoil(tensors: h.Tensors) -> None:
        del tensors[at + "mlp.up_proj.scales"]
        del tensors[at + "mlp.gate_proj.qzeros"]
        qweight = tensors[at + "mlp.down_proj.qweight"].values
        tensors[at + "mlp.down_proj.qweight"] = h.Raw("I32", qweight[:-1])
        scales = tensors[at + "self_attn.q_proj.scales"].values
        tensors[at + "self_attn.q_proj.scales"] = h.Raw("F32", scales.astype(np.float32))
        tensors[at + "self_attn.q_proj.g_idx"] = h.Raw("I32", np.zeros(3, np.int32))

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil)
    with pytest.raises(_core.CheckpointError) as caught:
        convert(checkpoint, tmp_path / "m")
    lines = str(caught.value).splitlines()
    assert "got 5 problems" in lines[0]
    config = json.loads((checkpoint / "llm" / "config.json").read_text())
    k, n = config["intermediate_size"], config["hidden_size"]
    assert lines[1:] == [
        f"  - llm: {at}self_attn.q_proj.scales: expected float16 (1, 128), got float32 (1, 128)",
        f"  - llm: missing {at}mlp.gate_proj.qzeros",
        f"  - llm: missing {at}mlp.up_proj.scales",
        f"  - llm: {at}mlp.down_proj.qweight: expected int32 ({k}, {n // 8}), got int32 ({k - 1}, {n // 8})",
        f"  - llm: unknown tensor {at}self_attn.q_proj.g_idx",
    ]
    assert not (tmp_path / "m").exists()


OTHER_PACKINGS = [
    ({"quant_method": "gptq"}, "got .*'gptq', 4, 'gemm'"),
    ({"bits": 8}, "got .*'awq', 8, 'gemm'"),
    ({"version": "gemv"}, "got .*'awq', 4, 'gemv'"),
    ({"group_size": -1}, r"expected a group size of \(32, 64, 128\), got -1"),
]


@pytest.mark.parametrize(("change", "message"), OTHER_PACKINGS)
def test_other_packings_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("autoawq_gqa", tmp_path)
    path = checkpoint / "llm" / "config.json"
    config = json.loads(path.read_text())
    h.edit_json(path, quantization_config=config["quantization_config"] | change)
    with pytest.raises(_core.UnsupportedError, match=message):
        convert(checkpoint, tmp_path / "m")


def test_the_first_llm_awq_layout_is_named(tmp_path: Path) -> None:
    """llm-awq v1: int32 beside `zeros` or nothing."""
    checkpoint = h.copy_checkpoint("autoawq_gqa", tmp_path)

    def spoil(tensors: h.Tensors) -> None:
        for name in [name for name in tensors if name.endswith(".qzeros")]:
            del tensors[name]

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil)
    with pytest.raises(_core.UnsupportedError, match=r"expected llm-awq v2 .* or AutoAWQ .* packing, got int32"):
        convert(checkpoint, tmp_path / "m")


def test_infinite_scales_are_refused(tmp_path: Path) -> None:
    checkpoint = h.copy_checkpoint("autoawq_gqa", tmp_path)

    def spoil(tensors: h.Tensors) -> None:
        raw = tensors["model.layers.0.mlp.up_proj.scales"]
        values = raw.values.copy()
        values[0, 3] = np.inf
        tensors["model.layers.0.mlp.up_proj.scales"] = h.Raw("F16", values)

    h.edit_safetensors(checkpoint / "llm" / "model.safetensors", spoil)
    with pytest.raises(_core.CheckpointError, match=r"mlp\.up_proj\.weight: expected finite numbers"):
        convert(checkpoint, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def joined(blocks: list[tuple[int, AwqMatrix]]) -> list[h.Array]:
    """The values, scales and zero points or offsets of all blocks."""
    assert [begin for begin, _ in blocks] == sorted({begin for begin, _ in blocks})
    parts = []
    for part in ("q", "scales", "zeros", "offsets"):
        if getattr(blocks[0][1], part) is not None:
            parts.append(np.concatenate([getattr(block, part) for _, block in blocks]))
    return parts


def pack_llm_awq(q: h.Array) -> h.Array:
    """The inverse of llm_awq_values."""
    n, k = q.shape
    words = np.zeros((n // 4, k // 2), np.uint32)
    for row, column in np.ndindex(n, k):
        block, inside = divmod(column, 64)
        t = 4 * (inside // 32) + inside % 8 // 2
        m = inside % 32 // 8 + 4 * (inside % 2)
        words[row // 4, 32 * block + 8 * (row % 4) + t] |= np.uint32(q[row, column] << (4 * m))
    return words.view(np.int16)


def pack_gemm(values: h.Array) -> h.Array:
    """The inverse of gemm_values."""
    rows, n = values.shape
    words = np.zeros((rows, n // 8), np.uint32)
    for row, column in np.ndindex(rows, n):
        words[row, column // 8] |= np.uint32(values[row, column] << (4 * GEMM_ORDER.index(column % 8)))
    return words.view(np.int32)


def write_source(folder: Path, tensors: dict[str, tuple[str, h.Array]]) -> TensorSource:
    """A folder with one safetensors file."""
    data = h.safetensors_bytes({f"x.{name}": h.Raw(*pair) for name, pair in tensors.items()})
    (folder / "model.safetensors").write_bytes(data)
    return open_tensors(folder)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tiles=st.integers(1, 4), groups=st.integers(1, 3), step=st.sampled_from([8, 16, 48, 1000]), seed=st.integers(0, 999)
)
def test_llm_awq_unpacks_any_matrix(tiles: int, groups: int, step: int, seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    n, k = 8 * tiles, 128 * groups
    q = random.integers(0, 16, (n, k))
    scales, offsets = random.standard_normal((2, 8, n)).astype(np.float16)
    tensors = {"qweight": ("I16", pack_llm_awq(q)), "scales": ("F16", scales), "scaled_zeros": ("F16", offsets)}
    layout = AwqLayout("llm-awq", 128)
    with write_source(tmp_path, tensors) as source:
        assert layout.problems(source, "x", n, k) == []
        found = joined(list(layout.blocks(source, "x", n, k, step)))
    for part, wanted in zip(found, (q, scales[:groups].T, offsets[:groups].T), strict=True):
        np.testing.assert_array_equal(part, wanted)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from([32, 64, 128])),
    step=st.sampled_from([8, 16, 1000]),
    seed=st.integers(0, 999),
)
def test_autoawq_unpacks_any_matrix(sizes: tuple[int, int, int], step: int, seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    words, groups, group = sizes
    n, k = 8 * words, group * groups
    q, zeros = random.integers(0, 16, (k, n)), random.integers(0, 16, (groups, n))
    scales = random.standard_normal((groups, n)).astype(np.float16)
    tensors = {"qweight": ("I32", pack_gemm(q)), "qzeros": ("I32", pack_gemm(zeros)), "scales": ("F16", scales)}
    layout = AwqLayout("autoawq", group)
    with write_source(tmp_path, tensors) as source:
        assert layout.problems(source, "x", n, k) == []
        found = joined(list(layout.blocks(source, "x", n, k, step)))
    for part, wanted in zip(found, (q.T, scales.T, zeros.T), strict=True):
        np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("kind", ["llm-awq", "autoawq"])
def test_blocks_of_packed_matrices_are_small(kind: Any, tmp_path: Path) -> None:
    """Unpacking takes some blocks of 16 rows besides scales and, where outputs are columns, the packed matrix."""
    n, k, step = 2048, 1024, 16
    layout = AwqLayout(kind, 128)
    names = {"int16": "I16", "int32": "I32", "float16": "F16"}
    tensors = {part: (names[dtype], np.zeros(shape, dtype)) for part, (dtype, shape) in layout.parts(n, k).items()}
    scales_bytes = sum(array.nbytes for part, (_, array) in tensors.items() if part != "qweight")
    with write_source(tmp_path, tensors) as source:
        del tensors
        next(layout.blocks(source, "x", n, k, step))  # opens the file
        tracemalloc.start()
        for _ in layout.blocks(source, "x", n, k, step):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    packed_bytes = n * k // 2 if kind == "autoawq" else 0
    assert peak > scales_bytes
    # A block of q is a byte per number: two of them, the packed words, and two forms of one nibble as 32-bit words.
    assert peak < scales_bytes + packed_bytes + 5 * step * k + 100_000
    assert peak < n * k  # the whole matrix of q alone
