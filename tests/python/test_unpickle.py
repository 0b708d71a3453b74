"""Files of torch.save: state dictionaries are found, and attacks get a typed error and execute nothing.

Each attack is first run with the standard library, which must fall for it, so that the attacks are known to be real.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import convert_helpers as h
import numpy as np
import pytest
from pickle_watch import DAMAGED_OR_REFUSED, TYPED, read_watched, refused
from vila_engine import _core
from vila_engine.convert.readers import open_torch


class Reduce:
    """An object that pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def text(value: str) -> bytes:
    """Opcode of a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def attacks(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Name and pickle; each makes the file `canary` when the standard library loads it."""
    touch, write = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"os.system, protocol {protocol}", pickle.dumps(Reduce(os.system, touch), protocol)
    yield "eval", pickle.dumps(Reduce(eval, write), 2)
    yield "exec", pickle.dumps(Reduce(exec, write), 2)
    yield "subprocess.Popen", pickle.dumps(Reduce(subprocess.Popen, ["touch", str(canary)]), 2)
    yield "subprocess.check_output", pickle.dumps(Reduce(subprocess.check_output, ["touch", str(canary)]), 4)
    yield "inside a dictionary", pickle.dumps({"a": [1, {"b": Reduce(os.system, touch)}]}, 2)
    system, argument = b"cposix\nsystem\n", text(touch)
    yield "STACK_GLOBAL", b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + argument + b"\x85R."
    yield "STACK_GLOBAL, path of attributes", b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93" + argument + b"\x85R."
    yield (
        "STACK_GLOBAL, names from the memo",
        (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940\x8c\x00\x94000h\x00h\x01\x93" + argument + b"\x85R.").replace(
            b"000h\x00", b"00h\x00"
        ),
    )
    yield "INST", b"(S'" + touch.encode() + b"'\niposix\nsystem\n."
    yield "OBJ", b"(" + system + argument + b"o."
    lazy = b"cbuiltins\nmap\n(" + system + b"](" + argument + b"et"
    yield "NEWOBJ", b"\x80\x02cbuiltins\nbytes\n" + lazy + b"\x81\x85\x81."
    yield "NEWOBJ_EX", b"\x80\x04cbuiltins\nbytes\n" + lazy + b"}\x92\x85}\x92."
    setstate = b"}(" + text("__setstate__") + system + b"ub"
    yield "BUILD", b"\x80\x02ctypes\nSimpleNamespace\n)\x81" + setstate + argument + b"b."
    getattr_ = b"cbuiltins\ngetattr\n"
    yield (
        "nested getattr",
        (b"\x80\x02" + getattr_ + b"c__main__\n__builtins__\n" + text("exec") + b"\x86R" + text(write) + b"\x85R."),
    )
    yield "operator.attrgetter", (
        b"\x80\x02coperator\nattrgetter\n" + text("system") + b"\x85Rcimportlib\nimport_module\n" + text("os")
        + b"\x85R\x85R" + argument + b"\x85R."
    )  # fmt: skip
    yield "after a STOP of its own", b"\x80\x02}0" + system + argument + b"\x85R."


NAMES = [name for name, _ in attacks(Path("/canary"))]


def wait_for(canary: Path) -> bool:
    """Whether the file is there, or comes within five seconds: a process that was started may be slow."""
    for _ in range(100):
        if canary.exists():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", NAMES)
def test_attacks_get_an_error_and_execute_nothing(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = dict(attacks(canary))[name]
    (tmp_path / "payload").write_bytes(payload)
    victim = f"import pickle; pickle.load(open({str(tmp_path / 'payload')!r}, 'rb'))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", victim], capture_output=True, timeout=30, check=False)
    assert wait_for(canary), "not a real attack"
    canary.unlink()

    state = {"x": h.tensor_call(h.storage_id("0", 1), (1,))}
    inside = h.pickled(state)[:-1] + b"0" + payload  # a good dictionary is dropped, then the attack comes
    for index, data in enumerate((payload, inside)):
        refused(h.zip_bytes(tmp_path / f"{index}.pt", data, {"0": b"\0" * 4}), _core.UnsupportedError)
    legacy = b"".join(h.pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "legacy.bin").write_bytes(legacy + payload)
    refused(tmp_path / "legacy.bin", _core.UnsupportedError)
    (tmp_path / "first.bin").write_bytes(payload)
    refused(tmp_path / "first.bin", TYPED)
    time.sleep(0.02)
    assert not canary.exists()


