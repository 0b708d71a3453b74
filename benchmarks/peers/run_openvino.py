"""OpenVINO: a Llama of a shape as a graph with int4 weights in groups of 128, an int8 head, and a state for the cache.

The graph has the patterns that OpenVINO's own exporters write (compressed weights, rotary embedding, a state that is
gathered, grown and fed to scaled-dot-product attention), so that the CPU plugin fuses them. The picture encoder is in
openvino_tower.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import serve
from openvino import opset13 as ops
from openvino.op.util import Variable, VariableInfo
from openvino_tower import Tower

GROUP = 128
Node = Any


class OpenVino:
    """A compiled graph. Tokens are given, not chosen: no time of sampling is counted."""

    def __init__(self, folder: Path, threads: int) -> None:
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        core = ov.Core()
        self.threads = threads
        self.capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.request = core.compile_model(folder / "llm.xml", "CPU", settings).create_infer_request()
        self.tower = core.compile_model(folder / "tower.xml", "CPU", settings).create_infer_request()
        self.random = np.random.default_rng(0)
        self.past = 0

    def hello(self) -> dict[str, Any]:
        """See serve.Program."""
        return {"version": ov.__version__, "isa": " ".join(self.capabilities), "threads": self.threads, "model": {}}

    def prefill(self, tokens: int) -> float:
        """See serve.Program."""
        self.request.reset_state()
        self.past = 0
        return self._run(tokens)

    def decode(self, context: int, tokens: int) -> float:
        """See serve.Program."""
        self.prefill(context)
        return sum(self._run(1) for _ in range(tokens))

    def vision(self) -> float:
        """See serve.Program: from normalised pixels."""
        shape = tuple(self.tower.get_input_tensor().shape)
        pixels = 2 * self.random.random(shape, np.float32) - 1
        started = time.perf_counter()
        rows = self.tower.infer([pixels])[0]
        seconds = time.perf_counter() - started
        if not np.isfinite(rows).all():
            raise SystemExit("OpenVINO: expected finite rows of a picture")
        return seconds

    def _run(self, tokens: int) -> float:
        """Seconds for some tokens in one inference, with the logits of the last one."""
        positions = np.arange(self.past, self.past + tokens)[None]
        inputs = {
            "input_ids": 3 + positions % 97,
            "position_ids": positions,
            "beam_idx": np.zeros(1, np.int32),
        }
        started = time.perf_counter()
        logits = self.request.infer(inputs)[0]
        seconds = time.perf_counter() - started
        if logits.shape[:2] != (1, 1) or not np.isfinite(logits).all():
            raise SystemExit(f"OpenVINO: expected finite logits of one row, got {logits.shape}")
        self.past += tokens
        return seconds


class _Graph:
    """Builds the graph; random rows are made once per width and repeated."""

    def __init__(self, shape: dict[str, Any]) -> None:
        self.c = shape
        self.random = np.random.default_rng(0)
        self.sinks: list[Node] = []
        self.ids = ops.parameter([1, -1], np.int64, name="input_ids")
        self.positions = ops.parameter([1, -1], np.int64, name="position_ids")
        self.beams = ops.parameter([1], np.int32, name="beam_idx")
        self.mask, self.cos, self.sin = self._mask(), *self._angles()

    def model(self) -> ov.Model:
        """The whole model: logits [1, 1, V] of the last token."""
        c = self.c
        table = self._small(c["vocab_size"], c["dim"])
        x = ops.convert(ops.gather(ops.constant(table), self.ids, ops.constant(0)), np.float32)
        for i in range(c["n_layers"]):
            x = ops.add(x, self._attention(i, self._norm(x)))
            y = self._norm(x)
            gate = ops.swish(self._int4(y, c["ffn_dim"], c["dim"]))
            x = ops.add(
                x, self._int4(ops.multiply(gate, self._int4(y, c["ffn_dim"], c["dim"])), c["dim"], c["ffn_dim"])
            )
        last = ops.gather(self._norm(x), ops.constant([-1]), ops.constant(1))
        logits = ops.result(self._int8(last, c["vocab_size"], c["dim"]), name="logits")
        return ov.Model([logits], self.sinks, [self.ids, self.positions, self.beams], "llama")

    def _mask(self) -> Node:
        """0 where a query sees a position, -65504 elsewhere: [1, 1, T, S]."""
        queries = ops.unsqueeze(self.positions, ops.constant([1, 3]))  # [1, 1, T, 1]
        last = ops.reduce_max(self.positions, ops.constant([0, 1]))
        seen = ops.range(
            ops.constant(0, np.int64), ops.add(last, ops.constant(1, np.int64)), ops.constant(1, np.int64), "i64"
        )
        visible = ops.less_equal(ops.unsqueeze(seen, ops.constant([0, 1, 2])), queries)
        return ops.select(visible, ops.constant(np.float32(0)), ops.constant(np.float32(-65504)))

    def _angles(self) -> tuple[Node, Node]:
        """Both [1, 1, T, D]."""
        d = self.c["head_dim"]
        frequency = (self.c["rope_theta"] ** (-np.arange(0, d, 2, dtype=np.float32) / d)).astype(np.float32)
        columns = ops.convert(ops.unsqueeze(self.positions, ops.constant([2])), np.float32)
        half = ops.multiply(columns, ops.constant(frequency[None, None]))
        angles = ops.unsqueeze(ops.concat([half, half], 2), ops.constant([1]))
        return ops.cos(angles), ops.sin(angles)

    def _norm(self, x: Node) -> Node:
        mean = ops.reduce_mean(ops.power(x, ops.constant(np.float32(2))), ops.constant([-1]), keep_dims=True)
        root = ops.sqrt(ops.add(mean, ops.constant(np.float32(self.c["norm_eps"]))))
        scaled = ops.multiply(x, ops.divide(ops.constant(np.float32(1)), root))
        return ops.multiply(ops.constant(np.ones((1, 1, self.c["dim"]), np.float32)), scaled)

    def _heads(self, x: Node, n_heads: int) -> Node:
        split = ops.reshape(x, ops.constant([0, 0, n_heads, self.c["head_dim"]]), special_zero=True)
        return ops.transpose(split, ops.constant([0, 2, 1, 3]))

    def _rotate(self, x: Node) -> Node:
        half = self.c["head_dim"] // 2
        axis, step = ops.constant([3]), ops.constant([1])
        left = ops.slice(x, ops.constant([0]), ops.constant([half]), step, axis)
        right = ops.slice(x, ops.constant([half]), ops.constant([np.iinfo(np.int64).max]), step, axis)
        turned = ops.concat([ops.multiply(right, ops.constant(np.float32(-1))), left], -1)
        return ops.add(ops.multiply(x, self.cos), ops.multiply(turned, self.sin))

    def _cached(self, name: str, x: Node) -> Node:
        """Grows a state by x [1, H, T, D] and returns all of it, repeated for grouped heads."""
        c = self.c
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, c["n_kv_heads"], -1, c["head_dim"]])
        info.data_type, info.variable_id = ov.Type.f32, name
        variable = Variable(info)
        start = ops.constant(np.zeros((1, c["n_kv_heads"], 0, c["head_dim"]), np.float32))
        state = ops.gather(ops.read_value(start, variable), self.beams, ops.constant(0))
        grown = ops.concat([state, x], 2)
        self.sinks.append(ops.assign(grown, variable))
        repeats = c["n_heads"] // c["n_kv_heads"]
        if repeats == 1:
            return grown
        many = ops.broadcast(
            ops.unsqueeze(grown, ops.constant([2])), ops.constant([1, 1, repeats, 1, 1]), broadcast_spec="BIDIRECTIONAL"
        )
        return ops.reshape(many, ops.constant([0, c["n_heads"], -1, c["head_dim"]]), special_zero=True)

    def _attention(self, i: int, x: Node) -> Node:
        c = self.c
        q_dim, kv_dim = c["n_heads"] * c["head_dim"], c["n_kv_heads"] * c["head_dim"]
        q = self._rotate(self._heads(self._int4(x, q_dim, c["dim"]), c["n_heads"]))
        k = self._cached(f"key.{i}", self._rotate(self._heads(self._int4(x, kv_dim, c["dim"]), c["n_kv_heads"])))
        v = self._cached(f"value.{i}", self._heads(self._int4(x, kv_dim, c["dim"]), c["n_kv_heads"]))
        out = ops.scaled_dot_product_attention(q, k, v, self.mask)
        rows = ops.reshape(
            ops.transpose(out, ops.constant([0, 2, 1, 3])), ops.constant([0, 0, q_dim]), special_zero=True
        )
        return self._int4(rows, c["dim"], q_dim)

    def _small(self, n: int, k: int) -> npt.NDArray[np.float16]:
        block = self.random.standard_normal((256, k), np.float32).astype(np.float16)
        return np.resize(block, (n, k))

    def _int4(self, x: Node, n: int, k: int) -> Node:
        """Multiplies x [1, T, k] with an int4 matrix [n, k], symmetric, one scale for each 128 columns."""
        values = self.random.integers(0, 256, n * k // 2, np.uint8)
        weights = ov.Tensor(values, ov.Shape([n, k // GROUP, GROUP]), ov.Type.i4)
        scales = np.full((n, k // GROUP, 1), k**-0.5 / 4.6, np.float16)
        factors = ops.multiply(
            ops.convert(ops.constant(weights, shared_memory=False), np.float16), ops.constant(scales)
        )
        matrix = ops.convert(ops.reshape(factors, ops.constant([n, k]), special_zero=False), np.float32)
        return ops.matmul(x, matrix, transpose_a=False, transpose_b=True)

    def _int8(self, x: Node, n: int, k: int) -> Node:
        """Multiplies x [1, T, k] with an int8 matrix [n, k] with one scale for each row."""
        values = self.random.integers(-127, 128, (n, k), np.int8)
        scales = np.full((n, 1), k**-0.5 / 73, np.float16)
        factors = ops.multiply(ops.convert(ops.constant(values), np.float16), ops.constant(scales))
        return ops.matmul(x, ops.convert(factors, np.float32), transpose_a=False, transpose_b=True)


def make(shape: dict[str, Any], folder: Path) -> None:
    """Writes both graphs."""
    llm = shape["llm"]
    unfit = {name: llm[name] for name in ("dim", "ffn_dim") if llm[name] % GROUP}
    if unfit:
        raise SystemExit(f"OpenVINO: expected multiples of {GROUP}, got {unfit}")
    ov.save_model(_Graph(llm).model(), folder / "llm.xml", compress_to_fp16=False)
    ov.save_model(Tower(shape).model(), folder / "tower.xml", compress_to_fp16=False)


if __name__ == "__main__":
    serve.main(make, OpenVino)
