"""Unpacks the two published layouts of 4-bit AWQ matrices (https://arxiv.org/abs/2306.00978): llm-awq v2 and AutoAWQ.

Integers, scales and zero points come out bit for bit; nothing is rounded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import CheckpointError, UnsupportedError
from vila_engine.convert.readers import TensorSource

Shape = tuple[int, ...]

LLM_AWQ_GROUP = 128
LLM_AWQ_BLOCK = 64  # inputs that are packed together
LLM_AWQ_STRIP = 4  # outputs that are packed together
SCALE_ROWS = 8  # llm-awq pads the number of groups to a multiple of this
NIBBLES = 8  # in a 32-bit word
GEMM_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that nibble 0, 1, ... of a word belongs to
GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class AwqMatrix:
    """A 4-bit matrix of N outputs and K inputs, with G = K / group groups of inputs per output.

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


def import_llm_awq(source: TensorSource, name: str) -> AwqMatrix:
    """Reads a matrix of llm-awq's second layout, as in the published VILA 1.5 AWQ files.

    Args:
        source: Holds `<name>.qweight` int16 [N/4, K], `<name>.scales` and `<name>.scaled_zeros` float16 [R, N]; R is
            K/128 rounded up to a multiple of 8.
        name: Name of the linear layer, such as "model.layers.0.mlp.up_proj".

    Returns:
        The matrix in groups of 128; `offsets` are the stored scaled_zeros, `zeros` is None.

    Raises:
        CheckpointError: a tensor is missing or has a wrong shape.
        UnsupportedError: a tensor has another type, as in other layouts of the tool.
    """
    _expect_types(source, name, {"qweight": "int16", "scales": "float16", "scaled_zeros": "float16"})
    strips, k = _matrix_shape(source, f"{name}.qweight")
    if not strips or not k or k % LLM_AWQ_GROUP:
        raise CheckpointError(
            f"[convert] {name}.qweight: expected [N/4, K] with K a multiple of {LLM_AWQ_GROUP}, got {(strips, k)}"
        )
    n, n_groups = strips * LLM_AWQ_STRIP, k // LLM_AWQ_GROUP
    padded = -(-n_groups // SCALE_ROWS) * SCALE_ROWS
    for part in ("scales", "scaled_zeros"):
        _expect_shape(source, f"{name}.{part}", (padded, n))
    words = source.read(f"{name}.qweight").view(np.uint32)
    # Nibble m of word t of a block holds input 32 (t / 4) + 8 (m mod 4) + 2 (t mod 4) + m / 4 of that block.
    words = words.reshape(strips, k // LLM_AWQ_BLOCK, LLM_AWQ_STRIP, 2, 4).transpose(0, 2, 1, 3, 4)
    q = np.empty((strips, LLM_AWQ_STRIP, k // LLM_AWQ_BLOCK, 2, 4, 4, 2), np.uint8)
    for m in range(NIBBLES):
        q[:, :, :, :, m % 4, :, m // 4] = (words >> np.uint32(4 * m)) & np.uint32(15)
    return AwqMatrix(
        q=q.reshape(n, k),
        scales=_rows_to_outputs(source.read(f"{name}.scales", (0, n_groups))),
        zeros=None,
        offsets=_rows_to_outputs(source.read(f"{name}.scaled_zeros", (0, n_groups))),
        group=LLM_AWQ_GROUP,
    )


def import_autoawq(source: TensorSource, name: str) -> AwqMatrix:
    """Reads a matrix of AutoAWQ's GEMM layout.

    Args:
        source: Holds `<name>.qweight` int32 [K, N/8], `<name>.qzeros` int32 [G, N/8] and `<name>.scales` float16
            [G, N]; K / G is 32, 64 or 128.
        name: Name of the linear layer.

    Returns:
        The matrix with integer `zeros`; `offsets` is None.

    Raises:
        CheckpointError: a tensor is missing or has a wrong shape.
        UnsupportedError: a tensor has another type, or the groups another size.
    """
    _expect_types(source, name, {"qweight": "int32", "qzeros": "int32", "scales": "float16"})
    k, n_words = _matrix_shape(source, f"{name}.qweight")
    n_groups, n = _matrix_shape(source, f"{name}.scales")
    _expect_shape(source, f"{name}.qweight", (k, n // NIBBLES))
    _expect_shape(source, f"{name}.scales", (n_groups, n_words * NIBBLES))
    _expect_shape(source, f"{name}.qzeros", (n_groups, n_words))
    if not n or not n_groups or k % n_groups:
        raise CheckpointError(
            f"[convert] {name}.scales: expected [G, N], neither zero and G a divisor of {k}, got {(n_groups, n)}"
        )
    group = k // n_groups
    if group not in GROUPS:
        raise UnsupportedError(f"[convert] {name}: expected a group size of {GROUPS}, got {group}")
    return AwqMatrix(
        q=_unpack_gemm(source.read(f"{name}.qweight")),
        scales=_rows_to_outputs(source.read(f"{name}.scales")),
        zeros=_unpack_gemm(source.read(f"{name}.qzeros")),
        offsets=None,
        group=group,
    )


def _unpack_gemm(words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Unpacks int32 [rows, N/8] to uint8 [N, rows]."""
    rows, n_words = words.shape
    result = np.empty((n_words, NIBBLES, rows), np.uint8)
    for nibble, column in enumerate(GEMM_COLUMNS):
        result[:, column] = ((words.view(np.uint32) >> np.uint32(4 * nibble)) & np.uint32(15)).T
    return result.reshape(n_words * NIBBLES, rows)


def _rows_to_outputs(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values.T)


def _matrix_shape(source: TensorSource, name: str) -> tuple[int, int]:
    shape = source.info(name).shape
    if len(shape) != 2:
        raise CheckpointError(f"[convert] {name}: expected a matrix, got shape {shape}")
    return shape[0], shape[1]


def _expect_shape(source: TensorSource, name: str, expected: Shape) -> None:
    shape = source.info(name).shape
    if shape != expected:
        raise CheckpointError(f"[convert] {name}: expected shape {expected}, got {shape}")


def _expect_types(source: TensorSource, name: str, types: dict[str, str]) -> None:
    for part, expected in types.items():
        dtype = source.info(f"{name}.{part}").dtype
        if dtype != expected:
            raise UnsupportedError(f"[convert] {name}.{part}: expected {expected}, got {dtype}")
