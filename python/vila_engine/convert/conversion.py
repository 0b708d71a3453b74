"""The conversion itself: check everything, then stream tensor by tensor into the new folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vila_engine import _core
from vila_engine._core import CheckpointError, InvalidArgument
from vila_engine.convert.awq import AwqMatrix
from vila_engine.convert.checkpoint import Checkpoint
from vila_engine.convert.folders import CONV_MODES, detect_conv_mode, read_folder
from vila_engine.convert.hub import find_source, published_name
from vila_engine.convert.plan import TILE_ROWS, Entry, Formats, part_shapes
from vila_engine.convert.progress import ByteCounter, Progress
from vila_engine.convert.tokenizers import spec_to_tensors
from vila_engine.convert.writer import (
    FORMAT,
    SafetensorsWriter,
    TensorPlan,
    atomic_folder,
    check_destination,
    check_space,
)

Array = npt.NDArray[Any]
Weights = Literal["f32", "f16", "int8", "int4"]

WEIGHTS: tuple[Weights, ...] = ("f32", "f16", "int8", "int4")
GROUP_SIZES = (32, 64, 128)
BLOCK_BYTES = 32 << 20  # rows of a matrix that are converted at once, as f32
MARGIN_BYTES = 1 << 20  # on the disk, for the header and config.json


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion wrote.

    Attributes:
        path: The model folder.
        n_bytes: Size of model.safetensors.
        n_tensors: Tensors in it.
        formats: Number of matrices by weight format.
        conv_mode: The chat template that was stored.
        notes: Decisions that were taken for this checkpoint, in words.
    """

    path: Path
    n_bytes: int
    n_tensors: int
    formats: dict[str, int]
    conv_mode: str
    notes: tuple[str, ...]


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    weights: Weights = "int4",
    vision_weights: Weights | None = None,
    head_weights: Weights | None = None,
    group_size: int = 128,
    conv_mode: str | None = None,
    dequantize: bool = False,
    force: bool = False,
    progress: Progress = False,
) -> ConvertReport:
    """Converts a published VILA 1.5 checkpoint.

    Integer weights are rounded to nearest; a checkpoint that already is 4-bit AWQ keeps its values, scales and zero
    points exactly when `weights` is "int4". One block of rows is in memory at a time. The result appears under its name
    only when it is complete.

    Args:
        source: Folder in the published layout, or the id of such a repository on the Hugging Face Hub.
        destination: The new model folder.
        weights: Format of the language model's matrices.
        vision_weights: Format of the vision tower; default: as `weights`, int8 for int4. The patch embedding, the first
            block and the projector stay f16 in an integer tower.
        head_weights: Format of the vocabulary projection; default: as `weights`, int8 for int4.
        group_size: Columns per scale of integer formats: 32, 64 or 128.
        conv_mode: Chat template; default: detected.
        dequantize: Write the values that the integer formats stand for as f32 (to measure the error of the integer
            arithmetic alone).
        force: Replace a model folder that is there.
        progress: True for a progress bar, or a function of bytes done and bytes in all.

    Returns:
        What was written.

    Raises:
        CheckpointError: something is missing, unknown or of a wrong shape; all of it is listed, nothing is written.
        UnsupportedError: an architecture or format that the engine does not implement.
        InvalidArgument: a wrong argument, or the destination exists.
        IoError: the source cannot be read or the disk is full.
    """
    destination = Path(destination)
    formats = choose_formats(weights, vision_weights, head_weights, group_size)
    if conv_mode is not None and conv_mode not in CONV_MODES:
        raise InvalidArgument(f"[convert] conv_mode: expected one of {', '.join(CONV_MODES)}, got {conv_mode}")
    check_destination(destination, force=force)
    folder = find_source(source)
    name = published_name(folder)
    with Checkpoint(read_folder(folder)) as checkpoint:
        mode, reason = (conv_mode, "") if conv_mode else detect_conv_mode(name, checkpoint.special_tokens())
        if reason:
            checkpoint.model.notes.append(f"conversation mode {mode}: {reason}")
        if checkpoint.awq and weights != "int4":
            checkpoint.model.notes.append(f"4-bit {checkpoint.awq.kind} values written as {weights}, not as they are")
        job = _Job(checkpoint, formats, keep_awq=weights == "int4", dequantize=dequantize)
        return job.write(destination, name, mode, progress, force=force)


