"""The conversion itself: plan, check everything, then stream tensor by tensor into the new folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from vila_engine import _core
from vila_engine._core import CheckpointError, InvalidArgument, IoError, UnsupportedError
from vila_engine.convert.awq import AwqMatrix, import_autoawq, import_llm_awq
from vila_engine.convert.folders import CONV_MODES, SourceModel, detect_conv_mode, read_folder
from vila_engine.convert.plan import Entry, Formats, Part, ignored, plan_entries
from vila_engine.convert.readers import TensorSource, open_tensors, open_torch
from vila_engine.convert.tokenizers import Spec, read_tokenizer, spec_to_tensors
from vila_engine.convert.writer import SafetensorsWriter, TensorPlan, atomic_folder, check_destination, check_space

Array = npt.NDArray[Any]
Weights = Literal["f32", "f16", "int8", "int4"]
Awq = Literal["llm-awq", "autoawq"]

WEIGHTS: tuple[Weights, ...] = ("f32", "f16", "int8", "int4")
GROUP_SIZES = (32, 64, 128)
BLOCK_BYTES = 64 << 20  # rows of a matrix that are converted at once, as f32
TILE_ROWS = 16
MAX_PADDING_ROWS = 1024


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
    progress: bool | Callable[[int, int], None] = False,
) -> ConvertReport:
    """Converts a published VILA 1.5 checkpoint.

    Integer weights are rounded to nearest; a checkpoint that already is 4-bit AWQ keeps its values, scales and zero points
    exactly when `weights` is "int4". One block of rows is in memory at a time. The result appears under its name only when
    it is complete.

    Args:
        source: Folder in the published layout, or the id of such a repository on the Hugging Face Hub.
        destination: The new model folder.
        weights: Format of the language model's matrices.
        vision_weights: Format of the vision tower and the projector; default: as `weights`, int8 for int4.
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
    formats = _formats(weights, vision_weights, head_weights, group_size)
    if conv_mode is not None and conv_mode not in CONV_MODES:
        raise InvalidArgument(f"[convert] conv_mode: expected one of {', '.join(CONV_MODES)}, got {conv_mode}")
    check_destination(destination, force=force)
    folder = _local_folder(source)
    model = read_folder(folder)
    spec = read_tokenizer(model.llm_folder)
    with ExitStack() as stack:
        job = _Job(model, spec, formats, weights, stack, dequantize=dequantize)
        mode, reason = (conv_mode, "") if conv_mode else detect_conv_mode(folder.resolve().name, _special_tokens(spec))
        if reason:
            model.notes.append(f"conversation mode {mode}: {reason}")
        return job.write(destination, mode, progress)


def _formats(weights: Weights, vision: Weights | None, head: Weights | None, group_size: int) -> Formats:
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
        patch=forms["f32" if vision == "f32" else "f16"],
        projector=forms[vision],
        embedding=np.dtype(np.float32 if weights == "f32" else np.float16),
    )


def _local_folder(source: str | Path) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    text = str(source)
    if path.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        found = "a file" if path.exists() else "nothing there"
        raise IoError(f"[convert] {source}: expected a checkpoint folder or a Hub id such as org/name, got {found}")
    try:
        import huggingface_hub
    except ImportError:
        raise IoError(
            f"[convert] {source}: expected a folder, got a name that looks like a Hub id; "
            "install vila_engine[convert] to download it"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(text))
    except Exception as error:
        raise IoError(f"[convert] {source}: expected a folder or a repository of the Hub, got {error}") from error


def _special_tokens(spec: Spec) -> set[str]:
    tokens = {token["content"] for token in spec["added_tokens"]} | set(spec["special_tokens"])
    return tokens | {
        piece.decode("utf-8", "replace") for piece, type_ in zip(spec["pieces"], spec["types"], strict=True) if type_ in (3, 4)
    }


