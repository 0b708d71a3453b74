"""Unpacks the two published layouts of 4-bit AWQ matrices (https://arxiv.org/abs/2306.00978): llm-awq v2 and AutoAWQ.

Integers, scales and zero points come out bit for bit; nothing is rounded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vila_engine._core import UnsupportedError
from vila_engine.convert.readers import TensorSource

LLM_AWQ_GROUP = 128
LLM_AWQ_BLOCK = 64  # inputs that are packed together
LLM_AWQ_STRIP = 4  # outputs that are packed together
SCALE_ROWS = 8  # llm-awq pads the number of groups to a multiple of this
NIBBLES = 8  # in a 32-bit word
GEMM_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that nibble 0, 1, ... of a word belongs to
GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class AwqMatrix:
    """Some rows of a 4-bit matrix: N outputs, K inputs, G = K / group groups of inputs per output.

    Either `zeros` or `offsets` is there.

    Attributes:
        q: Integers 0 to 15, uint8 [N, K].
        scales: float16 [N, G].
        zeros: Integer zero points 0 to 15, uint8 [N, G]: the weight is (q - zero) * scale.
        offsets: float16 [N, G]: the weight is q * scale + offset.
        group: Inputs per scale.
    """

    q: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    zeros: npt.NDArray[np.uint8] | None
    offsets: npt.NDArray[np.float16] | None
    group: int

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weights, float32 [N, K], every operation rounded to float32."""
        n, k = self.q.shape
        weights = self.q.astype(np.float32).reshape(n, k // self.group, self.group)
        if self.zeros is not None:
            weights -= self.zeros[:, :, None]
        weights *= self.scales.astype(np.float32)[:, :, None]
        if self.offsets is not None:
            weights += self.offsets.astype(np.float32)[:, :, None]
        return weights.reshape(n, k)


@dataclass(frozen=True)
class AwqLayout:
    """How the matrices of a language model are packed.

    "llm-awq" (second layout, as in the published VILA 1.5 AWQ files): `<name>.qweight` int16 [N/4, K], `<name>.scales`
    and `<name>.scaled_zeros` float16 [R, N], R being K/128 rounded up to a multiple of 8.
    "autoawq" (GEMM): `<name>.qweight` int32 [K, N/8], `<name>.qzeros` int32 [G, N/8], `<name>.scales` float16 [G, N].
    """

    kind: Literal["llm-awq", "autoawq"]
    group: int

    @property
    def weight_format(self) -> str:
        """The format that holds such matrices unchanged (docs/FORMATS.md)."""
        return f"w4p16x8g{self.group}{'o' if self.kind == 'llm-awq' else 'z'}"

    def parts(self, n: int, k: int) -> dict[str, tuple[str, tuple[int, int]]]:
        """Type and shape of the tensors of a matrix [N, K], by the last word of their names."""
        groups = -(-k // self.group)
        if self.kind == "llm-awq":
            scales = ("float16", (-(-groups // SCALE_ROWS) * SCALE_ROWS, n))
            return {"qweight": ("int16", (n // LLM_AWQ_STRIP, k)), "scales": scales, "scaled_zeros": scales}
        return {
            "qweight": ("int32", (k, n // NIBBLES)),
            "scales": ("float16", (groups, n)),
            "qzeros": ("int32", (groups, n // NIBBLES)),
        }

    def problems(self, source: TensorSource, name: str, n: int, k: int) -> list[str]:
        """What is wrong with the tensors of the matrix `name`, which is to be [N, K]."""
        if n % NIBBLES or k % self.group:
            return [f"{name}: expected a 4-bit matrix of a multiple of {NIBBLES} by {self.group}, got {(n, k)}"]
        found = set(source.names())
        problems = []
        for part, (dtype, shape) in self.parts(n, k).items():
            if f"{name}.{part}" not in found:
                problems.append(f"missing {name}.{part}")
                continue
            info = source.info(f"{name}.{part}")
            if (info.dtype, info.shape) != (dtype, shape):
                problems.append(f"{name}.{part}: expected {dtype} {shape}, got {info.dtype} {info.shape}")
        return problems

    def blocks(self, source: TensorSource, name: str, n: int, k: int, step: int) -> Iterator[tuple[int, AwqMatrix]]:
        """Unpacks a matrix [N, K] without `problems` by blocks of rows.

        Args:
            source: Holds the tensors.
            name: Name of the linear layer, such as "model.layers.0.mlp.up_proj".
            n: Outputs.
            k: Inputs.
            step: Rows of a block, a multiple of 8.

        Yields:
            First row and the rows.
        """
        read = self._llm_awq_rows if self.kind == "llm-awq" else self._autoawq_rows
        yield from read(source, name, [(begin, min(begin + step, n)) for begin in range(0, n, step)], k)

    def _llm_awq_rows(
        self, source: TensorSource, name: str, blocks: list[tuple[int, int]], k: int
    ) -> Iterator[tuple[int, AwqMatrix]]:
        n_groups = k // self.group
        scales = source.read(f"{name}.scales", (0, n_groups))
        offsets = source.read(f"{name}.scaled_zeros", (0, n_groups))
        for begin, end in blocks:
            words = source.read(f"{name}.qweight", (begin // LLM_AWQ_STRIP, end // LLM_AWQ_STRIP)).view(np.uint32)
            q, wide = _unpack_llm_awq(words, k), np.s_[:, begin:end]
            yield begin, AwqMatrix(q, _dense(scales[wide].T), None, _dense(offsets[wide].T), self.group)

    def _autoawq_rows(
        self, source: TensorSource, name: str, blocks: list[tuple[int, int]], k: int
    ) -> Iterator[tuple[int, AwqMatrix]]:
        del k
        # Outputs are columns in the file, so all of the packed matrix is read: N * K / 2 bytes.
        words = source.read(f"{name}.qweight")
        scales, zeros = source.read(f"{name}.scales"), source.read(f"{name}.qzeros")
        for begin, end in blocks:
            packed = np.s_[:, begin // NIBBLES : end // NIBBLES]
            q, zero = _unpack_gemm(words[packed]), _unpack_gemm(zeros[packed])
            yield begin, AwqMatrix(q, _dense(scales[:, begin:end].T), zero, None, self.group)


def detect_layout(source: TensorSource, quantization: dict[str, Any]) -> AwqLayout | None:
    """Finds out how the matrices of a language model are packed.

    Args:
        source: Its tensors.
        quantization: `quantization_config` of its config.json, which AutoAWQ writes; may be empty.

    Returns:
        The layout, or None if nothing is packed.

    Raises:
        UnsupportedError: it is packed in another way.
    """
    names = set(source.names())
    packed = next((name for name in source.names() if name.endswith(".qweight")), None)
    if packed is None:
        return None
    info, stem = source.info(packed), packed.removesuffix("qweight")
    if info.dtype == "int16" and stem + "scaled_zeros" in names:
        return AwqLayout("llm-awq", LLM_AWQ_GROUP)
    if info.dtype != "int32" or stem + "qzeros" not in names:
        raise UnsupportedError(
            f"[convert] {packed}: expected llm-awq v2 (int16 beside scaled_zeros) or AutoAWQ (int32 beside qzeros) "
            f"packing, got {info.dtype} {info.shape}"
        )
    bits = quantization.get("bits", quantization.get("w_bit", 4))
    found = (quantization.get("quant_method", "awq"), bits, str(quantization.get("version", "gemm")).lower())
    if found != ("awq", 4, "gemm"):
        raise UnsupportedError(
            f"[convert] quantization_config: expected quant_method awq, bits 4, version gemm, got {found}"
        )
    group = quantization.get("group_size", quantization.get("q_group_size"))
    if group is None:
        n_groups = source.info(stem + "scales").shape[:1] if stem + "scales" in names else ()
        group = info.shape[0] // max(1, *n_groups) if info.shape and n_groups else GROUPS[-1]
    if group not in GROUPS:
        raise UnsupportedError(f"[convert] {packed}: expected a group size of {GROUPS}, got {group!r}")
    return AwqLayout("autoawq", group)


def _unpack_llm_awq(words: npt.NDArray[np.uint32], k: int) -> npt.NDArray[np.uint8]:
    """Unpacks uint32 [N/4, K/2] to uint8 [N, K]."""
    strips = len(words)
    # Nibble m of word t of a block holds input 32 (t / 4) + 8 (m mod 4) + 2 (t mod 4) + m / 4 of that block.
    words = words.reshape(strips, k // LLM_AWQ_BLOCK, LLM_AWQ_STRIP, 2, 4).transpose(0, 2, 1, 3, 4)
    q = np.empty((strips, LLM_AWQ_STRIP, k // LLM_AWQ_BLOCK, 2, 4, 4, 2), np.uint8)
    for m in range(NIBBLES):
        q[:, :, :, :, m % 4, :, m // 4] = (words >> np.uint32(4 * m)) & np.uint32(15)
    return q.reshape(strips * LLM_AWQ_STRIP, k)


def _unpack_gemm(words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Unpacks int32 [rows, N/8] to uint8 [N, rows]."""
    rows, n_words = words.shape
    result = np.empty((n_words, NIBBLES, rows), np.uint8)
    for nibble, column in enumerate(GEMM_COLUMNS):
        result[:, column] = ((words.view(np.uint32) >> np.uint32(4 * nibble)) & np.uint32(15)).T
    return result.reshape(n_words * NIBBLES, rows)


def _dense(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values)