def choose_formats(weights: Weights, vision: Weights | None, head: Weights | None, group_size: int) -> Formats:
    """The weight formats of a model's parts, defaults filled in; arguments as in `convert`.

    Raises:
        InvalidArgument: an unknown format or group size.
    """
    for name, value in (("weights", weights), ("vision_weights", vision), ("head_weights", head)):
        if value is not None and value not in WEIGHTS:
            raise InvalidArgument(f"[convert] {name}: expected one of {', '.join(WEIGHTS)}, got {value}")
    if group_size not in GROUP_SIZES:
        raise InvalidArgument(f"[convert] group_size: expected one of {GROUP_SIZES}, got {group_size}")
    forms = {"f32": "f32p16", "f16": "f16p16", "int8": f"w8p16x4g{group_size}", "int4": f"w4p16x8g{group_size}z"}
    vision = vision or ("int8" if weights == "int4" else weights)
    head = head or ("int8" if weights == "int4" else weights)
    return Formats(
        block=forms[weights],
        head=forms[head],
        vision=forms[vision],
        vision_edge=forms["f32" if vision == "f32" else "f16"],
        embedding=np.dtype(np.float32 if weights == "f32" else np.float16),
    )


class _Job:
    """A planned conversion."""

    def __init__(self, checkpoint: Checkpoint, formats: Formats, *, keep_awq: bool, dequantize: bool) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.formats = formats
        self.keep_awq = keep_awq
        self.dequantize = dequantize

    def write(self, destination: Path, name: str, conv_mode: str, progress: Progress, *, force: bool) -> ConvertReport:
        tokenizer_config, tokenizer_tensors = spec_to_tensors(self.checkpoint.spec)
        entries = self.checkpoint.entries
        matrix_formats = {entry.name: self._stored_format(entry) for entry in entries if entry.kind == "matrix"}
        plans = [TensorPlan(tensor, array.dtype, array.shape) for tensor, array in tokenizer_tensors.items()]
        for entry in entries:
            plans += self._plans(entry)
        needed = sum(plan.n_bytes for plan in plans)
        check_space(destination, needed + MARGIN_BYTES)
        config = self._config(name, conv_mode, tokenizer_config)
        with atomic_folder(destination, replace=force) as scratch, ByteCounter(needed, progress) as done:
            _write_text(scratch / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
            with (scratch / "model.safetensors").open("wb") as file:
                writer = SafetensorsWriter(file, plans, matrix_formats)
                for tensor, array in tokenizer_tensors.items():
                    writer.write(tensor, array)
                    done(array.nbytes)
                for entry in entries:
                    for tensor, array, first_row in self._blocks(entry):
                        writer.write(tensor, array, first_row)
                        done(array.nbytes)
                writer.finish()
        return ConvertReport(
            path=destination,
            n_bytes=writer.n_bytes,
            n_tensors=len(plans),
            formats=dict(Counter(matrix_formats.values())),
            conv_mode=conv_mode,
            notes=tuple(self.model.notes),
        )

    def _config(self, name: str, conv_mode: str, tokenizer: dict[str, Any]) -> dict[str, Any]:
        awq = self.checkpoint.awq
        return {
            "format": FORMAT,
            "format_version": 1,
            "generator": f"vila_engine {_core.__version__}",
            "source": {"name": name, "layout": awq.kind if awq else "hf"},
            "llm": self.model.llm,
            "vision": self.model.vision,
            "s2": self.model.s2,
            "projector": self.model.projector,
            "image": self.model.image,
            "video": self.model.video,
            "prompt": {"conv_mode": conv_mode},
            "tokenizer": tokenizer,
        }

    def _format(self, entry: Entry) -> str:
        """The format that decides the values of a matrix."""
        awq = self.checkpoint.awq
        if awq is not None and self.keep_awq and self.checkpoint.is_packed(entry):
            return awq.weight_format
        return self.formats.of(entry.role)

    def _stored_format(self, entry: Entry) -> str:
        return "f32p16" if self.dequantize else self._format(entry)

    def _plans(self, entry: Entry) -> list[TensorPlan]:
        if entry.kind == "vector":
            return [TensorPlan(entry.name, np.dtype(np.float32), entry.shape)]
        if entry.kind == "table":
            return [TensorPlan(entry.name, self._table_type(), entry.shape)]
        parts = part_shapes(self._stored_format(entry), *entry.shape)
        return [TensorPlan(f"{entry.name}.{part}", dtype, shape) for part, dtype, shape in parts]

    def _table_type(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.dequantize else self.formats.embedding

    def _blocks(self, entry: Entry) -> Iterator[tuple[str, Array, int]]:
        """The arrays to write for one entry, by blocks of rows: name, array, first row along its first axis."""
        source = self.checkpoint.sources[entry.part]
        if entry.kind == "vector":
            values = source.read(entry.source).astype(np.float32, copy=False).reshape(entry.shape)
            yield entry.name, _checked(entry, values), 0
            return
        n, k = entry.shape
        step = max(BLOCK_BYTES // (4 * k) // TILE_ROWS, 1) * TILE_ROWS
        awq = self.checkpoint.awq
        if awq is not None and self.checkpoint.is_packed(entry):
            for begin, block in awq.blocks(source, entry.source.removesuffix(".weight"), n, k, step):
                yield from _placed(entry, self._repack(entry, block), begin)
            return
        for begin in range(0, n, step):
            yield from self._block(entry, begin, min(begin + step, n))

    def _block(self, entry: Entry, begin: int, end: int) -> Iterator[tuple[str, Array, int]]:
        """Converts some rows of a table or matrix. No block outlives its call, so that there is one at a time."""
        rows = self.checkpoint.sources[entry.part].read(entry.source, (begin, end))
        rows = _checked(entry, rows.astype(np.float32, copy=False).reshape(end - begin, -1))
        if entry.kind == "table":
            table = _rounded(entry, rows, self.formats.embedding)
            yield entry.name, table.astype(self._table_type(), copy=False), begin
        else:
            yield from _placed(entry, self._pack(entry, rows), begin)

    def _pack(self, entry: Entry, rows: Array) -> dict[str, Array]:
        """Rounds and packs rows, float32 [n, K]."""
        form = self._format(entry)
        if form == "f16p16":
            _rounded(entry, rows, np.dtype(np.float16))
        try:
            parts = _core.pack_matrix(np.ascontiguousarray(rows), form)
        except InvalidArgument as error:  # the packer cannot know whose rows these are
            raise CheckpointError(f"[convert] {entry.part}: {entry.source}: {error}") from error
        if self.dequantize:
            return _core.pack_matrix(_core.unpack_matrix(parts, form, *rows.shape), "f32p16")
        return parts

    def _repack(self, entry: Entry, block: AwqMatrix) -> dict[str, Array]:
        """Packs 4-bit rows: unchanged, or as the numbers that they stand for."""
        _checked(entry, block.scales)
        if block.offsets is not None:
            _checked(entry, block.offsets)
        if not self.keep_awq:
            return self._pack(entry, block.dequantize())
        if self.dequantize:
            return _core.pack_matrix(block.dequantize(), "f32p16")
        return _core.pack_int4(block.q, block.scales, self._format(entry), zeros=block.zeros, offsets=block.offsets)


def _placed(entry: Entry, parts: dict[str, Array], begin: int) -> Iterator[tuple[str, Array, int]]:
    for part, array in parts.items():
        yield f"{entry.name}.{part}", array, begin // TILE_ROWS


def _checked(entry: Entry, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"[convert] {entry.part}: {entry.source}: expected finite numbers, got infinity or not-a-number"
        )
    return values


def _rounded(entry: Entry, values: Array, dtype: np.dtype[Any]) -> Array:
    """The values in another type, which must hold them."""
    with np.errstate(over="ignore"):
        result = values.astype(dtype, copy=False)
    if not np.isfinite(result).all():
        largest = float(np.abs(values).max())
        raise CheckpointError(
            f"[convert] {entry.part}: {entry.source}: expected numbers within {dtype}, got {largest:g}; convert to f32"
        )
    return result


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
