"""Published weight files: what is read, by whole tensors and by rows, and which damage is noticed before reading."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import convert_helpers as h
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vila_engine import _core
from vila_engine.convert.readers import open_tensors, read_safetensors_header

TYPED = (_core.CheckpointError, _core.UnsupportedError, _core.IoError)
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write_raw(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file with any header, and any length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def sample() -> h.Tensors:
    """Tensors of several types and ranks."""
    random = np.random.default_rng(0)
    return {
        "matrix": h.Raw("F32", random.standard_normal((7, 5)).astype(np.float32)),
        "brain": h.Raw("BF16", random.integers(0, 0x7F80, (6, 2, 3)).astype(np.uint16)),
        "half": h.Raw("F16", random.standard_normal((4, 3)).astype(np.float16)),
        "scalar": h.Raw("F32", np.float32(3).reshape(())),
        "empty": h.Raw("F32", np.zeros((0, 4), np.float32)),
        "integers": h.Raw("I32", np.arange(-6, 6, dtype=np.int32).reshape(4, 3)),
    }


def test_tensors_and_rows_are_read(tmp_path: Path) -> None:
    tensors = sample()
    (tmp_path / "model.safetensors").write_bytes(h.safetensors_bytes(tensors))
    with open_tensors(tmp_path) as source:
        assert set(source.names()) == set(tensors)
        for name, raw in tensors.items():
            whole = raw.as_f32() if raw.dtype == "BF16" else raw.values
            info = source.info(name)
            assert info.shape == whole.shape
            assert info.dtype == {"BF16": "bfloat16"}.get(raw.dtype, whole.dtype.name)
            found = source.read(name)
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, whole)
            for begin in range(len(whole) + 1 if whole.ndim else 0):
                for end in range(begin, len(whole) + 1):
                    np.testing.assert_array_equal(source.read(name, (begin, end)), whole[begin:end])


def test_bfloat16_is_exact(tmp_path: Path) -> None:
    """All 65,536 patterns, not-a-number included, are the upper halves of float32 patterns."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    (tmp_path / "model.safetensors").write_bytes(h.safetensors_bytes({"x": h.Raw("BF16", bits)}))
    with open_tensors(tmp_path) as source:
        np.testing.assert_array_equal(source.read("x").view(np.uint32), bits.astype(np.uint32) << 16)