FORBIDDEN = {
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pstorage\n.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"a.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05N\x98.",
    "EMPTY_SET": b"\x80\x04\x8f.",
    "FROZENSET": b"\x80\x04(\x91.",
    "INST": b"(ios\nsystem\n.",
    "OBJ": b"(N.".replace(b"N", b"No"),
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "BUILD": b"\x80\x02N}b.",
    "BUILD on a class": b"\x80\x02ctorch\nSize\n}b.",
    "a call of a string": b"\x80\x02" + text("os.system") + b")R.",
    "a call of a class": b"\x80\x02N)R.",
    "a storage called": b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R.",
    "a global of a global": b"\x80\x04\x8c\x0bcollections\x8c\x19OrderedDict.__init__.name\x93.",
    "a global with a blank": b"\x80\x02ccollections\nOrderedDict os\n.",
    "a module that is allowed only in part": b"\x80\x02ctorch\nload\n.",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_everything_else_that_a_pickle_can_ask_for_is_refused(name: str, tmp_path: Path) -> None:
    message = refused(
        h.zip_bytes(tmp_path / "x.pt", FORBIDDEN[name], {}), (_core.CheckpointError, _core.UnsupportedError)
    )  # type: ignore[arg-type]
    if name.isupper():
        assert f"opcode {name}" in message
        assert "nothing was run" in message


def ids() -> dict[str, Any]:
    """Persistent ids that torch.save never writes."""
    kind = h.Global("torch", "FloatStorage")
    return {
        "a string": "storage",
        "a number": 7,
        "None": None,
        "a list": ["storage", kind, "0", "cpu", 1],
        "another word": ("module", kind, "0", "cpu", 1),
        "too short": ("storage", kind, "0", "cpu"),
        "too long": ("storage", kind, "0", "cpu", 1, None, None),
        "no class": ("storage", "FloatStorage", "0", "cpu", 1),
        "another class": ("storage", h.Global("torch", "Size"), "0", "cpu", 1),
        "a key that is no string": ("storage", kind, 0, "cpu", 1),
        "no number of elements": ("storage", kind, "0", "cpu", None),
        "a negative number": ("storage", kind, "0", "cpu", -1),
        "an enormous number": ("storage", kind, "0", "cpu", 1 << 70),
        "a truth value": ("storage", kind, "0", "cpu", True),
        "a path": ("storage", kind, "../../0", "cpu", 1),
        "a view": ("storage", kind, "0", "cpu", 1, ("key", 0, 1)),
    }


@pytest.mark.parametrize("name", ids())
def test_persistent_ids_of_a_wrong_kind(name: str, tmp_path: Path) -> None:
    state = {"x": h.tensor_call(h.Persistent(ids()[name]), (1,))}
    path = h.zip_bytes(tmp_path / "x.pt", h.pickled(state), {"0": b"\0" * 4})
    assert refused(path, DAMAGED_OR_REFUSED)


def long_pickle(part: bytes, n: int) -> bytes:
    """A part n times between a beginning and a STOP."""
    return b"\x80\x04" + part * n + b"."


BOMBS = {
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x02}q\x00" + text("x") + b"h\x00s.",
    "arguments of themselves": (
        b"\x80\x02]q\x00h\x00a0ctorch._utils\n_rebuild_tensor_v2\n(" + b"h\x00" * 6 + b"tR."
    ),
    "pairs of themselves": b"\x80\x02]q\x00h\x00a0ccollections\nOrderedDict\nh\x00\x85R.",
    "a deep tuple": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "a deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep marks": long_pickle(b"(", 1_000_000),
    "too many steps": long_pickle(b"N0", 600_000),
    "doubling": b"\x80\x02N" + b"2\x86q\x00" * 200_000 + b".",
    "a large memo": long_pickle(b"N\x94", 300_000),
    "far memo": b"\x80\x02Nr\xff\xff\xff\xff00p" + b"9" * 4_000 + b"\n.",
    "an endless number": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "an enormous integer": b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    "pairs again and again": (
        b"\x80\x02]q\x00(" + b"N\x4b\x01\x86" * 30_000 + b"e0"
        + b"ccollections\nOrderedDict\nh\x00\x85R0" * 200 + b"N."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_quickly_and_small(name: str, tmp_path: Path) -> None:
    refused(h.zip_bytes(tmp_path / "x.pt", BOMBS[name], {}), _core.CheckpointError)


LENGTHS = {
    "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.",
    "BINUNICODE8, beyond": b"\x80\x04\x8d" + struct.pack("<Q", (1 << 64) - 1) + b"abc.",
    "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "BINUNICODE": b"\x80\x02X" + struct.pack("<I", (1 << 32) - 1) + b"abc.",
    "BINBYTES": b"\x80\x03B" + struct.pack("<I", (1 << 32) - 1) + b"abc.",
    "BINSTRING": b"T" + struct.pack("<i", (1 << 31) - 1) + b"abc.",
    "BINSTRING, negative": b"T" + struct.pack("<i", -1) + b"abc.",
    "LONG4": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"abc.",
    "LONG4, negative": b"\x80\x02\x8b" + struct.pack("<i", -1) + b"abc.",
    "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"\x8d",
    "no end of line": b"cposix",
    "no opcode": b"\xff",
    "nothing": b"",
    "no STOP": b"\x80\x02N",
    "nothing left": b"\x80\x02.",
    "two left": b"\x80\x02NN.",
    "an open mark": b"\x80\x02(N.",
    "no mark": b"\x80\x02Nt.",
    "an empty stack": b"\x80\x02\x87.",
    "an unwritten memo": b"\x80\x02h\x05.",
    "no list": b"\x80\x02NNa.",
    "an odd dictionary": b"\x80\x02}(Nu.",
    "a key that is a list": b"\x80\x02}]Ns.",
    "a key twice": b"\x80\x02}(K\x01NK\x01Nu.",
    "no dictionary": b"\x80\x02K\x05.",
    "no tensor": h.pickled({"x": 1}),
    "no name": h.pickled({1: h.tensor_call(h.storage_id("0", 1), (1,))}),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_damaged_pickles(name: str, tmp_path: Path) -> None:
    refused(h.zip_bytes(tmp_path / "x.pt", LENGTHS[name], {"0": b"\0" * 4}), _core.CheckpointError)


BAD_TENSORS = {
    "a storage that is too small": h.tensor_call(h.storage_id("0", 6), (7,)),
    "rows that are too long": h.tensor_call(h.storage_id("0", 6), (2, 3), (4, 1)),
    "an offset behind the end": h.tensor_call(h.storage_id("0", 6), (1,), offset=6),
    "a negative offset": h.tensor_call(h.storage_id("0", 6), (1,), offset=-1),
    "a negative stride": h.tensor_call(h.storage_id("0", 6), (3,), (-1,), offset=2),
    "a negative size": h.tensor_call(h.storage_id("0", 6), (-1,), (1,)),
    "a stride too few": h.tensor_call(h.storage_id("0", 6), (2, 3), (1,)),
    "more elements than the storage": h.tensor_call(h.storage_id("0", 6), (1 << 20, 1 << 20), (0, 0)),
    "a product that overflows": h.tensor_call(h.storage_id("0", 6), (1 << 32, 1 << 32), (0, 0)),
    "too many dimensions": h.tensor_call(h.storage_id("0", 6), (1,) * 17),
    "no shape": h.Call(h.REBUILD, (h.storage_id("0", 6), 0, None, (1,), False, None)),
    "a list as shape": h.Call(h.REBUILD, (h.storage_id("0", 6), 0, [2], (1,), False, None)),
    "no storage": h.Call(h.REBUILD, ("0", 0, (2,), (1,), False, None)),
    "too few arguments": h.Call(h.REBUILD, (h.storage_id("0", 6),)),
    "a storage that says more than the file": h.tensor_call(h.storage_id("0", 7), (1,)),
    "a storage that says less than the file": h.tensor_call(h.storage_id("0", 5), (1,)),
    "a storage of another type": h.tensor_call(h.storage_id("0", 6, "F16"), (1,)),
    "a storage that is not there": h.tensor_call(h.storage_id("1", 6), (1,)),
    "a parameter of nothing": h.Call(h.Global("torch._utils", "_rebuild_parameter"), (None, True, None)),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_do_not_fit_their_storage(name: str, tmp_path: Path) -> None:
    path = h.zip_bytes(tmp_path / "x.pt", h.pickled({"x": BAD_TENSORS[name]}), {"0": b"\0" * 24})
    refused(path, _core.CheckpointError)


def test_one_storage_as_two_types(tmp_path: Path) -> None:
    state = {"a": h.tensor_call(h.storage_id("0", 6), (6,)), "b": h.tensor_call(h.storage_id("0", 12, "F16"), (12,))}
    message = refused(h.zip_bytes(tmp_path / "x.pt", h.pickled(state), {"0": b"\0" * 24}), _core.CheckpointError)
    assert "expected storage '0' as 6 float32 like before, got 12 float16" in message


GOOD = h.pickled({"x": h.tensor_call(h.storage_id("0", 6), (2, 3))})


def zipped(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_archives_with_tricks(tmp_path: Path) -> None:
    storage = ("a/data/0", b"\0" * 24)
    bomb = zipped(tmp_path / "bomb.pt", [("a/data.pkl", b"\0" * 200_000_000)], zipfile.ZIP_DEFLATED)
    assert "stored as it is" in refused(bomb, _core.CheckpointError)
    deflated = zipped(tmp_path / "1.pt", [("a/data.pkl", GOOD), storage], zipfile.ZIP_DEFLATED)
    assert "stored as it is" in refused(deflated, _core.CheckpointError)
    large = zipped(tmp_path / "2.pt", [("a/data.pkl", GOOD + b"\0" * (33 << 20))])
    assert "at most" in refused(large, _core.CheckpointError)
    for index, members in enumerate((
        [("data.pkl", GOOD)],
        [("a/b/data.pkl", GOOD)],
        [("a/data.pkl", GOOD), ("b/data.pkl", GOOD)],
        [("a/data.pkl", GOOD), storage, storage],
        [("a/data.pkl", GOOD), ("../data/0", b"\0" * 24)],
        [("a/data.pkl", GOOD), ("/a/data/0", b"\0" * 24)],
        [],
    )):  # fmt: skip
        refused(zipped(tmp_path / f"m{index}.pt", members), _core.CheckpointError)
    order = [("a/data.pkl", GOOD), storage, ("a/byteorder", b"big")]
    assert "byteorder b'big'" in refused(zipped(tmp_path / "3.pt", order), _core.UnsupportedError)


def test_names_of_members_never_become_paths(tmp_path: Path) -> None:
    """An archive whose folder is called ".." is read like any other and writes nothing."""
    (tmp_path / "deep").mkdir()
    path = zipped(tmp_path / "deep" / "x.pt", [("../data.pkl", GOOD), ("../data/0", b"\0" * 24)])
    found = read_watched(path)
    assert found is not None
    assert found.tensors["x"].shape == (2, 3)
    assert sorted(h.tree(tmp_path)) == ["deep/x.pt"]


def patched(path: Path, data: bytes, at: int, replacement: bytes) -> Path:
    path.write_bytes(data[:at] + replacement + data[at + len(replacement) :])
    return path


def test_zip_directories_that_lie(tmp_path: Path) -> None:
    """The central directory says where members are; what is there must be them."""
    data = h.zip_bytes(tmp_path / "good.pt", GOOD, {"0": b"\0" * 24}).read_bytes()
    central = data.index(b"PK\x01\x02")
    for offset, replacement in (
        (8, b"\x01\x00"),  # encrypted
        (10, b"\x08\x00"),  # deflated
        (20, struct.pack("<I", 1 << 30)),  # size in the file
        (24, struct.pack("<I", 1 << 30)),  # size
        (42, struct.pack("<I", 1 << 30)),  # where its header is
        (42, struct.pack("<I", 7)),
    ):
        refused(patched(tmp_path / "bad.pt", data, central + offset, replacement), TYPED)


def sample_tensors() -> h.Tensors:
    """Tensors of several types and ranks."""
    random = np.random.default_rng(0)
    return {
        "a.weight": h.Raw("F32", random.standard_normal((3, 5)).astype(np.float32)),
        "b": h.Raw("BF16", random.integers(0, 0x7F00, (2, 2, 2)).astype(np.uint16)),
        "c": h.Raw("F16", random.standard_normal(4).astype(np.float16)),
        "scalar": h.Raw("F32", np.float32(3).reshape(())),
        "empty": h.Raw("F32", np.zeros((0, 4), np.float32)),
        "i": h.Raw("I16", np.arange(-3, 3, dtype=np.int16)),
        "j": h.Raw("I32", np.arange(6, dtype=np.int32).reshape(3, 2)),
        "k": h.Raw("I64", np.array([1 << 40])),
        "u": h.Raw("U8", np.arange(256, dtype=np.uint8)),
    }


@pytest.mark.parametrize("write", [h.write_torch, h.write_legacy_torch])
def test_good_files_are_read(write: Callable[[Path, h.Tensors], Path], tmp_path: Path) -> None:
    tensors = sample_tensors()
    with open_torch(write(tmp_path / "x.pt", tensors)) as source:
        assert source.names() == list(tensors)
        for name, raw in tensors.items():
            found = source.read(name)
            assert source.info(name).shape == found.shape == raw.values.shape
            np.testing.assert_array_equal(found, raw.as_f32() if raw.dtype == "BF16" else raw.values)


def test_a_good_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    tensors = {"a": h.Raw("F32", np.ones((2, 2), np.float32)), "b": h.Raw("I16", np.ones(3, np.int16))}
    for write in (h.write_torch, h.write_legacy_torch):
        data = write(tmp_path / "x.pt", tensors).read_bytes()
        for size in range(0, len(data), 3):
            (tmp_path / "cut.pt").write_bytes(data[:size])
            refused(tmp_path / "cut.pt", TYPED)


def test_views_parameters_and_wrappers(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype=np.float32)
    storage = h.storage_id("0", 24)
    parameter = h.Call(h.Global("torch._utils", "_rebuild_parameter"), (h.tensor_call(storage, (24,)), True, None))
    state = {
        "whole": parameter,
        "transposed": h.tensor_call(storage, (4, 6), (1, 4)),
        "part": h.tensor_call(storage, (2, 3), (6, 1), offset=8),
        "expanded": h.tensor_call(storage, (3, 2), (0, 1), offset=5),
    }
    for index, root in enumerate(
        (state, {"state_dict": state, "epoch": 3}, {"state_dict": state, "args": {"lr": [1]}})
    ):
        path = h.zip_bytes(tmp_path / f"{index}.pt", h.pickled(root), {"0": numbers.tobytes()})
        with open_torch(path) as source:
            np.testing.assert_array_equal(source.read("whole"), numbers)
            np.testing.assert_array_equal(source.read("transposed"), numbers.reshape(6, 4).T)
            np.testing.assert_array_equal(source.read("part"), numbers.reshape(4, 6)[1:3, 2:5])
            np.testing.assert_array_equal(source.read("expanded"), np.tile(numbers[5:7], (3, 1)))
            for rows in ((0, 4), (1, 3), (2, 2), (3, 4)):
                np.testing.assert_array_equal(
                    source.read("transposed", rows), numbers.reshape(6, 4).T[rows[0] : rows[1]]
                )


def test_an_ordered_dictionary_with_metadata(tmp_path: Path) -> None:
    """What torch.save writes for module.state_dict(): pairs set after the call, then BUILD with its versions."""
    tensor = h.pickled(h.tensor_call(h.storage_id("0", 1), (1,)))[2:-1]
    data = (
        b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + text("x") + tensor + b"u}" + text("_metadata")
        + b"ccollections\nOrderedDict\n)R(" + text("") + b"}" + text("version") + b"K\x01susb."
    )  # fmt: skip
    found = read_watched(h.zip_bytes(tmp_path / "x.pt", data, {"0": b"\0" * 4}))
    assert found is not None
    assert list(found.tensors) == ["x"]


def test_other_files_are_named(tmp_path: Path) -> None:
    tar = b"\0" * 257 + b"ustar" + b"\0" * 100
    for data, error, message in (
        (tar, _core.UnsupportedError, "a tar archive of 2017"),
        (b"GGUF1234", _core.CheckpointError, "8 bytes beginning with b'GGUF'"),
        (b"", _core.CheckpointError, "0 bytes"),
        (b"PK\x03\x04 no archive", _core.CheckpointError, "expected a complete zip archive"),
    ):
        (tmp_path / "x.pt").write_bytes(data)
        assert message in refused(tmp_path / "x.pt", error)
    assert "expected a readable file" in refused(tmp_path / "nowhere.pt", _core.IoError)
    assert "expected a readable file" in refused(tmp_path, _core.IoError)
