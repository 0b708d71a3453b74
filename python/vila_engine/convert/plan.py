"""Which tensors a model folder consists of, where each comes from, and in which weight format it is written.

A plan is made and checked completely before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vila_engine.convert.folders import SourceModel

Part = Literal["llm", "vision", "projector"]
Role = Literal["block", "head", "vision", "vision_edge"]

TILE_ROWS = 16


@dataclass(frozen=True)
class Formats:
    """Weight formats by role, and the type of the embedding table.

    The vision edge is the patch embedding, the tower's first block and the projector. Everything a picture says passes
    them, so their rounding errors weigh most; they stay f16 in an integer tower (figures in docs/PARITY.md).
    """

    block: str
    head: str
    vision: str
    vision_edge: str
    embedding: np.dtype[Any]

    def of(self, role: Role) -> str:
        """The format of matrices with this role."""
        return {
            "block": self.block,
            "head": self.head,
            "vision": self.vision,
            "vision_edge": self.vision_edge,
        }[role]


@dataclass(frozen=True)
class Entry:
    """One published tensor and what becomes of it.

    `kind` is "vector" (written as f32 of `shape`), "table" (row-major, the embedding) or "matrix" (packed [N, K]).
    `source` is the name in the part's own file; `published` the shape there.
    """

    kind: Literal["vector", "table", "matrix"]
    part: Part
    source: str
    name: str
    published: tuple[int, ...]
    shape: tuple[int, ...]
    role: Role = "block"


def plan_entries(model: SourceModel) -> list[Entry]:
    """All tensors that the engine needs, in the order of their use."""
    return [*_vision(model), *_projector(model), *_llm(model)]


def ignored(model: SourceModel, part: Part, name: str) -> bool:
    """Whether a published tensor is known not to be needed: unused heads, blocks behind the selected state, buffers."""
    if part == "llm":
        return name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and model.tie_word_embeddings)
    if part == "vision":
        bare = name.removeprefix("vision_model.")
        if bare.startswith(("post_layernorm.", "head.")) or bare == "embeddings.position_ids":
            return True
        words = bare.split(".")
        if words[:2] == ["encoder", "layers"] and len(words) > 2 and words[2].isdigit():
            return int(words[2]) in range(model.vision["n_layers"], model.vision_layers_in_file)
    return False


def _vector(
    part: Part, source: str, name: str, published: tuple[int, ...], shape: tuple[int, ...] | None = None
) -> Entry:
    return Entry("vector", part, source, name, published, shape or published)


def _matrix(
    part: Part, source: str, name: str, n: int, k: int, *, role: Role, published: tuple[int, ...] | None = None
) -> Entry:
    return Entry("matrix", part, source + ".weight", name, published or (n, k), (n, k), role)


def _llm(model: SourceModel) -> Iterator[Entry]:
    c = model.llm
    dim, vocab = c["dim"], c["vocab_size"]
    yield Entry(
        "table", "llm", "model.embed_tokens.weight", "llm.model.embed_tokens.weight", (vocab, dim), (vocab, dim)
    )
    q_dim, kv_dim = c["n_heads"] * c["head_dim"], c["n_kv_heads"] * c["head_dim"]
    linears = (
        ("self_attn.q_proj", q_dim, dim, c["attention_bias"]),
        ("self_attn.k_proj", kv_dim, dim, c["attention_bias"]),
        ("self_attn.v_proj", kv_dim, dim, c["attention_bias"]),
        ("self_attn.o_proj", dim, q_dim, c["attention_bias"]),
        ("mlp.gate_proj", c["ffn_dim"], dim, c["mlp_bias"]),
        ("mlp.up_proj", c["ffn_dim"], dim, c["mlp_bias"]),
        ("mlp.down_proj", dim, c["ffn_dim"], c["mlp_bias"]),
    )
    for i in range(c["n_layers"]):
        at = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield _vector("llm", f"{at}{norm}.weight", f"llm.{at}{norm}.weight", (dim,))
        for name, n, k, bias in linears:
            yield _matrix("llm", at + name, f"llm.{at}{name}", n, k, role="block")
            if bias:
                yield _vector("llm", f"{at}{name}.bias", f"llm.{at}{name}.bias", (n,))
    yield _vector("llm", "model.norm.weight", "llm.model.norm.weight", (dim,))
    head = "model.embed_tokens" if model.tie_word_embeddings else "lm_head"
    yield _matrix("llm", head, "llm.lm_head", vocab, dim, role="head")


def _vision(model: SourceModel) -> Iterator[Entry]:
    yield from (_siglip if model.vision["kind"] == "siglip" else _intern_vit)(model)


def _siglip(model: SourceModel) -> Iterator[Entry]:
    c, source, to = model.vision, "vision_model.", "vision."
    dim, ffn, patch = c["dim"], c["ffn_dim"], c["patch_size"]
    n_patches = (c["image_size"] // patch) ** 2
    at = "embeddings.patch_embedding"
    yield _matrix(
        "vision", source + at, to + at, dim, 3 * patch**2, role="vision_edge", published=(dim, 3, patch, patch)
    )
    yield _vector("vision", f"{source}{at}.bias", f"{to}{at}.bias", (dim,))
    at = "embeddings.position_embedding.weight"
    yield _vector("vision", source + at, to + at, (n_patches, dim))
    for i in range(c["n_layers"]):
        block = f"encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            for kind in ("weight", "bias"):
                yield _vector("vision", f"{source}{block}{norm}.{kind}", f"{to}{block}{norm}.{kind}", (dim,))
        linears = [(f"self_attn.{x}_proj", dim, dim) for x in ("q", "k", "v", "out")]
        for name, n, k in (*linears, ("mlp.fc1", ffn, dim), ("mlp.fc2", dim, ffn)):
            yield _matrix(
                "vision", source + block + name, to + block + name, n, k, role="vision" if i else "vision_edge"
            )
            yield _vector("vision", f"{source}{block}{name}.bias", f"{to}{block}{name}.bias", (n,))


def _intern_vit(model: SourceModel) -> Iterator[Entry]:
    c, to = model.vision, "vision."
    dim, ffn, patch = c["dim"], c["ffn_dim"], c["patch_size"]
    n_positions = (c["image_size"] // patch) ** 2 + 1
    yield _vector("vision", "embeddings.class_embedding", to + "embeddings.class_embedding", (1, 1, dim), (dim,))
    at = "embeddings.position_embedding"
    yield _vector("vision", at, to + at, (1, n_positions, dim), (n_positions, dim))
    at = "embeddings.patch_embedding"
    yield _matrix("vision", at, to + at, dim, 3 * patch**2, role="vision_edge", published=(dim, 3, patch, patch))
    yield _vector("vision", at + ".bias", f"{to}{at}.bias", (dim,))
    norms = ["norm1.weight", "norm2.weight", "ls1", "ls2"]
    if c["qk_norm"]:
        norms += ["attn.q_norm.weight", "attn.k_norm.weight"]
    for i in range(c["n_layers"]):
        block = f"encoder.layers.{i}."
        for name in norms:
            yield _vector("vision", block + name, to + block + name, (dim,))
        linears = (
            ("attn.qkv", 3 * dim, dim, model.vision_qkv_bias),
            ("attn.proj", dim, dim, True),
            ("mlp.fc1", ffn, dim, True),
            ("mlp.fc2", dim, ffn, True),
        )
        for name, n, k, bias in linears:
            yield _matrix("vision", block + name, to + block + name, n, k, role="vision" if i else "vision_edge")
            if bias:
                yield _vector("vision", f"{block}{name}.bias", f"{to}{block}{name}.bias", (n,))


def _projector(model: SourceModel) -> Iterator[Entry]:
    c, to = model.projector, "projector."
    n_in, n_out = c["in_dim"], c["out_dim"]
    if c["kind"] == "identity":
        return
    if c["kind"] == "linear":
        linears = [("layers", n_out, n_in)]
    elif c["kind"] == "mlp_gelu":
        linears = [(f"layers.{2 * i}", n_out, n_out if i else n_in) for i in range(c["depth"])]
    else:
        for kind in ("weight", "bias"):
            yield _vector("projector", f"layers.1.{kind}", f"{to}layers.1.{kind}", (4 * n_in,))
        linears = [("layers.2", n_out, 4 * n_in), ("layers.4", n_out, n_out)]
    for name, n, k in linears:
        yield _matrix("projector", name, to + name, n, k, role="vision_edge")
        yield _vector("projector", name + ".bias", f"{to}{name}.bias", (n,))


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