def test_questions_without_an_answer(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(h.safetensors_bytes(sample()))
    with open_tensors(tmp_path) as source:
        with pytest.raises(_core.CheckpointError, match="expected one of 6 tensors, got no such name"):
            source.read("other")
        for name, rows in (("matrix", (0, 8)), ("matrix", (-1, 2)), ("matrix", (3, 2)), ("scalar", (0, 0))):
            with pytest.raises(_core.CheckpointError, match="expected rows within the shape"):
                source.read(name, rows)


def test_a_file_that_shrinks_after_opening(tmp_path: Path) -> None:
    data = h.safetensors_bytes({"x": h.Raw("F32", np.ones((8, 8), np.float32))})
    (tmp_path / "model.safetensors").write_bytes(data)
    with open_tensors(tmp_path) as source:
        (tmp_path / "model.safetensors").write_bytes(data[:-100])
        with pytest.raises(_core.IoError, match=r"expected 256 bytes at .*, got 156"):
            source.read("x")
        (tmp_path / "model.safetensors").unlink()
        source.close()
        with pytest.raises(_core.IoError, match="expected a readable file, got No such file"):
            source.read("x")


DAMAGED = [
    (b"", b"", 100, "expected a header that fits a file of 8 bytes, got a length of 100"),
    (b"{}", b"", 1 << 63, "got a length of 9223372036854775808"),
    (b"{}", b"\0" * 40, 100_000_001, "got a length of 100000001"),
    (b"{}", b"x", None, "expected 10 bytes as the header says, got 11"),
    (b"[]", b"", None, "expected a JSON object, got list"),
    (b"{", b"", None, "expected JSON, got"),
    (b"\xff", b"", None, "expected JSON, got"),
    (b"[" * 100_000, b"", None, "expected JSON, got"),
    (b'{"a":1,"a":1}', b"", None, "expected every key once, got ..a.. twice"),
    ({"a": 1}, b"", None, "a: expected dtype, shape and data_offsets, got 1"),
    ({"a": {**ENTRY, "more": 1}}, b"\0" * 24, None, "expected dtype, shape and data_offsets"),
    ({"a": {"dtype": "F32", "shape": [2, 3]}}, b"\0" * 24, None, "expected dtype, shape and data_offsets"),
    ({"a": {**ENTRY, "shape": [2, -3]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "shape": [2.0, 3]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "shape": [True, 6]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "shape": "6"}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "shape": [1] * 17}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "shape": [1 << 70]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "data_offsets": [0]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "data_offsets": [-24, 0]}}, b"\0" * 24, None, "expected a shape and two offsets"),
    ({"a": {**ENTRY, "data_offsets": [24, 0]}}, b"\0" * 24, None, "expected 24 bytes for float32 .2, 3., got offsets"),
    ({"a": {**ENTRY, "data_offsets": [0, 20]}}, b"\0" * 20, None, "expected 24 bytes for float32"),
    ({"a": {**ENTRY, "shape": [1 << 40, 1 << 40]}}, b"\0" * 24, None, "bytes for float32"),
    ({"a": {**ENTRY, "data_offsets": [4, 28]}}, b"\0" * 28, None, "a: expected numbers from byte 0 on, without gap"),
    ({"a": ENTRY, "b": ENTRY}, b"\0" * 24, None, "b: expected numbers from byte 24 on, without gap or overlap, got 0"),
    ({"a": ENTRY}, b"\0" * 23, None, "expected .* bytes as the header says, got"),
    ({"a": ENTRY}, b"\0" * 25, None, "expected .* bytes as the header says, got"),
]


@pytest.mark.parametrize(("header", "data", "length", "message"), DAMAGED)
def test_damaged_headers(header: Any, data: bytes, length: int | None, message: str, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "model.safetensors", header, data, length)
    with pytest.raises(_core.CheckpointError, match=message):
        read_safetensors_header(path)


