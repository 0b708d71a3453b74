"""The language model of a golden checkpoint in numpy and double precision: slow, obvious, nothing of the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from support import GOLDEN
from test_golden_fixtures import read_safetensors

Array = npt.NDArray[np.float64]


class NumpyLlama:
    """LLaMA (RMSNorm, rotary positions, causal attention, SwiGLU) with the published tensor names."""

    def __init__(self, variant: str) -> None:
        folder = GOLDEN / variant / "checkpoint" / "llm"
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.tensors: dict[str, Array] = {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            self.tensors |= {name: array.astype(np.float64) for name, array in read_safetensors(path).items()}

    def logits(self, ids: Sequence[Sequence[int]]) -> Array:
        """Logits of the last position of equally long id sequences: [B, T] -> [B, V]."""
        t = self.tensors
        x = t["model.embed_tokens.weight"][np.asarray(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            x = x + self._attention(self._norm(x, at + "input_layernorm"), at + "self_attn.")
            h = self._norm(x, at + "post_attention_layernorm")
            gate = h @ t[at + "mlp.gate_proj.weight"].T
            x = (
                x
                + (gate / (1 + np.exp(-gate)) * (h @ t[at + "mlp.up_proj.weight"].T)) @ t[at + "mlp.down_proj.weight"].T
            )
        result: Array = self._norm(x[:, -1], "model.norm") @ t["lm_head.weight"].T
        return result

    def logprobs(self, ids: Sequence[Sequence[int]]) -> Array:
        """Log probabilities of the next token, [B, V]."""
        return log_softmax(self.logits(ids))

    def _norm(self, x: Array, name: str) -> Array:
        scale: Array = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / scale * self.tensors[name + ".weight"]

    def _attention(self, x: Array, at: str) -> Array:
        batch, length, width = x.shape
        heads = self.config["num_attention_heads"]
        q, k, v = (
            (x @ self.tensors[f"{at}{name}_proj.weight"].T).reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
            for name in "qkv"
        )
        scores = self._rotate(q) @ self._rotate(k).transpose(0, 1, 3, 2) / np.sqrt(width / heads)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        result: Array = mixed.transpose(0, 2, 1, 3).reshape(batch, length, width) @ self.tensors[at + "o_proj.weight"].T
        return result

    def _rotate(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        rates = self.config["rope_theta"] ** (-np.arange(half) / half)
        angles = np.arange(x.shape[2])[:, None] * rates
        cos, sin = np.cos(angles), np.sin(angles)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def log_softmax(x: Array) -> Array:
    """Over the last axis."""
    x = x - x.max(-1, keepdims=True)
    result: Array = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return result
