"""Random weights under the published names: every tensor depends on the seed and its own name only."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from variants import Llm, Variant, Vision

Tensors = dict[str, torch.Tensor]


class Sampler:
    """Draws named tensors."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        """Stores the seed and the dtype in which tensors are kept."""
        self.seed = seed
        self.dtype = dtype

    def normal(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> torch.Tensor:
        """Normal values, rounded to the stored dtype."""
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return torch.from_numpy(mean + std * generator.standard_normal(shape)).to(self.dtype)

    def linear(self, name: str, n: int, k: int, gain: float = 1.0, bias: bool = True) -> Tensors:
        """A matrix `[n, k]` whose outputs have about `gain` times the inputs' spread, and its bias."""
        tensors = {f"{name}.weight": self.normal(f"{name}.weight", (n, k), gain / k**0.5)}
        if bias:
            tensors[f"{name}.bias"] = self.normal(f"{name}.bias", (n,), 0.1)
        return tensors

    def norm(self, name: str, n: int, bias: bool = True) -> Tensors:
        """Norm weights around 1 and biases around 0."""
        tensors = {f"{name}.weight": self.normal(f"{name}.weight", (n,), 0.2, 1.0)}
        if bias:
            tensors[f"{name}.bias"] = self.normal(f"{name}.bias", (n,), 0.2)
        return tensors


def siglip(draw: Sampler, v: Vision) -> Tensors:
    """A SigLIP tower; its unused pooling head only where the variant asks for it."""
    root = "vision_model."
    n_positions = (v.image // v.patch) ** 2
    patch = root + "embeddings.patch_embedding"
    position = root + "embeddings.position_embedding.weight"
    tensors = {
        f"{patch}.weight": draw.normal(f"{patch}.weight", (v.hidden, 3, v.patch, v.patch), 1.0 / v.patch),
        f"{patch}.bias": draw.normal(f"{patch}.bias", (v.hidden,), 0.1),
        position: draw.normal(position, (n_positions, v.hidden), 0.5),
    }
    for index in range(v.layers):
        layer = f"{root}encoder.layers.{index}."
        for part in ("q", "k", "v", "out"):
            tensors |= draw.linear(f"{layer}self_attn.{part}_proj", v.hidden, v.hidden, 1.5)
        tensors |= draw.linear(layer + "mlp.fc1", v.inter, v.hidden, 1.5)
        tensors |= draw.linear(layer + "mlp.fc2", v.hidden, v.inter, 1.5)
        tensors |= draw.norm(layer + "layer_norm1", v.hidden) | draw.norm(layer + "layer_norm2", v.hidden)
    tensors |= draw.norm(root + "post_layernorm", v.hidden)
    return tensors | (_siglip_head(draw, v) if v.with_head else {})


def _siglip_head(draw: Sampler, v: Vision) -> Tensors:
    head = "vision_model.head."
    tensors = {
        name: draw.normal(name, shape, 0.1)
        for name, shape in (
            (head + "probe", (1, 1, v.hidden)),
            (head + "attention.in_proj_weight", (3 * v.hidden, v.hidden)),
            (head + "attention.in_proj_bias", (3 * v.hidden,)),
        )
    }
    tensors |= draw.linear(head + "attention.out_proj", v.hidden, v.hidden) | draw.norm(head + "layernorm", v.hidden)
    return tensors | draw.linear(head + "mlp.fc1", v.inter, v.hidden) | draw.linear(head + "mlp.fc2", v.hidden, v.inter)


def intern_vit(draw: Sampler, v: Vision) -> Tensors:
    """An InternViT tower: fused qkv without bias, norms of q and k, class token, layer scale."""
    n_positions = (v.image // v.patch) ** 2 + 1
    patch = "embeddings.patch_embedding"
    tensors = {
        "embeddings.class_embedding": draw.normal("embeddings.class_embedding", (1, 1, v.hidden), 0.5),
        "embeddings.position_embedding": draw.normal("embeddings.position_embedding", (1, n_positions, v.hidden), 0.5),
        f"{patch}.weight": draw.normal(f"{patch}.weight", (v.hidden, 3, v.patch, v.patch), 1.0 / v.patch),
        f"{patch}.bias": draw.normal(f"{patch}.bias", (v.hidden,), 0.1),
    }
    for index in range(v.layers):
        layer = f"encoder.layers.{index}."
        tensors |= draw.linear(layer + "attn.qkv", 3 * v.hidden, v.hidden, 1.5, bias=False)
        tensors |= draw.linear(layer + "attn.proj", v.hidden, v.hidden, 1.5)
        for part in ("attn.q_norm", "attn.k_norm", "norm1", "norm2"):
            tensors |= draw.norm(layer + part, v.hidden, bias=False)
        tensors |= draw.linear(layer + "mlp.fc1", v.inter, v.hidden, 1.5)
        tensors |= draw.linear(layer + "mlp.fc2", v.hidden, v.inter, 1.5)
        for part in ("ls1", "ls2"):
            tensors[layer + part] = draw.normal(layer + part, (v.hidden,), 0.2, 0.6)
    return tensors


def projector(draw: Sampler, variant: Variant) -> Tensors:
    """A projector of one of the three kinds; names carry the position in the published sequence."""
    width = variant.vision.hidden * max(1, len(variant.s2_scales))
    out = variant.llm.hidden
    if variant.projector == "linear":
        return draw.linear("layers", out, width)
    if variant.projector == "mlp2x_gelu":
        return draw.linear("layers.0", out, width, 1.5) | draw.linear("layers.2", out, out, 1.5)
    tensors = draw.norm("layers.1", 4 * width) | draw.linear("layers.2", out, 4 * width, 1.5)
    return tensors | draw.linear("layers.4", out, out, 1.5)


def llama(draw: Sampler, c: Llm, vocab: int) -> Tensors:
    """A Llama decoder whose sublayers weigh about as much as the embeddings, so that all of it shows in the logits."""
    head_dim = c.hidden // c.heads
    tensors = {"model.embed_tokens.weight": draw.normal("model.embed_tokens.weight", (vocab, c.hidden), 0.7)}
    for index in range(c.layers):
        layer = f"model.layers.{index}."
        attention = layer + "self_attn."
        for part, n in (("q", c.heads * head_dim), ("k", c.kv * head_dim), ("v", c.kv * head_dim)):
            tensors |= draw.linear(f"{attention}{part}_proj", n, c.hidden, 1.5, bias=c.attention_bias)
        tensors |= draw.linear(attention + "o_proj", c.hidden, c.hidden, 2.0, bias=c.attention_bias)
        tensors |= draw.linear(layer + "mlp.gate_proj", c.inter, c.hidden, 1.5, bias=False)
        tensors |= draw.linear(layer + "mlp.up_proj", c.inter, c.hidden, 1.5, bias=False)
        tensors |= draw.linear(layer + "mlp.down_proj", c.hidden, c.inter, 2.0, bias=False)
        tensors |= draw.norm(layer + "input_layernorm", c.hidden, bias=False)
        tensors |= draw.norm(layer + "post_attention_layernorm", c.hidden, bias=False)
    tensors |= draw.norm("model.norm", c.hidden, bias=False)
    return tensors | draw.linear("lm_head", vocab, c.hidden, 1.1, bias=False)
