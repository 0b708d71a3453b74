"""Compares the engine with recorded outputs of the PyTorch reference ("goldens"), number by number.

A golden folder holds manifest.json, cases/*.npz and checkpoint/ (tests/golden/README.md).
docs/PARITY.md derives the bounds.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import CheckpointError, InvalidArgument, kernel_names
from vila_engine.convert import convert
from vila_engine.convert.conversion import Weights
from vila_engine.engine import KvCache, Model, load
from vila_engine.media import load_image
from vila_engine.query import Query, checked_messages

Array = npt.NDArray[np.float32]

KL_BOUND = 1e-3
"""Mean Kullback-Leibler divergence, in nats, that int8 activations may add to the dequantised model's distribution, and
a rounded cache to that of the reference."""


@dataclass(frozen=True)
class Measure:
    """One comparison: `value` is a largest absolute difference, a divergence or a number of wrong entries."""

    name: str
    value: float
    bound: float | None

    @property
    def ok(self) -> bool:
        """Whether the bound holds; a measure without bound is for information."""
        return self.bound is None or self.value <= self.bound


@dataclass
class CaseReport:
    """All comparisons of one case under one configuration."""

    variant: str
    case: str
    weights: str
    isa: str
    threads: int
    measures: list[Measure] = field(default_factory=list)
    digest: str = ""

    @property
    def ok(self) -> bool:
        """Whether all bounds hold."""
        return all(measure.ok for measure in self.measures)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ok": self.ok}


def find_goldens(paths: Iterable[str | Path]) -> list[Path]:
    """Golden folders among the paths and directly below them.

    Raises:
        InvalidArgument: a path has none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if _is_golden(path) else sorted(p for p in path.glob("*") if _is_golden(p))
        if not inside:
            raise InvalidArgument(f"[parity] {path}: expected a golden folder (manifest.json, checkpoint/), got none")
        found += inside
    return found


def _is_golden(path: Path) -> bool:
    return (path / "manifest.json").is_file() and (path / "checkpoint").is_dir()


def run_parity(
    folders: Sequence[Path],
    *,
    weights: Sequence[Weights] = ("f32",),
    isas: Sequence[str] = (),
    threads: Sequence[int] = (),
    kv_cache: KvCache = "f32",
    report: Callable[[CaseReport], None] | None = None,
) -> list[CaseReport]:
    """Runs all cases of golden folders.

    Args:
        folders: Golden folders.
        weights: Formats to convert to. f32 is compared with the recorded outputs. f16, int8 and int4 are compared with
            the same rounded weights in f32, which leaves the error of the arithmetic, and with the recorded logits.
        isas: Kernel tables; empty: the chosen one. ("all",): all usable ones.
        threads: Thread counts; empty: the default.
        kv_cache: Type of cached keys and values. Only f32 is held to the bounds of logits and greedy tokens; the
            others, with weights in f32, to a bound of the divergence from the recorded logits.
        report: Called after each case.

    Returns:
        One report per case and configuration. Outputs must be the same bytes for all tables and thread counts; where
        they are not, the measure "other bytes" is broken.
    """
    if list(isas) == ["all"]:
        isas = [name for name, usable in kernel_names() if usable]
    reports = []
    with tempfile.TemporaryDirectory(prefix="vila_parity_") as scratch:
        for number, folder in enumerate(folders):
            golden = _Golden(folder, Path(scratch) / str(number), kv_cache)
            for form in weights:
                first: dict[str, str] = {}
                for isa in isas or ("",):
                    for n_threads in threads or (0,):
                        for line in golden.run(form, isa, n_threads):
                            same = first.setdefault(line.case, line.digest) == line.digest
                            if len(isas) > 1 or len(threads) > 1:
                                line.measures.append(Measure("other bytes", float(not same), 0))
                            reports.append(line)
                            if report:
                                report(line)
    return reports


