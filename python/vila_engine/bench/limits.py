"""What a task needs at least: bytes to read and multiply-adds to do, counted from a model's shape and formats.

Together with the machine's measured limits this gives the shortest time that the task can take; docs/PERFORMANCE.md has
the formulas. Norms, activations, rotary embeddings, softmax and sampling count as nothing, so no share is flattered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vila_engine.bench.presets import source_of
from vila_engine.convert.plan import Entry, part_shapes, plan_entries

KV_BYTES = {"f16": 2, "f32": 4, "int8": 1}
KV_SCALE_BYTES = {"f16": 0, "f32": 0, "int8": 4}


@dataclass(frozen=True)
class Limits:
    """What a machine can do at best with one instruction set and a number of threads.

    Attributes:
        read_bytes_per_second: Sequential reads of memory.
        dot_macs_per_second: Integer multiply-adds, on registers alone.
        fma_macs_per_second: f32 multiply-adds, on registers alone.
        huge_page_bytes: Of the process while the reads were measured.
    """

    read_bytes_per_second: float
    dot_macs_per_second: float
    fma_macs_per_second: float
    huge_page_bytes: int = 0

    def best(self, other: Limits) -> Limits:
        """The larger of each figure: a limit that was once reached is possible."""
        return Limits(
            max(self.read_bytes_per_second, other.read_bytes_per_second),
            max(self.dot_macs_per_second, other.dot_macs_per_second),
            max(self.fma_macs_per_second, other.fma_macs_per_second),
            max(self.huge_page_bytes, other.huge_page_bytes),
        )


@dataclass(frozen=True)
class Work:
    """Bytes that must be read from memory, integer and f32 multiply-adds."""

    n_bytes: float = 0
    dot_macs: float = 0
    fma_macs: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.n_bytes + other.n_bytes, self.dot_macs + other.dot_macs, self.fma_macs + other.fma_macs)

    @property
    def macs(self) -> float:
        """All multiply-adds."""
        return self.dot_macs + self.fma_macs

    def memory_seconds(self, limits: Limits) -> float:
        """The time that reading takes at least."""
        return self.n_bytes / limits.read_bytes_per_second

    def compute_seconds(self, limits: Limits) -> float:
        """The time that computing takes at least."""
        return self.dot_macs / limits.dot_macs_per_second + self.fma_macs / limits.fma_macs_per_second

    def seconds(self, limits: Limits) -> float:
        """The shortest time: reading and computing may overlap completely."""
        return max(self.memory_seconds(limits), self.compute_seconds(limits))

    def bound(self, limits: Limits) -> str:
        """Which takes longer: "memory" or "compute"."""
        return "memory" if self.memory_seconds(limits) >= self.compute_seconds(limits) else "compute"


class ModelWork:
    """Counts the work of a model's tasks.

    Args:
        config: config.json of the model folder.
        formats: Weight format of every matrix, by name without `.weight`.
        file_bytes: Size of model.safetensors.
        kv_cache: Type of cached keys and values.
    """

    def __init__(
        self, config: Mapping[str, Any], formats: Mapping[str, str], file_bytes: int, kv_cache: str = "f16"
    ) -> None:
        self._llm: dict[str, Any] = config["llm"]
        self._vision: dict[str, Any] = config["vision"]
        self._s2: dict[str, Any] | None = config["s2"]
        self._projector: dict[str, Any] = config["projector"]
        self._formats = formats
        self._file_bytes = file_bytes
        self._kv_bytes = config["llm"]["head_dim"] * KV_BYTES[kv_cache] + KV_SCALE_BYTES[kv_cache]  # of a key or value
        self._matrices = [entry for entry in plan_entries(source_of(dict(config))) if entry.kind == "matrix"]

    def load(self) -> Work:
        """Reading the file once."""
        return Work(n_bytes=self._file_bytes)

    def decode(self, context: float) -> Work:
        """One token after `context` others: all matrices of the language model and the cache are read once."""
        c = self._llm
        cache = 2 * c["n_layers"] * c["n_kv_heads"] * self._kv_bytes * context
        return Work(n_bytes=cache, fma_macs=self._attention(context + 1)) + self._linear(self._of("block", "head"), 1)

    def prefill(self, tokens: int, cached: int = 0) -> Work:
        """A prompt of `tokens` after `cached` others.

        Only its last row reaches the vocabulary projection, and only its keys and values leave the last block.
        """
        n_layers = self._llm["n_layers"]
        pairs = tokens * cached + tokens * (tokens + 1) / 2  # row i sees the cached ones, those before it, and itself
        pairs -= (pairs - tokens - cached) / n_layers  # of the last block, those of the last row
        last = [entry for entry in self._of("block") if f".layers.{n_layers - 1}." in entry.name]
        one_row = [entry for entry in last if not entry.name.endswith((".k_proj", ".v_proj"))]
        all_rows = [entry for entry in self._of("block") if entry not in one_row]
        work = self._linear(all_rows, tokens) + self._linear([*one_row, *self._of("head")], 1)
        return work + Work(fma_macs=self._attention(pairs))

    def vision(self) -> Work:
        """One picture: the tower on every tile, then the projector once."""
        c = self._vision
        patches = self.patches
        rows = patches + (c["kind"] == "intern_vit")  # its class token
        edge = [entry for entry in self._matrices if entry.name == "vision.embeddings.patch_embedding"]
        blocks = [entry for entry in self._matrices if entry.part == "vision" and entry not in edge]
        work = self._linear(edge, patches * self.tiles) + self._linear(blocks, rows * self.tiles)
        work += Work(fma_macs=2 * c["n_layers"] * c["dim"] * rows * rows * self.tiles)
        projector = [entry for entry in self._matrices if entry.part == "projector"]
        return work + self._linear(projector, self.tokens_per_image)

    @property
    def patches(self) -> int:
        """Patches of one tile."""
        return int(self._vision["image_size"] // self._vision["patch_size"]) ** 2

    @property
    def tiles(self) -> int:
        """Runs of the tower for one picture."""
        if self._s2 is None:
            return 1
        return sum((scale // self._s2["max_split"]) ** 2 for scale in self._s2["scales"])

    @property
    def tokens_per_image(self) -> int:
        """Rows of the language model that stand for a picture."""
        if self._projector["kind"] == "mlp_downsample":
            return ((math.isqrt(self.patches) + 1) // 2) ** 2
        has_class_row = self._vision["kind"] == "intern_vit" and not self._vision["drop_class_token"]
        return self.patches + has_class_row

    def _of(self, *roles: str) -> list[Entry]:
        return [entry for entry in self._matrices if entry.part == "llm" and entry.role in roles]

    def _attention(self, pairs: float) -> float:
        """Multiply-adds of `pairs` of a query and a position: scores and sums of values."""
        c = self._llm
        return float(2 * c["n_layers"] * c["n_heads"] * c["head_dim"] * pairs)

    def _linear(self, matrices: Iterable[Entry], rows: int) -> Work:
        """Matrices that are read once and multiplied with `rows` rows."""
        n_bytes, dot, fma = 0, 0, 0
        for entry in matrices:
            form = self._formats[entry.name]
            for _, dtype, shape in part_shapes(form, *entry.shape):
                n_bytes += math.prod(shape) * dtype.itemsize
            macs = math.prod(entry.shape) * rows
            if form.startswith("w"):
                dot += macs
            else:
                fma += macs
        return Work(n_bytes, dot, fma)
