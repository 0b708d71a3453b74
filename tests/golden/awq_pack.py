"""Round-to-nearest 4-bit quantisation and the two published AWQ layouts, written for clarity, not speed.

Works on numpy arrays only. Both layouts come with their inverse, so that expected outputs are computed from what the
file really holds. AWQ: https://arxiv.org/abs/2306.00978.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GROUP = 128
PACK = 8
ROWS_PER_STRIP = 4
GEMM_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

FloatArray = npt.NDArray[np.float32]


def quantize_rtn(weight: FloatArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Quantises each group of 128 inputs asymmetrically to 0..15.

    Args:
        weight: `[N, K]`, K a multiple of 128.

    Returns:
        Integers `[N, K]`, f16 scales `[N, K/128]`, integer zero points `[N, K/128]`.
    """
    n, k = weight.shape
    groups = weight.reshape(n, k // GROUP, GROUP).astype(np.float64)
    low, high = groups.min(axis=2), groups.max(axis=2)
    scale = (np.maximum(high - low, 1e-5) / 15.0).astype(np.float16)
    zero = np.clip(-np.rint(low / scale.astype(np.float64)), 0, 15)
    q = np.clip(np.rint(groups / scale.astype(np.float64)[:, :, None]) + zero[:, :, None], 0, 15)
    return q.reshape(n, k).astype(np.uint8), scale, zero.astype(np.uint8)


def _v2_nibble_columns() -> npt.NDArray[np.int64]:
    """Returns `[8, 8]`: the input (0..63) in nibble m of word t, as `columns[t, m]`."""
    t, m = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    columns: npt.NDArray[np.int64] = 32 * (t // 4) + 2 * (t % 4) + 8 * (m % 4) + m // 4
    return columns


def pack_llm_awq_v2(
    q: npt.NDArray[np.uint8], scale: npt.NDArray[np.float16], zero: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.int16] | npt.NDArray[np.float16]]:
    """Packs to llm-awq's second layout.

    Args:
        q: integers `[N, K]`, N a multiple of 4, K of 64.
        scale: f16 `[N, G]`.
        zero: integers `[N, G]`.

    Returns:
        `qweight` int16 `[N/4, K]`; `scales` and `scaled_zeros` (minus zero times scale) f16 `[R, N]`, R being the
        number of groups rounded up to a multiple of 8, the padding zero.
    """
    n, k = q.shape
    blocks = q.reshape(n // ROWS_PER_STRIP, ROWS_PER_STRIP, k // 64, 64).transpose(0, 2, 1, 3).astype(np.uint32)
    nibbles = blocks[..., _v2_nibble_columns()]
    words = np.zeros(nibbles.shape[:-1], dtype=np.uint32)
    for m in range(PACK):
        words |= nibbles[..., m] << np.uint32(4 * m)
    padded = -(-scale.shape[1] // PACK) * PACK
    scales = np.zeros((padded, n), dtype=np.float16)
    scaled_zeros = np.zeros((padded, n), dtype=np.float16)
    scales[: scale.shape[1]] = scale.T
    scaled_zeros[: scale.shape[1]] = -(zero.astype(np.float32) * scale.astype(np.float32)).astype(np.float16).T
    qweight = np.ascontiguousarray(words).reshape(n // ROWS_PER_STRIP, -1).view(np.int16)
    return {"qweight": qweight, "scales": scales, "scaled_zeros": scaled_zeros}


def unpack_llm_awq_v2(
    qweight: npt.NDArray[np.int16], scales: npt.NDArray[np.float16], scaled_zeros: npt.NDArray[np.float16]
) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Returns the integers and the f32 weights `q * scale + scaled_zero`, both `[N, K]`; inverse of the packing."""
    strips, k = qweight.shape
    words = np.ascontiguousarray(qweight).view(np.uint32).reshape(strips, k // 64, ROWS_PER_STRIP, 8)
    blocks = np.zeros((strips, k // 64, ROWS_PER_STRIP, 64), dtype=np.uint8)
    columns = _v2_nibble_columns()
    for m in range(PACK):
        blocks[..., columns[:, m]] = ((words >> np.uint32(4 * m)) & np.uint32(15)).astype(np.uint8)
    q = blocks.transpose(0, 2, 1, 3).reshape(strips * ROWS_PER_STRIP, k)
    n_groups = k // GROUP
    scale = np.repeat(scales[:n_groups].T.astype(np.float32), GROUP, axis=1)
    offset = np.repeat(scaled_zeros[:n_groups].T.astype(np.float32), GROUP, axis=1)
    return q, q.astype(np.float32) * scale + offset


def _pack_gemm_words(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Packs `[rows, N]` to int32 `[rows, N/8]` in AutoAWQ's interleaved order."""
    rows, n = values.shape
    octets = values.reshape(rows, n // PACK, PACK).astype(np.uint32)
    words = np.zeros((rows, n // PACK), dtype=np.uint32)
    for nibble, column in enumerate(GEMM_ORDER):
        words |= octets[:, :, column] << np.uint32(4 * nibble)
    return words.view(np.int32)


def _unpack_gemm_words(words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Inverse of `_pack_gemm_words`: int32 `[rows, N/8]` to `[rows, N]`."""
    rows, n_words = words.shape
    octets = np.zeros((rows, n_words, PACK), dtype=np.uint8)
    unsigned = np.ascontiguousarray(words).view(np.uint32)
    for nibble, column in enumerate(GEMM_ORDER):
        octets[:, :, column] = (unsigned >> np.uint32(4 * nibble)) & np.uint32(15)
    return octets.reshape(rows, n_words * PACK)


def pack_autoawq_gemm(
    q: npt.NDArray[np.uint8], scale: npt.NDArray[np.float16], zero: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.int32] | npt.NDArray[np.float16]]:
    """Packs to AutoAWQ's GEMM layout.

    Args:
        q: integers `[N, K]`, N a multiple of 8.
        scale: f16 `[N, G]`.
        zero: integers `[N, G]`.

    Returns:
        `qweight` int32 `[K, N/8]`, `qzeros` int32 `[G, N/8]`, `scales` f16 `[G, N]`.
    """
    return {
        "qweight": _pack_gemm_words(np.ascontiguousarray(q.T)),
        "qzeros": _pack_gemm_words(np.ascontiguousarray(zero.T)),
        "scales": np.ascontiguousarray(scale.T),
    }


def unpack_autoawq_gemm(
    qweight: npt.NDArray[np.int32], qzeros: npt.NDArray[np.int32], scales: npt.NDArray[np.float16]
) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Returns the integers and the f32 weights `(q - zero) * scale`, both `[N, K]`; inverse of the packing."""
    q = _unpack_gemm_words(qweight).T
    zero = np.repeat(_unpack_gemm_words(qzeros).T.astype(np.float32), GROUP, axis=1)
    scale = np.repeat(scales.T.astype(np.float32), GROUP, axis=1)
    return np.ascontiguousarray(q), (q.astype(np.float32) - zero) * scale