class _Golden:
    """One golden folder with its converted models."""

    def __init__(self, folder: Path, scratch: Path, kv_cache: KvCache) -> None:
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            self.cases = self.manifest["cases"]
            self.tolerance = self.manifest["tolerance"]
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"[parity] {folder}: expected a manifest with cases and tolerance, got {error}"
            ) from error
        self.folder = folder
        self.scratch = scratch
        self.kv_cache: KvCache = kv_cache
        self.variant = self.manifest.get("variant", folder.name)
        self.dequantised: dict[tuple[str, str], Array] = {}

    def run(self, weights: Weights, isa: str, threads: int) -> Iterable[CaseReport]:
        conv_of = {case["name"]: case.get("conv", self.manifest["config"]["conv"]) for case in self.cases}
        for conv in dict.fromkeys(conv_of.values()):
            with self._load(weights, conv, isa, threads, dequantize=False) as model:
                for case in self.cases:
                    if conv_of[case["name"]] != conv:
                        continue
                    try:
                        yield self._run_case(model, case, weights, conv, threads)
                    except KeyError as error:
                        raise CheckpointError(
                            f"[parity] {self.folder}: expected {error} in case {case['name']}"
                        ) from error

    def _load(self, weights: Weights, conv: str, isa: str, threads: int, *, dequantize: bool) -> Model:
        self.scratch.mkdir(exist_ok=True)
        path = self.scratch / f"{weights}{'-dequantised' if dequantize else ''}"
        if not path.exists():
            convert(self.folder / "checkpoint", path, weights=weights, dequantize=dequantize)
        return load(path, conv_mode=conv, isa=isa or None, threads=threads or None, kv_cache=self.kv_cache)

    def _run_case(self, model: Model, case: dict[str, Any], weights: Weights, conv: str, threads: int) -> CaseReport:
        recorded = np.load(self.folder / case["file"])
        images = [load_image(self.folder / self.manifest["images"] / name) for name in case["images"]]
        query = _messages(case["turns"])
        logits = model.logits(query, images=images, reference_compat=True)
        ids = model.prompt_ids(query, images=len(images), reference_compat=True)
        n_steps = len(recorded["greedy_ids"])
        stream = model._start(
            checked_messages(query),
            images,
            [],
            None,
            {"max_new_tokens": n_steps, "ignore_eos": True},
            reference_compat=True,
        )
        with stream:
            greedy = stream.result().token_ids
        line = CaseReport(self.variant, case["name"], weights, model.info["isa"], model.info["threads"])
        add = line.measures.append
        prompt = model.prompt_text(query, images=len(images), reference_compat=True)
        add(Measure("prompt", float(prompt != case["prompt"]), 0))
        add(Measure("ids", _wrong(recorded["input_ids"], ids), 0))
        digest = hashlib.sha256(np.asarray(greedy, np.int32).tobytes() + logits.tobytes())
        for name, compute in (
            ("pixel_values", model.preprocess),
            ("vision_features", model.vision_features),
            ("projector_output", model.encode_image),
        ):
            if name not in recorded.files:
                continue
            found = np.stack([compute(image).reshape(recorded[name].shape[1:]) for image in images])
            digest.update(found.tobytes())
            exact = weights == "f32" or name == "pixel_values"
            add(Measure(name, _largest(found, recorded[name]), self.tolerance[name] if exact else None))
        line.digest = digest.hexdigest()
        positions = recorded["logit_positions"] if "logit_positions" in recorded.files else np.arange(len(logits))
        expected, found = recorded["logits"], logits[positions]
        exact = weights == "f32" and self.kv_cache == "f32"
        add(Measure("logits", _largest(found, expected), self.tolerance["logits"] if exact else None))
        only_cache = weights == "f32" and not exact
        add(Measure("KL", float(kl_divergence(expected, found).mean()), KL_BOUND if only_cache else None))
        if weights != "f32":
            reference = self._dequantised_logits(weights, conv, case["name"], query, images)
            divergence = kl_divergence(reference, logits)
            add(Measure("arithmetic KL", float(divergence.mean()), KL_BOUND))
            add(Measure("arithmetic KL max", float(divergence.max()), None))
        add(Measure("greedy", _wrong(recorded["greedy_ids"], greedy), 0 if exact else None))
        return line

    def _dequantised_logits(self, weights: Weights, conv: str, case: str, query: Query, images: list[Any]) -> Array:
        key = (weights, case)
        if key not in self.dequantised:
            with self._load(weights, conv, "", 0, dequantize=True) as model:
                self.dequantised[key] = model.logits(query, images=images, reference_compat=True)
        return self.dequantised[key]


def _messages(turns: list[str | None]) -> list[Any]:
    """Alternating user and assistant turns; the last one, None, is to be answered."""
    return [
        {"role": "user" if i % 2 == 0 else "assistant", "content": text}
        for i, text in enumerate(turns)
        if text is not None
    ]


def _largest(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max(initial=0.0))


def _wrong(expected: npt.ArrayLike, found: npt.ArrayLike) -> float:
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape:
        return float(max(expected.size, found.size))
    return float((expected != found).sum())


def kl_divergence(p_logits: npt.ArrayLike, q_logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Kullback-Leibler divergence KL(p || q) in nats per row of logits [T, V], computed in double precision."""
    p, q = (_log_softmax(np.asarray(logits, np.float64)) for logits in (p_logits, q_logits))
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result


def _log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = x - x.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return result


COLUMNS = (
    "prompt", "ids", "pixel_values", "vision_features", "projector_output", "logits", "KL",
    "arithmetic KL", "arithmetic KL max", "greedy", "other bytes",
)  # fmt: skip
COUNTS = {"prompt", "ids", "greedy", "other bytes"}
SHORT = {"pixel_values": "pixels", "vision_features": "vision", "projector_output": "projector", "other bytes": "bytes"}


def table(reports: Sequence[CaseReport]) -> str:
    """The reports as a table; "=" is exact equality, "!" marks a broken bound."""
    present = [name for name in COLUMNS if any(m.name == name for r in reports for m in r.measures)]
    rows = [["variant", "case", "weights", "isa", "threads", *(SHORT.get(name, name) for name in present)]]
    for line in reports:
        values = {measure.name: measure for measure in line.measures}
        cells = [_cell(values.get(name)) for name in present]
        rows.append([line.variant, line.case, line.weights, line.isa, str(line.threads), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def worst(reports: Sequence[CaseReport]) -> list[CaseReport]:
    """One report per variant and configuration, with the largest value of every measure over its cases."""
    groups: dict[tuple[str, str, str, int], list[CaseReport]] = {}
    for line in reports:
        groups.setdefault((line.variant, line.weights, line.isa, line.threads), []).append(line)
    merged = []
    for (variant, weights, isa, threads), lines in groups.items():
        largest: dict[str, Measure] = {}
        for measure in (measure for line in lines for measure in line.measures):
            known = largest.get(measure.name)
            # A value that is no number is worse than all others.
            if known is None or math.isnan(measure.value) or measure.value > known.value:
                largest[measure.name] = measure
        merged.append(CaseReport(variant, f"{len(lines)} cases", weights, isa, threads, list(largest.values())))
    return merged


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    if measure.value == 0:
        text = "="
    elif measure.name in COUNTS:
        text = f"{measure.value:.0f} wrong"
    else:
        text = f"{measure.value:.1e}"
    return text if measure.ok else text + " !"
