"""Random programs, random bytes and mutated files of torch.save: typed errors, or tensors within the file."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from pathlib import Path

import convert_helpers as h
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pickle_watch import read_watched
from vila_engine.convert.torch_file import TorchFile

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text(value: str) -> bytes:
    """Opcode of a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def check_bounds(found: TorchFile | None) -> None:
    """What was found lies within the file."""
    for stored in found.tensors.values() if found else ():
        item = {"bool": 1, "bfloat16": 2}.get(stored.dtype) or np.dtype(stored.dtype).itemsize
        last = sum((size - 1) * step for size, step in zip(stored.shape, stored.strides, strict=True))
        if 0 not in stored.shape:
            assert stored.offset >= 0
            assert stored.offset + (last + 1) * item <= stored.file.stat().st_size


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PARTS = st.one_of(
    st.sampled_from(OPCODES),
    st.binary(min_size=1, max_size=4),
    st.sampled_from(
        [b"posix\nsystem\n", b"torch\nFloatStorage\n", text("0"), text("storage"), b"K\x01", b"h\x00", b"q\x00"]
    ),
)


@FUZZ
@given(st.lists(PARTS, max_size=40))
def test_random_programs_execute_nothing(tmp_path: Path, parts: list[bytes]) -> None:
    data = b"\x80\x04" + b"".join(parts)
    check_bounds(read_watched(h.zip_bytes(tmp_path / "x.pt", data, {"0": b"\0" * 4})))
    (tmp_path / "y.bin").write_bytes(data)
    check_bounds(read_watched(tmp_path / "y.bin"))


@FUZZ
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_random_bytes(tmp_path: Path, data: bytes, head: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(head + data)
    check_bounds(read_watched(tmp_path / "x.pt"))


@pytest.mark.parametrize("write", [h.write_torch, h.write_legacy_torch])
@FUZZ
@given(data=st.data())
def test_mutated_files(write: Callable[[Path, h.Tensors], Path], data: st.DataObject, tmp_path: Path) -> None:
    good = write(tmp_path / "x.pt", {"a": h.Raw("F32", np.ones((2, 3), np.float32))}).read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bad) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                bad[place] = data.draw(st.integers(0, 255))
            case "cut":
                del bad[place : place + data.draw(st.integers(1, 8))]
            case "insert":
                bad[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        if not bad:
            break
    (tmp_path / "x.pt").write_bytes(bad)
    check_bounds(read_watched(tmp_path / "x.pt"))
