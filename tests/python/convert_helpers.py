"""What the tests of conversion share: the golden checkpoints, weight files taken apart, and a writer of pickles.

Nothing here uses the code under test: files are read and written after the descriptions of their formats.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = ("vila3b", "llama3", "llama3_nobos", "vila3b_s2", "vila40b", "mlp2x_pad_bin", "linear_bias_fp32")
PACKED = ("vila3b_awq", "autoawq_gqa")
VARIANTS = (*PLAIN, *PACKED)
FORMATS = ("f32", "f16", "int8", "int4")

Array = npt.NDArray[Any]
NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1"}
STORAGE_CLASSES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "I32": "IntStorage"}
STORAGE_CLASSES |= {"I16": "ShortStorage", "I64": "LongStorage", "U8": "ByteStorage"}


@dataclass(frozen=True)
class Raw:
    """A tensor as it lies in a file: safetensors' name of its type, and numbers of that type (bfloat16 as uint16)."""

    dtype: str
    values: Array

    def as_f32(self) -> npt.NDArray[np.float32]:
        """The numbers."""
        if self.dtype == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


Tensors = dict[str, Raw]


def copy_checkpoint(variant: str, folder: Path) -> Path:
    """A copy of a golden checkpoint that may be changed; its name says nothing about the model."""
    target = folder / "checkpoint"
    shutil.copytree(GOLDEN / variant / "checkpoint", target)
    return target


