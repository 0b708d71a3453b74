"""The SigLIP tower and mlp_downsample projector of a shape as an OpenVINO graph in int8, weights and activations.

Every linear has the pattern that OpenVINO's quantizer (NNCF) writes: FakeQuantize of 256 levels before it, int8 weights
with one scale for each row. The plugin turns both into int8 products. Attention, norms and the patch embedding stay in
the plugin's own choice of float (bf16 where the processor has it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

Node = Any
RANGE = np.float32(8)  # of activations: norms leave few values outside


class Tower:
    """Builds the graph; random rows are made once per width and repeated."""

    def __init__(self, shape: dict[str, Any]) -> None:
        self.c = shape["vision"]
        self.out_dim = shape["projector"]["out_dim"]
        self.grid = self.c["image_size"] // self.c["patch_size"]
        self.random = np.random.default_rng(0)

    def model(self) -> ov.Model:
        """Pixels [1, 3, S, S] to rows of the language model [1, T, C]."""
        side = self.c["image_size"]
        pixels = ops.parameter([1, 3, side, side], np.float32, name="pixels")
        x = self._patches(pixels)
        for _ in range(self.c["n_layers"]):
            x = ops.add(x, self._attention(self._norm(x, self.c["dim"])))
            y = ops.gelu(self._int8(self._norm(x, self.c["dim"]), self.c["ffn_dim"], self.c["dim"]), "tanh")
            x = ops.add(x, self._int8(y, self.c["dim"], self.c["ffn_dim"]))
        wide = 4 * self.c["dim"]
        y = ops.gelu(self._int8(self._norm(self._joined(x), wide), self.out_dim, wide), "erf")
        rows = ops.result(self._int8(y, self.out_dim, self.out_dim), name="rows")
        return ov.Model([rows], [pixels], "tower")

    def _patches(self, pixels: Node) -> Node:
        """The patch embedding with positions: [1, P, C]."""
        dim, patch = self.c["dim"], self.c["patch_size"]
        kernel = self._normal(dim, 3 * patch**2).reshape(dim, 3, patch, patch)
        zero = [0, 0]
        plane = ops.convolution(pixels, ops.constant(kernel), [patch, patch], zero, zero, [1, 1])
        flat = ops.transpose(ops.reshape(plane, ops.constant([1, dim, -1]), False), ops.constant([0, 2, 1]))
        return ops.add(flat, ops.constant(self._normal(self.grid**2, dim)[None]))

    def _attention(self, x: Node) -> Node:
        dim = self.c["dim"]
        q, k, v = (self._heads(self._int8(x, dim, dim)) for _ in range(3))
        out = ops.transpose(ops.scaled_dot_product_attention(q, k, v), ops.constant([0, 2, 1, 3]))
        return self._int8(ops.reshape(out, ops.constant([1, -1, dim]), False), dim, dim)

    def _heads(self, x: Node) -> Node:
        n_heads = self.c["n_heads"]
        split = ops.reshape(x, ops.constant([1, -1, n_heads, self.c["dim"] // n_heads]), False)
        return ops.transpose(split, ops.constant([0, 2, 1, 3]))

    def _joined(self, x: Node) -> Node:
        """Every 2 x 2 patches as one row, the grid padded with zeros to an even side: [1, T, 4 C]."""
        dim, odd = self.c["dim"], self.grid % 2
        half = (self.grid + odd) // 2
        plane = ops.reshape(x, ops.constant([1, self.grid, self.grid, dim]), False)
        end = ops.constant([0, odd, odd, 0])
        padded = ops.pad(plane, ops.constant([0, 0, 0, 0]), end, "constant", ops.constant(np.float32(0)))
        blocks = ops.reshape(padded, ops.constant([1, half, 2, half, 2, dim]), False)
        return ops.reshape(
            ops.transpose(blocks, ops.constant([0, 1, 3, 2, 4, 5])), ops.constant([1, half**2, 4 * dim]), False
        )

    def _norm(self, x: Node, dim: int) -> Node:
        centred = ops.mvn(x, ops.constant([-1]), True, float(self.c["norm_eps"]), "inside_sqrt")
        scaled = ops.multiply(centred, ops.constant(np.ones((1, 1, dim), np.float32)))
        return ops.add(scaled, ops.constant(np.zeros((1, 1, dim), np.float32)))

    def _int8(self, x: Node, n: int, k: int) -> Node:
        """Multiplies x [1, T, k], rounded to int8, with an int8 matrix [n, k]; adds a bias."""
        low, high = ops.constant(-RANGE), ops.constant(RANGE * np.float32(127 / 128))
        rounded = ops.fake_quantize(x, low, high, low, high, 256)
        values = np.resize(self.random.integers(-127, 128, (64, k), np.int8), (n, k))
        scales = np.full((n, 1), k**-0.5 / 73, np.float32)
        matrix = ops.multiply(ops.convert(ops.constant(values), np.float32), ops.constant(scales))
        bias = ops.constant(np.zeros((1, 1, n), np.float32))
        return ops.add(ops.matmul(rounded, matrix, transpose_a=False, transpose_b=True), bias)

    def _normal(self, n: int, k: int) -> npt.NDArray[np.float32]:
        return self.random.standard_normal((n, k), np.float32) * np.float32(k**-0.5)
