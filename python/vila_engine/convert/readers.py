"""One view of the tensors in published weight files: safetensors and torch.save, single files and sharded ones.

Opening reads directories and checks them; a tensor, or some of its rows, is read when it is asked for.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import CheckpointError, IoError, UnsupportedError
from vila_engine.convert.torch_file import StoredTensor, TorchFile
from vila_engine.convert.unpickle import ITEM_SIZES

Array = npt.NDArray[Any]

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
MAX_DIMENSIONS = 16
SAFETENSORS_TYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
}
LISTED_NAMES = 10


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    Attributes:
        dtype: The stored type in words of numpy, such as "float16", or "bfloat16".
        shape: Its dimensions.
        file: The file that holds it.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path


class TensorSource:
    """Named tensors in one or several files, read one at a time. A context manager that closes the files."""

    def __init__(self, tensors: Iterable[tuple[str, StoredTensor]]) -> None:
        """Takes the tensors' locations.

        Args:
            tensors: Name and location of each tensor.

        Raises:
            CheckpointError: a name appears twice.
        """
        self._tensors: dict[str, StoredTensor] = {}
        self._files: dict[Path, BufferedReader] = {}
        self._stack = ExitStack()
        for name, stored in tensors:
            first = self._tensors.setdefault(name, stored)
            if first is not stored:
                raise CheckpointError(
                    f"[convert] {stored.file}: expected every tensor once, got {name!r} also in {first.file.name}"
                )

    def __enter__(self) -> TensorSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; reading again opens them again."""
        self._stack.close()
        self._files.clear()

    def names(self) -> list[str]:
        """The names of all tensors, in the order of the files."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Type, shape and file of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        stored = self._find(name)
        return TensorInfo(stored.dtype, stored.shape, stored.file)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Array:
        """Reads a tensor into memory of its own.

        Args:
            name: Its name.
            rows: First and one past the last index along its first dimension; default: all.

        Returns:
            The numbers, in C order: bfloat16 as float32 of the same values, every other type as it is stored.

        Raises:
            CheckpointError: there is no such tensor, or no such rows.
            IoError: the file cannot be read, or has become shorter.
        """
        stored = self._find(name)
        begin, shape = 0, stored.shape
        if rows is not None:
            if not shape or not 0 <= rows[0] <= rows[1] <= shape[0]:
                raise CheckpointError(f"[convert] {name}: expected rows within the shape {shape}, got {rows}")
            begin, shape = rows[0], (rows[1] - rows[0], *shape[1:])
        size = ITEM_SIZES[stored.dtype]
        values: Array = np.empty(0, _in_file(stored.dtype))
        if math.prod(shape):
            extent = 1 + sum((n - 1) * step for n, step in zip(shape, stored.strides, strict=True))
            first = begin * stored.strides[0] if shape else 0
            flat = self._read_bytes(stored.file, stored.offset + first * size, extent * size).view(values.dtype)
            values = np.lib.stride_tricks.as_strided(flat, shape, [step * size for step in stored.strides])
        return _in_memory(values.reshape(shape), stored.dtype)

    def _find(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise CheckpointError(f"[convert] {name}: expected one of {len(self._tensors)} tensors, got no such name")
        return self._tensors[name]

    def _read_bytes(self, path: Path, offset: int, n_bytes: int) -> npt.NDArray[np.uint8]:
        buffer = np.empty(n_bytes, np.uint8)
        try:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(path.open("rb"))
            file = self._files[path]
            file.seek(offset)
            found = file.readinto(buffer.data)
        except OSError as error:
            raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
        if found != n_bytes:
            raise IoError(f"[convert] {path}: expected {n_bytes} bytes at {offset}, got {found}")
        return buffer


def _in_file(dtype: str) -> np.dtype[Any]:
    raw: np.dtype[Any] = np.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(dtype, dtype)).newbyteorder("<")
    return raw


def _in_memory(values: Array, dtype: str) -> Array:
    """Numbers of the machine's byte order, contiguous; a copy only where the file's order differs."""
    if dtype == "bfloat16":
        wide = values.astype(np.uint32, order="C")
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "bool":
        return values.astype(np.bool_, order="C")
    return values.astype(np.dtype(dtype), order="C", copy=not values.flags.c_contiguous)


def open_torch(path: Path) -> TensorSource:
    """Opens one `.pt` or `.bin` file of torch.save.

    Args:
        path: The file.

    Returns:
        Its tensors.

    Raises:
        CheckpointError: the file is damaged or holds something else than a state dictionary.
        UnsupportedError: the pickle asks for more than tensors; nothing of it is ever run.
        IoError: the file cannot be read.
    """
    return TensorSource(TorchFile(Path(path)).tensors.items())


def open_tensors(folder: Path) -> TensorSource:
    """Opens the weights of a folder.

    Looked for, in this order: model.safetensors, model.safetensors.index.json with its shards, a lone *.safetensors,
    pytorch_model.bin, pytorch_model.bin.index.json with its shards. An index whose files are missing is an error, also
    when there are other weights beside it.

    Args:
        folder: The folder.

    Returns:
        All tensors of the files.

    Raises:
        CheckpointError: there are no weights, files or tensors are missing (all are listed), or a file is damaged.
        UnsupportedError: a type or a pickle that the engine does not read.
        IoError: a file cannot be read.
    """
    folder = Path(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return TensorSource(read_safetensors_header(single).items())
    if index.is_file():
        return _open_sharded(index)
    lone = sorted(folder.glob("*.safetensors"))
    if len(lone) == 1:
        return TensorSource(read_safetensors_header(lone[0]).items())
    single, index = folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"
    if not lone and single.is_file():
        return open_torch(single)
    if not lone and index.is_file():
        return _open_sharded(index)
    found = _weight_files(folder) if folder.is_dir() else "no such folder"
    raise CheckpointError(
        f"[convert] {folder}: expected model.safetensors or pytorch_model.bin, or the index of one with its shards, "
        f"got {found or 'no weights'}"
    )


def _weight_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))


def _open_sharded(index: Path) -> TensorSource:
    """Opens the shards that an index names and compares their contents with it."""
    mapping = _read_index(index)
    folder = index.parent
    wanted = Counter(mapping.values())
    missing = [f"{file} ({n} tensors)" for file, n in sorted(wanted.items()) if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"[convert] {index}: expected all {len(wanted)} files that it names, but {len(missing)} are missing: "
            f"{', '.join(missing)}; got {_weight_files(folder) or 'no weights'}"
        )
    tensors: list[tuple[str, StoredTensor]] = []
    for file in sorted(wanted):
        path = folder / file
        entries = read_safetensors_header(path) if path.suffix == ".safetensors" else TorchFile(path).tensors
        tensors += entries.items()
    source = TensorSource(tensors)
    places = {name: stored.file.name for name, stored in tensors}
    lacking = [f"{name} ({file})" for name, file in mapping.items() if places.get(name) != file]
    if lacking:
        raise CheckpointError(
            f"[convert] {index}: expected all {len(mapping)} tensors in the files that it names, but {len(lacking)} "
            f"are not there: {', '.join(lacking)}"
        )
    return source


def _read_json(text: bytes, where: str) -> dict[str, Any]:
    """Parses a JSON object; a key that appears twice is an error, as it hides something."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
            raise CheckpointError(f"[convert] {where}: expected every key once, got {twice[:LISTED_NAMES]} twice")
        return result

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"[convert] {where}: expected JSON, got {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"[convert] {where}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_index(path: Path) -> dict[str, str]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
    mapping = _read_json(text, str(path)).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"[convert] {path}: expected an object weight_map, got {type(mapping).__name__}")
    suffix = ".safetensors" if path.name.startswith("model.safetensors") else ".bin"
    for name, file in mapping.items():
        if not isinstance(file, str) or Path(file).name != file or Path(file).suffix != suffix or "\0" in file:
            raise CheckpointError(
                f"[convert] {path}: {name}: expected the name of a {suffix} file beside the index, got {file!r}"
            )
    return mapping


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """Reads and checks the directory of a safetensors file (https://github.com/huggingface/safetensors, "Format").

    Args:
        path: The file: 8 bytes length, that many bytes of JSON, then the numbers, without gaps.

    Returns:
        Name to location, in the order of the numbers.

    Raises:
        CheckpointError: the directory is damaged or does not fit the file.
        UnsupportedError: a type that numpy has no word for, other than bfloat16.
        IoError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            n_bytes = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if n_bytes < 8 or length > min(n_bytes - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"[convert] {path}: expected a header that fits a file of {n_bytes} bytes, got a length of {length}"
                )
            text = file.read(length)
    except OSError as error:
        raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
    header = _read_json(text, str(path))
    header.pop("__metadata__", None)
    data = 8 + length
    tensors = {name: _read_entry(path, name, entry, data) for name, entry in header.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].offset, math.prod(item[1].shape))))
    end = data
    for name, stored in tensors.items():
        if stored.offset != end:
            raise CheckpointError(
                f"[convert] {path}: {name}: expected numbers from byte {end - data} on, without gap or overlap, "
                f"got {stored.offset - data}"
            )
        end += math.prod(stored.shape) * ITEM_SIZES[stored.dtype]
    if end != n_bytes:
        raise CheckpointError(f"[convert] {path}: expected {end} bytes as the header says, got {n_bytes}")
    return tensors


def _read_entry(path: Path, name: str, entry: Any, data: int) -> StoredTensor:
    def natural(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62

    where = f"[convert] {path}: {name}:"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} expected dtype, shape and data_offsets, got {str(entry)[:200]}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    valid = isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS and all(map(natural, shape))
    if not valid or not isinstance(offsets, list) or len(offsets) != 2 or not all(map(natural, offsets)):
        raise CheckpointError(
            f"{where} expected a shape and two offsets, got {str(shape)[:200]} and {str(offsets)[:200]}"
        )
    dtype = SAFETENSORS_TYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise UnsupportedError(
            f"{where} expected a type of {', '.join(SAFETENSORS_TYPES)}, got {str(entry['dtype'])[:80]!r}"
        )
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_SIZES[dtype]:
        raise CheckpointError(
            f"{where} expected {math.prod(shape) * ITEM_SIZES[dtype]} bytes for {dtype} {shape}, got offsets {offsets}"
        )
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return StoredTensor(path, dtype, tuple(shape), tuple(strides), data + offsets[0])
