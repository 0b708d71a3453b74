"""Writes a model folder: config.json and one safetensors file whose header is known before the first tensor."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vila_engine._core import InvalidArgument, IoError

Array = npt.NDArray[Any]

DTYPE_NAMES = {"float32": "F32", "float16": "F16", "int32": "I32", "uint8": "U8"}
ALIGNMENT = 64
FORMAT = "vila_engine"
MODEL_FILES = frozenset({"config.json", "model.safetensors"})


@dataclass(frozen=True)
class TensorPlan:
    """Name, type and shape of a tensor to be written."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the data in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class SafetensorsWriter:
    """A safetensors file that is filled in any order, whole tensors or blocks of leading rows.

    Tensors whose size is a multiple of 64 bytes come first, so that they start on 64-byte boundaries without holes; the
    others follow by falling element size.
    """

    def __init__(self, file: BinaryIO, tensors: list[TensorPlan], metadata: dict[str, str]) -> None:
        ordered = sorted(tensors, key=lambda t: (t.n_bytes % ALIGNMENT != 0, -t.dtype.itemsize))
        header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        at = 0
        self._offsets: dict[str, tuple[int, TensorPlan]] = {}
        for tensor in ordered:
            header[tensor.name] = {
                "dtype": DTYPE_NAMES[tensor.dtype.name],
                "shape": list(tensor.shape),
                "data_offsets": [at, at + tensor.n_bytes],
            }
            self._offsets[tensor.name] = (at, tensor)
            at += tensor.n_bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        self._start = len(text) + 8
        self._left = {name: tensor.n_bytes for name, (_, tensor) in self._offsets.items()}
        self._file = file
        self.n_bytes = self._start + at
        file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, array: Array, first_row: int = 0) -> None:
        """Writes rows of a tensor, beginning at `first_row` along its first axis."""
        offset, plan = self._offsets[name]
        if array.dtype != plan.dtype or array.shape[1:] != plan.shape[1:] or first_row + len(array) > plan.shape[0]:
            raise ValueError(f"{name}: expected {plan}, got {array.dtype} {array.shape} at row {first_row}")
        row_bytes = plan.n_bytes // max(plan.shape[0], 1)
        self._file.seek(self._start + offset + first_row * row_bytes)
        self._file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        self._left[name] -= array.nbytes

    def finish(self) -> None:
        """Checks that every byte was written and hands the file to the disk."""
        short = {name: left for name, left in self._left.items() if left}
        if short:
            raise ValueError(f"tensors not written completely: {short}")
        self._file.flush()
        os.fsync(self._file.fileno())


def check_destination(destination: Path, *, force: bool) -> None:
    """Refuses a destination that exists, unless it may be replaced.

    Raises:
        InvalidArgument: something is there and `force` is false, or it is not a model folder of ours.
    """
    if not os.path.lexists(destination):
        return
    where = f"[convert] {destination}: expected"
    if not force:
        raise InvalidArgument(f"{where} a new folder (or --force to replace it), got an existing one")
    if destination.is_symlink() or not destination.is_dir():
        raise InvalidArgument(f"{where} a model folder to replace, got a file or a link")
    names = sorted(path.name for path in destination.iterdir())
    if not set(names) <= MODEL_FILES:
        raise InvalidArgument(f"{where} a model folder to replace ({', '.join(sorted(MODEL_FILES))}), got {names}")
    # Published folders may have files of the same names: only our own mark makes a folder ours.
    if names and not _is_marked(destination / "config.json"):
        raise InvalidArgument(f'{where} a model folder to replace (config.json with "format": "{FORMAT}"), got another')


def _is_marked(config: Path) -> bool:
    try:
        value = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("format") == FORMAT


@contextlib.contextmanager
def atomic_folder(destination: Path, *, replace: bool) -> Iterator[Path]:
    """A fresh folder beside the destination that takes its place when the block ends well, else disappears.

    Args:
        destination: The folder that is to be.
        replace: Whether a folder that is there by then may be replaced.

    Raises:
        IoError: the disk is full or read-only, or something appeared at the destination meanwhile.
    """
    stem = destination.parent / f".{destination.name}.{os.getpid()}.{secrets.token_hex(4)}"
    scratch, old = stem.with_name(stem.name + ".partial"), stem.with_name(stem.name + ".old")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        try:
            yield scratch
            _put_in_place(scratch, destination, old if replace else None)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except IoError:
        raise
    except OSError as error:
        raise IoError(f"[convert] {destination}: expected to write a folder, got {error}") from error


def _put_in_place(scratch: Path, destination: Path, old: Path | None) -> None:
    """Renames; what was at the destination goes to `old`, and comes back if the new folder cannot take its place."""
    exists = os.path.lexists(destination)
    if exists and old is None:
        raise IoError(f"[convert] {destination}: expected a free name, got something that appeared meanwhile")
    if not exists or old is None:
        scratch.rename(destination)
        return
    destination.rename(old)
    try:
        scratch.rename(destination)
    except BaseException:
        old.rename(destination)
        raise


def check_space(destination: Path, needed: int) -> None:
    """Refuses to begin when the disk cannot hold the result.

    Raises:
        IoError: fewer than `needed` bytes are free, or the place cannot be examined.
    """
    folder = destination.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise IoError(f"[convert] {folder}: expected a readable disk, got {error}") from error
    if free < needed:
        raise IoError(f"[convert] {destination}: expected {needed:,} free bytes on the disk, got {free:,}")
