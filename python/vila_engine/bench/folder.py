"""Writes a model folder with random weights of a true shape: speed does not depend on the values.

A block of random rows is packed once per width and format and repeated: writing costs little more than the disk.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine import _core
from vila_engine._core import InvalidArgument
from vila_engine.bench.presets import Config, preset_config, source_of
from vila_engine.convert.conversion import MARGIN_BYTES, Weights, choose_formats
from vila_engine.convert.plan import TILE_ROWS, Entry, Formats, part_shapes, plan_entries
from vila_engine.convert.tokenizers import Spec, Tensors, spec_to_tensors
from vila_engine.convert.writer import FORMAT, SafetensorsWriter, TensorPlan, atomic_folder, check_space

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

BLOCK_ROWS = 64 * TILE_ROWS
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1  # types of pieces, docs/FORMATS.md
SPACE = "\u2581"


def write_model(
    preset: str,
    destination: Path,
    *,
    weights: Weights = "int4",
    vision_weights: Weights | None = None,
    progress: Progress | None = None,
) -> int:
    """Writes a model folder of a preset's shape; one that is there already is kept.

    Args:
        preset: Name of the shape.
        destination: The folder.
        weights: Format of the language model; the vocabulary projection is int8 with int4, as `convert` does it.
        vision_weights: Format of the vision tower; default: as `convert` chooses it.
        progress: Called with bytes written and bytes in all.

    Returns:
        Size of model.safetensors in bytes.

    Raises:
        InvalidArgument: there is no such preset or format, or something else is at the destination.
        IoError: the disk is too small.
    """
    formats = choose_formats(weights, vision_weights, None, 128)
    sections = preset_config(preset)
    tokenizer, tokenizer_tensors = spec_to_tensors(tokenizer_spec(sections["llm"]["vocab_size"]))
    config = {
        "format": FORMAT,
        "format_version": 1,
        "generator": f"vila_engine {_core.__version__}",
        "source": {"name": f"random-{preset}", "layout": "bench"},
        **sections,
        "prompt": {"conv_mode": "plain"},
        "tokenizer": tokenizer,
    }
    entries = plan_entries(source_of(config))
    matrix_formats = {entry.name: formats.of(entry.role) for entry in entries if entry.kind == "matrix"}
    plans = [TensorPlan(name, array.dtype, array.shape) for name, array in tokenizer_tensors.items()]
    plans += [plan for entry in entries for plan in _plans(entry, formats)]
    total = sum(plan.n_bytes for plan in plans)
    if destination.exists():
        return _kept(destination, config, matrix_formats)
    check_space(destination, total + MARGIN_BYTES)
    with atomic_folder(destination, replace=False) as scratch:
        (scratch / "config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
        with (scratch / "model.safetensors").open("wb") as file:
            writer = SafetensorsWriter(file, plans, matrix_formats)
            _fill(writer, tokenizer_tensors, entries, formats, progress)
            writer.finish()
    return writer.n_bytes


def matrix_formats_of(model: Path) -> dict[str, str]:
    """The weight format of every matrix of a model folder, by name without `.weight`."""
    with (model / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    formats: dict[str, str] = header["__metadata__"]
    return formats


def tokenizer_spec(vocab_size: int) -> Spec:
    """A SentencePiece tokenizer: bytes, letters, and words of a space and one to four letters in falling rank."""
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *([BYTE] * 256)]
    words = (
        SPACE + "".join(letters)
        for length in (1, 2, 3, 4)
        for letters in itertools.product(string.ascii_lowercase, repeat=length)
    )
    letters = [SPACE, *string.ascii_lowercase]
    n_words = max(vocab_size - len(pieces) - len(letters), len(string.ascii_lowercase))
    pieces += [piece.encode() for piece in (*letters, *itertools.islice(words, n_words))]
    types += [NORMAL] * (len(pieces) - len(types))
    return {
        "kind": "spm_bpe", "pieces": pieces, "types": types, "scores": [-float(i) for i in range(len(pieces))],
        "bos_id": 1, "eos_id": 2, "unk_id": 0, "pad_id": None, "add_bos": True, "add_eos": False, "legacy": False,
        "add_dummy_prefix": True, "remove_extra_whitespaces": False, "clean_up_spaces": False,
        "special_tokens": ["<s>", "</s>", "<unk>"], "added_tokens": [],
    }  # fmt: skip


def _kept(destination: Path, config: Config, matrix_formats: dict[str, str]) -> int:
    """The size of a folder that is there, which must be the one that would be written."""
    try:
        same = json.loads((destination / "config.json").read_bytes()) == json.loads(json.dumps(config))
        same = same and matrix_formats_of(destination) == matrix_formats
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgument(f"[bench] {destination}: expected a kept model folder, got {error}") from error
    if not same:
        raise InvalidArgument(f"[bench] {destination}: expected the model of this preset, got another; remove it")
    return (destination / "model.safetensors").stat().st_size


def _plans(entry: Entry, formats: Formats) -> list[TensorPlan]:
    if entry.kind == "vector":
        return [TensorPlan(entry.name, np.dtype(np.float32), entry.shape)]
    if entry.kind == "table":
        return [TensorPlan(entry.name, formats.embedding, entry.shape)]
    parts = part_shapes(formats.of(entry.role), *entry.shape)
    return [TensorPlan(f"{entry.name}.{part}", dtype, shape) for part, dtype, shape in parts]


def _fill(
    writer: SafetensorsWriter, tokenizer: Tensors, entries: list[Entry], formats: Formats, progress: Progress | None
) -> None:
    """Writes all tensors."""
    total = writer.n_bytes
    done = 0
    values = _RandomRows()
    for name, array in tokenizer.items():
        writer.write(name, array)
        done += array.nbytes
    for entry in entries:
        for name, array, first_row in values.blocks(entry, formats):
            writer.write(name, array, first_row)
            done += array.nbytes
            if progress is not None:
                progress(done, total)


class _RandomRows:
    """Random rows, packed once per width and format."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._rows: dict[int, Array] = {}
        self._packed: dict[tuple[int, str, int], dict[str, Array]] = {}

    def blocks(self, entry: Entry, formats: Formats) -> Iterator[tuple[str, Array, int]]:
        """What to write for an entry: name, array, first row along its first axis."""
        if entry.kind == "vector":
            is_gain = len(entry.shape) == 1 and entry.name.endswith(("weight", ".ls1", ".ls2"))
            yield entry.name, np.ones(entry.shape, np.float32) if is_gain else self._small(entry.shape), 0
            return
        n, k = entry.shape
        for begin in range(0, n, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, n - begin)
            if entry.kind == "table":
                yield entry.name, self._block(k)[:rows].astype(formats.embedding), begin
                continue
            for part, array in self._pack(k, formats.of(entry.role), rows).items():
                yield f"{entry.name}.{part}", array, begin // TILE_ROWS

    def _small(self, shape: tuple[int, ...]) -> Array:
        return 0.02 * self._random.standard_normal(shape, np.float32)

    def _block(self, k: int) -> Array:
        """Rows [BLOCK_ROWS, k] that keep the spread of what they multiply."""
        if k not in self._rows:
            self._rows[k] = self._random.standard_normal((BLOCK_ROWS, k), np.float32) * np.float32(k**-0.5)
        return self._rows[k]

    def _pack(self, k: int, form: str, rows: int) -> dict[str, Array]:
        key = (k, form, rows)
        if key not in self._packed:
            self._packed[key] = _core.pack_matrix(self._block(k)[:rows], form)
        return self._packed[key]