def test_files_shorter_than_a_length(tmp_path: Path) -> None:
    for size in range(8):
        (tmp_path / "x").write_bytes(b"\0" * size)
        with pytest.raises(_core.CheckpointError, match=f"expected a header that fits a file of {size} bytes"):
            read_safetensors_header(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64", "f32", "", None, ["F32"]])
def test_types_that_are_not_read(dtype: Any, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x", {"a": {**ENTRY, "dtype": dtype}}, b"\0" * 24)
    with pytest.raises(_core.UnsupportedError, match="a: expected a type of F64, F32"):
        read_safetensors_header(path)


def test_a_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    data = h.safetensors_bytes(sample())
    for size in range(0, len(data), 7):
        (tmp_path / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(_core.CheckpointError, match="expected"):
            open_tensors(tmp_path)


@FUZZ
@given(data=st.data())
def test_mutated_files_give_typed_errors_or_their_numbers(data: st.DataObject, tmp_path: Path) -> None:
    bad = bytearray(h.safetensors_bytes({"a": sample()["matrix"], "b": sample()["half"]}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(bad) - 1, 200)))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                bad[place] = data.draw(st.integers(0, 255))
            case "cut":
                del bad[place : place + data.draw(st.integers(1, 8))]
            case "insert":
                bad[place:place] = data.draw(st.binary(min_size=1, max_size=8))
    (tmp_path / "model.safetensors").write_bytes(bad)
    try:
        with open_tensors(tmp_path) as source:
            for name in source.names():
                assert source.read(name).shape == source.info(name).shape
    except TYPED as error:
        assert "expected" in str(error)


@FUZZ
@given(st.binary(max_size=100))
def test_random_bytes_give_typed_errors(tmp_path: Path, data: bytes) -> None:
    for name, size in (("a", len(data)), ("b", 1 << 40)):
        (tmp_path / name).write_bytes(struct.pack("<Q", size) + data)
        try:
            assert read_safetensors_header(tmp_path / name) == {}
        except TYPED as error:
            assert "expected" in str(error)


def shard(folder: Path, mapping: dict[str, str], *, suffix: str = "safetensors", stem: str = "model") -> None:
    """Writes shards of one number per tensor, and their index."""
    for file in set(mapping.values()):
        part = {name: h.Raw("F32", np.ones(1, np.float32)) for name, home in mapping.items() if home == file}
        if suffix == "bin":
            h.write_torch(folder / file, part)
        else:
            (folder / file).write_bytes(h.safetensors_bytes(part))
    text = json.dumps({"metadata": {}, "weight_map": mapping})
    (folder / f"{stem}.{suffix}.index.json").write_text(text)


def test_which_files_are_looked_for(tmp_path: Path) -> None:
    """In this order: one safetensors file, an index of them, one of any name, then the same of torch.save."""

    def names() -> list[str]:
        with open_tensors(tmp_path) as source:
            return source.names()

    one = h.Raw("F32", np.ones(1, np.float32))
    with pytest.raises(
        _core.CheckpointError, match=r"expected model\.safetensors or pytorch_model\.bin, .* no weights"
    ):
        names()
    shard(tmp_path, {"from bin shards": "pytorch_model-1.bin"}, suffix="bin", stem="pytorch_model")
    assert names() == ["from bin shards"]
    h.write_torch(tmp_path / "pytorch_model.bin", {"from bin": one})
    assert names() == ["from bin"]
    (tmp_path / "weights.safetensors").write_bytes(h.safetensors_bytes({"from a lone file": one}))
    assert names() == ["from a lone file"]
    shard(tmp_path, {"from shards": "model-1.safetensors"})
    assert names() == ["from shards"]
    (tmp_path / "model.safetensors").write_bytes(h.safetensors_bytes({"from one file": one}))
    assert names() == ["from one file"]
    with pytest.raises(_core.CheckpointError, match="got no such folder"):
        open_tensors(tmp_path / "nowhere")


def test_shards_and_index_must_agree(tmp_path: Path) -> None:
    mapping = {name: f"model-{place}.safetensors" for name, place in (("a", 1), ("b", 1), ("c", 2), ("d", 3))}
    shard(tmp_path, mapping)
    with open_tensors(tmp_path) as source:
        assert sorted(source.names()) == ["a", "b", "c", "d"]

    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": mapping | {"e": "model-1.safetensors", "c": "model-3.safetensors"}}))
    with pytest.raises(_core.CheckpointError, match=r"2 are not there: c \(model-3.safetensors\), e \(model-1"):
        open_tensors(tmp_path)

    index.write_text(json.dumps({"weight_map": mapping}))
    (tmp_path / "model-3.safetensors").write_bytes((tmp_path / "model-1.safetensors").read_bytes())
    with pytest.raises(_core.CheckpointError, match="expected every tensor once, got 'a' also in model-1"):
        open_tensors(tmp_path)

    for number in (2, 3):
        (tmp_path / f"model-{number}.safetensors").unlink()
    with pytest.raises(_core.CheckpointError) as caught:
        open_tensors(tmp_path)
    assert "2 are missing: model-2.safetensors (1 tensors), model-3.safetensors (1 tensors)" in str(caught.value)
    assert "got ['model-1.safetensors']" in str(caught.value)


@pytest.mark.parametrize(
    "file",
    ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin", "", 7, None, "a\0.safetensors"],
)
def test_an_index_names_only_files_beside_it(file: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(_core.CheckpointError, match=r"a: expected the name of a \.safetensors file beside the index"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("value", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": None}])
def test_an_index_without_a_map(value: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(value))
    with pytest.raises(_core.CheckpointError, match="expected an object weight_map, got"):
        open_tensors(tmp_path)