def edit_json(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON object; `...` removes one."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}), encoding="utf-8")


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and where the numbers begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def read_safetensors(path: Path) -> Tensors:
    """All tensors of a file."""
    header, start = read_header(path)
    header.pop("__metadata__", None)
    data = path.read_bytes()[start:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], NUMPY[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = Raw(entry["dtype"], values)
    return tensors


def safetensors_bytes(tensors: Tensors) -> bytes:
    """A file with these tensors."""
    header: dict[str, Any] = {}
    data = b""
    for name, raw in tensors.items():
        end = len(data) + raw.values.nbytes
        header[name] = {"dtype": raw.dtype, "shape": raw.values.shape, "data_offsets": [len(data), end]}
        data += raw.values.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def edit_safetensors(path: Path, change: Callable[[Tensors], None]) -> None:
    """Reads, changes and writes a file."""
    tensors = read_safetensors(path)
    change(tensors)
    path.write_bytes(safetensors_bytes(tensors))


def published_llm(folder: Path) -> Tensors:
    """The language model's tensors of a plain safetensors checkpoint, shards joined."""
    return {
        name: raw for path in sorted(folder.glob("llm/*.safetensors")) for name, raw in read_safetensors(path).items()
    }


@dataclass(frozen=True)
class Global:
    """A name that a pickle imports."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A call that a pickle makes."""

    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    """A persistent id, by which torch.save names a storage."""

    identifier: Any


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2, written opcode by opcode, so that torch's classes are not needed."""
    return b"\x80\x02" + b"".join(_opcodes(value)) + b"."


def _opcodes(value: Any) -> Iterator[bytes]:
    if value is None or isinstance(value, bool):
        yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int):
        size = value.bit_length() // 8 + 1
        yield b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    elif isinstance(value, str):
        yield b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    elif isinstance(value, tuple):
        yield b"("
        for item in value:
            yield from _opcodes(item)
        yield b"t"
    elif isinstance(value, list):
        yield b"]("
        for item in value:
            yield from _opcodes(item)
        yield b"e"
    elif isinstance(value, dict):
        yield b"}("
        for key, item in value.items():
            yield from _opcodes(key)
            yield from _opcodes(item)
        yield b"u"
    elif isinstance(value, Global):
        yield f"c{value.module}\n{value.name}\n".encode()
    elif isinstance(value, Call):
        yield from _opcodes(value.function)
        yield from _opcodes(value.arguments)
        yield b"R"
    elif isinstance(value, Persistent):
        yield from _opcodes(value.identifier)
        yield b"Q"
    else:
        raise TypeError(f"expected a value that a state dictionary has, got {type(value)}")


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
ORDERED_DICT = Global("collections", "OrderedDict")


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor in C order, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def tensor_call(
    storage: Persistent, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0
) -> Call:
    """What torch.save writes for a tensor."""
    strides = contiguous(shape) if strides is None else strides
    return Call(REBUILD, (storage, offset, shape, strides, False, Call(ORDERED_DICT, ())))


def storage_id(key: str, n_elements: int, dtype: str = "F32") -> Persistent:
    """What torch.save writes for a storage."""
    return Persistent(("storage", Global("torch", STORAGE_CLASSES[dtype]), key, "cpu", n_elements))


def zip_bytes(path: Path, pickle_bytes: bytes, storages: dict[str, bytes], root: str = "archive") -> Path:
    """Writes a file of torch.save with this pickle and these storages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", pickle_bytes)
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)
        archive.writestr(f"{root}/version", b"3\n")
    return path


class _Unpickler(pickle.Unpickler):
    """Reads the fixtures' own state dictionaries with the standard library, with stand-ins for torch."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> Any:
        if name.endswith("Storage"):
            return name
        return {"_rebuild_tensor_v2": self.rebuild, "OrderedDict": dict}[name]

    def persistent_load(self, pid: Any) -> Raw:
        dtype = {kind: dtype for dtype, kind in STORAGE_CLASSES.items()}[pid[1]]
        return Raw(dtype, np.frombuffer(self.archive.read(f"{self.root}/data/{pid[2]}"), NUMPY[dtype]))

    @staticmethod
    def rebuild(storage: Raw, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Raw:
        assert strides == contiguous(shape)
        return Raw(storage.dtype, storage.values[offset : offset + math.prod(shape)].reshape(shape))


def read_torch(path: Path) -> Tensors:
    """All tensors of a fixture that torch.save wrote."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return dict(_Unpickler(archive, name.removesuffix("/data.pkl")).load())


def write_torch(path: Path, tensors: Tensors) -> Path:
    """Writes a state dictionary as torch.save does today."""
    state, storages = {}, {}
    for index, (name, raw) in enumerate(tensors.items()):
        storages[str(index)] = raw.values.tobytes()
        state[name] = tensor_call(storage_id(str(index), raw.values.size, raw.dtype), raw.values.shape)
    return zip_bytes(path, pickled(state), storages)


def write_legacy_torch(path: Path, tensors: Tensors) -> Path:
    """Writes a state dictionary as torch.save did before version 1.6."""
    keys = [f"{9000 + index}" for index in range(len(tensors))]
    state = {}
    for key, (name, raw) in zip(keys, tensors.items(), strict=True):
        kind = Global("torch", STORAGE_CLASSES[raw.dtype])
        storage = Persistent(("storage", kind, key, "cpu", raw.values.size, None))
        state[name] = tensor_call(storage, raw.values.shape)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, system, state, keys)]
    for raw in tensors.values():
        parts.append(struct.pack("<Q", raw.values.size) + raw.values.tobytes())
    path.write_bytes(b"".join(parts))
    return path


def unpack(tensors: Tensors, form: str, name: str, n: int, k: int) -> tuple[Array, Array | None, Array | None]:
    """Takes a packed matrix apart, after docs/FORMATS.md, by plain indexing.

    Returns:
        Values [N, K], scales and zero points or offsets spread over [N, K] (None where the format has none).
    """
    tiles = tensors[f"{name}.weight"].values
    row = np.arange(n)[:, None]
    column = np.arange(k)[None, :]
    if form in ("f32p16", "f16p16"):
        return tiles[row // 16, column, row % 16], None, None
    if form.startswith("w8"):
        values = tiles.view(np.int8)[row // 16, column // 4, 4 * (row % 16) + column % 4].astype(np.int64)
    else:
        byte = tiles[row // 16, column // 8, 4 * (row % 16) + column % 4].astype(np.int64)
        values = np.where(column % 8 < 4, byte & 15, byte >> 4)
    group = int(form.split("g")[1].rstrip("zo"))
    at = (row // 16, column // group, row % 16)
    third = {"z": "zero", "o": "offset"}.get(form[-1])
    extra = tensors[f"{name}.weight_{third}"].values[at] if third else None
    return values, tensors[f"{name}.weight_scale"].values[at], extra


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