class _Job:
    """A planned conversion."""

    def __init__(
        self, model: SourceModel, spec: Spec, formats: Formats, weights: Weights, stack: ExitStack, *, dequantize: bool
    ) -> None:
        self.model = model
        self.spec = spec
        self.formats = formats
        self.keep_awq = weights == "int4"
        self.dequantize = dequantize
        self.sources: dict[Part, TensorSource] = {
            "llm": stack.enter_context(self._open_llm()),
            "vision": stack.enter_context(open_tensors(model.vision_folder)),
        }
        if model.projector["kind"] != "identity":
            self.sources["projector"] = stack.enter_context(open_tensors(model.projector_folder))
        self.names = {part: set(source.names()) for part, source in self.sources.items()}
        self.awq = self._detect_awq()
        self.entries = plan_entries(model)
        self._check()
        self._fit_vocabulary()

    def _open_llm(self) -> TensorSource:
        quantised = sorted(self.model.llm_folder.glob("*.pt"))
        if len(quantised) > 1:
            raise CheckpointError(
                f"[convert] {self.model.llm_folder}: expected at most one .pt file, got {[path.name for path in quantised]}"
            )
        if not quantised:
            return open_tensors(self.model.llm_folder)
        self.model.notes.append(f"language model read from {quantised[0].name}")
        return open_torch(quantised[0])

    def _detect_awq(self) -> Awq | None:
        packed = [name for name in self.names["llm"] if name.endswith(".qweight")]
        if not packed:
            return None
        info = self.sources["llm"].info(packed[0])
        if info.dtype == "int16":
            return "llm-awq"
        if info.dtype == "int32" and packed[0].replace(".qweight", ".qzeros") in self.names["llm"]:
            return "autoawq"
        raise UnsupportedError(f"[convert] {packed[0]}: expected llm-awq v2 (int16) or AutoAWQ (int32) packing, got {info}")

    def _is_awq(self, entry: Entry) -> bool:
        return entry.part == "llm" and entry.source.removesuffix("weight") + "qweight" in self.names["llm"]

    def _check(self) -> None:
        """Compares the plan with what is in the files; lists every difference."""
        problems: list[str] = []
        used: dict[Part, set[str]] = {part: set() for part in self.sources}
        for entry in self.entries:
            if self._is_awq(entry):
                stem = entry.source.removesuffix("weight")
                parts = ("qweight", "scales", "scaled_zeros" if self.awq == "llm-awq" else "qzeros")
                used["llm"] |= {stem + part for part in parts}
                problems += [f"llm: missing {stem}{p}" for p in parts if stem + p not in self.names["llm"]]
                continue
            used[entry.part].add(entry.source)
            if entry.source not in self.names[entry.part]:
                problems.append(f"{entry.part}: missing {entry.source}")
                continue
            info = self.sources[entry.part].info(entry.source)
            if tuple(info.shape) != entry.published:
                problems.append(f"{entry.part}: {entry.source}: expected shape {entry.published}, got {tuple(info.shape)}")
            elif info.dtype not in ("float32", "float16", "bfloat16"):
                problems.append(f"{entry.part}: {entry.source}: expected floating-point numbers, got {info.dtype}")
        for part, names in self.names.items():
            unknown = sorted(name for name in names - used[part] if not ignored(self.model, part, name))
            problems += [f"{part}: unknown tensor {name}" for name in unknown]
        if problems:
            listed = "".join(f"\n  - {problem}" for problem in problems)
            raise CheckpointError(
                f"[convert] {self.model.folder}: expected a complete VILA 1.5 checkpoint, got {len(problems)} problems:{listed}"
            )

    def _fit_vocabulary(self) -> None:
        """Drops padding rows behind the tokenizer's last token, as the reference does when it resizes the embeddings."""
        rows, tokens = self.model.llm["vocab_size"], len(self.spec["pieces"])
        if tokens > rows or rows - tokens > min(MAX_PADDING_ROWS, rows // TILE_ROWS):
            raise CheckpointError(
                f"[convert] {self.model.llm_folder}: expected a tokenizer of about {rows} tokens (vocab_size), got {tokens}"
            )
        if tokens < rows:
            self.model.llm["vocab_size"] = tokens
            self.model.notes.append(f"{rows - tokens} padding rows of the vocabulary dropped")
            wide = ("llm.lm_head", "llm.model.embed_tokens.weight")
            self.entries = [
                replace(e, shape=(tokens, e.shape[1])) if e.name in wide else e for e in self.entries
            ]
        bad = [id_ for id_ in self.model.llm["eos_token_ids"] if not 0 <= id_ < tokens]
        if bad:
            raise CheckpointError(f"[convert] eos_token_id: expected ids below {tokens}, got {bad}")

    def write(self, destination: Path, conv_mode: str, progress: bool | Callable[[int, int], None]) -> ConvertReport:
        tokenizer_config, tokenizer_tensors = spec_to_tensors(self.spec)
        matrix_formats = {entry.name: self._format(entry) for entry in self.entries if entry.kind == "matrix"}
        plans = [TensorPlan(name, array.dtype, array.shape) for name, array in tokenizer_tensors.items()]
        for entry in self.entries:
            plans += self._plans(entry)
        needed = sum(plan.n_bytes for plan in plans)
        check_space(destination, needed + (1 << 20))
        config = self._config(conv_mode, tokenizer_config)
        with atomic_folder(destination) as scratch, _Progress(needed, progress) as done:
            (scratch / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            with (scratch / "model.safetensors").open("wb") as file:
                writer = SafetensorsWriter(file, plans, matrix_formats)
                for name, array in tokenizer_tensors.items():
                    writer.write(name, array)
                    done(array.nbytes)
                for entry in self.entries:
                    for name, array, first_row in self._blocks(entry):
                        writer.write(name, array, first_row)
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

    def _config(self, conv_mode: str, tokenizer: dict[str, Any]) -> dict[str, Any]:
        vision = {key: value for key, value in self.model.vision.items() if key != "qkv_bias"}
        return {
            "format": "vila_engine",
            "format_version": 1,
            "generator": f"vila_engine {_core.__version__}",
            "source": {"name": self.model.folder.resolve().name, "layout": self.awq or "hf"},
            "llm": self.model.llm,
            "vision": vision,
            "s2": self.model.s2,
            "projector": self.model.projector,
            "image": self.model.image,
            "video": self.model.video,
            "prompt": {"conv_mode": conv_mode},
            "tokenizer": tokenizer,
        }

    def _awq_format(self) -> str:
        # The zero point's form follows from the packing; the group size is the only one that the tools write.
        return "w4p16x8g128o" if self.awq == "llm-awq" else f"w4p16x8g{self._autoawq_group()}z"

    def _autoawq_group(self) -> int:
        name = next(name for name in self.names["llm"] if name.endswith(".qweight"))
        info, scales = self.sources["llm"].info(name), self.sources["llm"].info(name.replace("qweight", "scales"))
        group = info.shape[0] // max(scales.shape[0], 1)
        if group not in GROUP_SIZES:
            raise UnsupportedError(f"[convert] {name}: expected a group size of 32, 64 or 128, got {group}")
        return group

    def _integer_format(self, entry: Entry) -> str:
        return self._awq_format() if self._is_awq(entry) and self.keep_awq else self.formats.of(entry.role)

    def _format(self, entry: Entry) -> str:
        return "f32p16" if self.dequantize else self._integer_format(entry)

    def _plans(self, entry: Entry) -> list[TensorPlan]:
        if entry.kind == "vector":
            return [TensorPlan(entry.name, np.dtype(np.float32), entry.shape)]
        if entry.kind == "table":
            return [TensorPlan(entry.name, self._table_type(), entry.shape)]
        n, k = entry.shape
        return [TensorPlan(f"{entry.name}.{part}", dtype, shape) for part, dtype, shape in part_shapes(self._format(entry), n, k)]

    def _table_type(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.dequantize else self.formats.embedding

    def _blocks(self, entry: Entry) -> Iterator[tuple[str, Array, int]]:
        """The arrays to write for one entry, by blocks of rows: name, array, first row along its first axis."""
        if self._is_awq(entry):
            yield from self._awq_blocks(entry)
            return
        source = self.sources[entry.part]
        if entry.kind == "vector":
            yield entry.name, source.read(entry.source).astype(np.float32).reshape(entry.shape), 0
            return
        n, k = entry.shape
        step = max(BLOCK_BYTES // (4 * k) // TILE_ROWS, 1) * TILE_ROWS
        for begin in range(0, n, step):
            rows = source.read(entry.source, (begin, min(begin + step, n))).astype(np.float32).reshape(-1, k)
            if entry.kind == "table":
                yield entry.name, rows.astype(self.formats.embedding).astype(self._table_type()), begin
            else:
                yield from self._pack(entry, rows, begin)

    def _pack(self, entry: Entry, rows: Array, begin: int) -> Iterator[tuple[str, Array, int]]:
        self._check_values(entry, rows)
        form = self._integer_format(entry)
        parts = _core.pack_matrix(np.ascontiguousarray(rows), form)
        if self.dequantize:
            parts = _core.pack_matrix(_core.unpack_matrix(parts, form, *rows.shape), "f32p16")
        for part, array in parts.items():
            yield f"{entry.name}.{part}", array, begin // TILE_ROWS

    def _check_values(self, entry: Entry, rows: Array) -> None:
        if not np.isfinite(rows).all():
            raise CheckpointError(f"[convert] {entry.source}: expected finite weights, got infinity or not-a-number")

    def _awq_blocks(self, entry: Entry) -> Iterator[tuple[str, Array, int]]:
        stem = entry.source.removesuffix(".weight")
        read = import_llm_awq if self.awq == "llm-awq" else import_autoawq
        matrix: AwqMatrix = read(self.sources["llm"], stem)
        if matrix.q.shape != entry.shape:
            raise CheckpointError(f"[convert] {stem}: expected a matrix {entry.shape}, got {matrix.q.shape}")
        if self.keep_awq and not self.dequantize:
            parts = _core.pack_int4(matrix.q, matrix.scales, self._awq_format(), zeros=matrix.zeros, offsets=matrix.offsets)
            for part, array in parts.items():
                yield f"{entry.name}.{part}", array, 0
        elif self.keep_awq:
            for part, array in _core.pack_matrix(matrix.dequantize(), "f32p16").items():
                yield f"{entry.name}.{part}", array, 0
        else:
            yield from self._pack(entry, matrix.dequantize(), 0)


def part_shapes(form: str, n: int, k: int) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """The tensors of a packed matrix [N, K]: part name, type, shape (docs/FORMATS.md).

    Args:
        form: A weight format such as "w4p16x8g128z".
        n: Output features.
        k: Input features.
    """
    tiles = -(-n // TILE_ROWS)
    f32, f16, u8 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint8)
    if form in ("f32p16", "f16p16"):
        return [("weight", f32 if form == "f32p16" else f16, (tiles, k, TILE_ROWS))]
    group = int(form.split("g")[1].rstrip("zo"))
    groups = -(-k // group)
    columns = groups * group // (4 if form.startswith("w8") else 8)
    parts: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = [("weight", u8, (tiles, columns, 64))]
    parts.append(("weight_scale", f16, (tiles, groups, TILE_ROWS)))
    if form.endswith("z"):
        parts.append(("weight_zero", u8, (tiles, groups, TILE_ROWS)))
    if form.endswith("o"):
        parts.append(("weight_offset", f16, (tiles, groups, TILE_ROWS)))
    return parts


class _Progress:
    """Counts bytes into a bar, a function or nowhere."""

    def __init__(self, total: int, progress: bool | Callable[[int, int], None]) -> None:
        self.total = total
        self.done = 0
        self.report = progress if callable(progress) else None
        self.bar: Any = None
        if progress is True:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="B", unit_scale=True, desc="converting", leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, n_bytes: int) -> None:
        self.done += n_bytes
        if self.bar is not None:
            self.bar.update(n_bytes)
        if self.report is not None:
            self.report(self.done, self.total)
