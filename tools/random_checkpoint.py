#!/usr/bin/env python3
"""Writes a checkpoint in the published VILA 1.5 layout with random weights of a true shape.

With it anyone can measure conversion, memory and speed without a download. What such a model says is meaningless.

    python tools/random_checkpoint.py 3b -o /tmp/random-3b            # 6 GB
    python tools/random_checkpoint.py tiny -o /tmp/random-tiny        # for tests

Every tensor depends on the seed and its own name only. Memory stays bounded: a block of rows is drawn at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from random_tokenizer import write_tokenizer
from vila_engine._core import Error, InvalidArgument
from vila_engine.convert.writer import atomic_folder, check_space

BLOCK_ELEMENTS = 4 << 20
ITEM_BYTES = 2  # both types
TOKENIZER_BYTES = 32 << 20  # more than any of the tokenizers takes
Dtype = Literal["bfloat16", "float16"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Llm:
    """A Llama decoder; `tokenizer` names the kind that random_tokenizer.py writes."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    theta: float
    tokenizer: Literal["llama_2", "llama_3", "yi"]


@dataclass(frozen=True)
class Vision:
    """A vision tower; `select_layer` indexes its hidden states."""

    kind: Literal["siglip", "intern_vit"]
    dim: int
    layers: int
    heads: int
    ffn: int
    image: int
    patch: int
    select_layer: int


@dataclass(frozen=True)
class Shape:
    """A model: decoder, tower, and the scales of S2 if it has them. The projector is mlp_downsample."""

    llm: Llm
    vision: Vision
    scales: tuple[int, ...] = ()


SIGLIP = Vision("siglip", 1152, 27, 16, 4304, 384, 14, -2)
INTERN_VIT = Vision("intern_vit", 3200, 45, 25, 12800, 448, 14, -1)
SHEARED_LLAMA = Llm(2560, 32, 20, 20, 6912, 32000, 1e4, "llama_2")
SHAPES = {
    "tiny": Shape(Llm(64, 2, 2, 2, 176, 512, 1e4, "llama_2"), Vision("siglip", 72, 2, 1, 100, 56, 14, -2)),
    "3b": Shape(SHEARED_LLAMA, SIGLIP),
    "3b-s2": Shape(SHEARED_LLAMA, SIGLIP, (384, 768)),
    "8b": Shape(Llm(4096, 32, 32, 8, 14336, 128257, 5e5, "llama_3"), SIGLIP),
    "13b": Shape(Llm(5120, 40, 40, 40, 13824, 32000, 1e4, "llama_2"), SIGLIP),
    "40b": Shape(Llm(7168, 60, 56, 8, 20480, 64000, 5e6, "yi"), INTERN_VIT),
}


@dataclass(frozen=True)
class Drawn:
    """A tensor to be drawn: normal values around `mean`."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * ITEM_BYTES


def _linear(name: str, n: int, k: int, *, bias: bool = True) -> Iterator[Drawn]:
    """A matrix [n, k] that keeps the spread of its input, and its bias."""
    yield Drawn(f"{name}.weight", (n, k), k**-0.5)
    if bias:
        yield Drawn(f"{name}.bias", (n,), 0.02)


def _norm(name: str, n: int, *, bias: bool = True) -> Iterator[Drawn]:
    yield Drawn(f"{name}.weight", (n,), 0.1, 1.0)
    if bias:
        yield Drawn(f"{name}.bias", (n,), 0.02)


def llm_tensors(c: Llm) -> Iterator[Drawn]:
    """The tensors of llm/, in the order of their use."""
    head_dim = c.dim // c.heads
    yield Drawn("model.embed_tokens.weight", (c.vocab, c.dim), 0.02)
    for i in range(c.layers):
        at = f"model.layers.{i}."
        yield from _norm(at + "input_layernorm", c.dim, bias=False)
        for part, n in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            yield from _linear(f"{at}self_attn.{part}_proj", n * head_dim, c.dim, bias=False)
        yield from _linear(at + "self_attn.o_proj", c.dim, c.heads * head_dim, bias=False)
        yield from _norm(at + "post_attention_layernorm", c.dim, bias=False)
        for part in ("gate", "up"):
            yield from _linear(f"{at}mlp.{part}_proj", c.ffn, c.dim, bias=False)
        yield from _linear(at + "mlp.down_proj", c.dim, c.ffn, bias=False)
    yield from _norm("model.norm", c.dim, bias=False)
    yield from _linear("lm_head", c.vocab, c.dim, bias=False)


def vision_tensors(c: Vision) -> Iterator[Drawn]:
    """The tensors of vision_tower/, the unused ones of SigLIP included."""
    yield from (_siglip if c.kind == "siglip" else _intern_vit)(c)


def _siglip(c: Vision) -> Iterator[Drawn]:
    root = "vision_model."
    yield Drawn(root + "embeddings.patch_embedding.weight", (c.dim, 3, c.patch, c.patch), 1 / c.patch)
    yield Drawn(root + "embeddings.patch_embedding.bias", (c.dim,), 0.02)
    yield Drawn(root + "embeddings.position_embedding.weight", ((c.image // c.patch) ** 2, c.dim), 0.02)
    for i in range(c.layers):
        at = f"{root}encoder.layers.{i}."
        yield from _norm(at + "layer_norm1", c.dim)
        for part in ("q", "k", "v", "out"):
            yield from _linear(f"{at}self_attn.{part}_proj", c.dim, c.dim)
        yield from _norm(at + "layer_norm2", c.dim)
        yield from _linear(at + "mlp.fc1", c.ffn, c.dim)
        yield from _linear(at + "mlp.fc2", c.dim, c.ffn)
    yield from _norm(root + "post_layernorm", c.dim)
    yield Drawn(root + "head.probe", (1, 1, c.dim), 0.02)
    yield Drawn(root + "head.attention.in_proj_weight", (3 * c.dim, c.dim), c.dim**-0.5)
    yield Drawn(root + "head.attention.in_proj_bias", (3 * c.dim,), 0.02)
    yield from _linear(root + "head.attention.out_proj", c.dim, c.dim)
    yield from _norm(root + "head.layernorm", c.dim)
    yield from _linear(root + "head.mlp.fc1", c.ffn, c.dim)
    yield from _linear(root + "head.mlp.fc2", c.dim, c.ffn)


def _intern_vit(c: Vision) -> Iterator[Drawn]:
    yield Drawn("embeddings.class_embedding", (1, 1, c.dim), 0.02)
    yield Drawn("embeddings.position_embedding", (1, (c.image // c.patch) ** 2 + 1, c.dim), 0.02)
    yield Drawn("embeddings.patch_embedding.weight", (c.dim, 3, c.patch, c.patch), 1 / c.patch)
    yield Drawn("embeddings.patch_embedding.bias", (c.dim,), 0.02)
    for i in range(c.layers):
        at = f"encoder.layers.{i}."
        yield from _linear(at + "attn.qkv", 3 * c.dim, c.dim, bias=False)
        for part in ("attn.q_norm", "attn.k_norm", "norm1", "norm2"):
            yield from _norm(at + part, c.dim, bias=False)
        yield from _linear(at + "attn.proj", c.dim, c.dim)
        yield from _linear(at + "mlp.fc1", c.ffn, c.dim)
        yield from _linear(at + "mlp.fc2", c.dim, c.ffn)
        for part in ("ls1", "ls2"):
            yield Drawn(at + part, (c.dim,), 0.05, 0.5)


def projector_tensors(shape: Shape) -> Iterator[Drawn]:
    """The tensors of mm_projector/; names carry the position in the published sequence."""
    width = 4 * shape.vision.dim * max(1, len(shape.scales))
    yield from _norm("layers.1", width)
    yield from _linear("layers.2", shape.llm.dim, width)
    yield from _linear("layers.4", shape.llm.dim, shape.llm.dim)


def _llm_config(c: Llm, ids: dict[str, int]) -> Json:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "hidden_act": "silu",
        "hidden_size": c.dim,
        "intermediate_size": c.ffn,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "pad_token_id": ids["pad"],
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": c.theta,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right",
        "vocab_size": c.vocab,
    }


def _vision_config(c: Vision) -> Json:
    config: Json = {
        "hidden_size": c.dim,
        "image_size": c.image,
        "intermediate_size": c.ffn,
        "layer_norm_eps": 1e-06,
        "num_attention_heads": c.heads,
        "num_channels": 3,
        "num_hidden_layers": c.layers,
        "patch_size": c.patch,
    }
    if c.kind == "siglip":
        names = {"architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model"}
        return {**names, "hidden_act": "gelu_pytorch_tanh", **config}
    names = {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b"}
    return {
        **names,
        "hidden_act": "gelu",
        "norm_type": "rms_norm",
        "qk_normalization": True,
        "qkv_bias": False,
        **config,
    }


def _preprocessor_config(shape: Shape) -> Json:
    if shape.vision.kind == "intern_vit":
        return {"image_processor_type": "InternVisionPreprocessor"}
    side = max(shape.vision.image, *shape.scales, 0)
    return {
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": side, "width": side},
    }


def write_configs(folder: Path, shape: Shape, ids: dict[str, int], dtype: Dtype) -> None:
    """Writes the JSON files that published folders carry.

    Args:
        folder: The checkpoint; its sub-folders exist.
        shape: The model.
        ids: Of the tokenizer: "bos", "eos", "pad".
        dtype: Type of the weights.
    """
    projector = {"architectures": ["MultimodalProjector"], "mm_projector_type": "mlp_downsample"}
    parts: dict[str, Json] = {
        "llm": _llm_config(shape.llm, ids),
        "vision_tower": _vision_config(shape.vision),
        "mm_projector": {**projector, "model_type": "v2l_projector"},
    }
    top: Json = {
        "architectures": ["LlavaLlamaModel"],
        "hidden_size": shape.llm.dim,
        "image_aspect_ratio": "resize",
        **{f"{name}_cfg": config for name, config in parts.items()},
        "mm_hidden_size": shape.vision.dim * max(1, len(shape.scales)),
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch" if shape.vision.kind == "intern_vit" else "cls_patch",
        "mm_vision_select_layer": shape.vision.select_layer,
        "model_dtype": f"torch.{dtype}",
        "model_type": "llava_llama",
        "num_video_frames": 8,
        "s2": bool(shape.scales),
        "s2_max_split_size": shape.scales[0] if shape.scales else 336,
        "s2_scales": ",".join(map(str, shape.scales)) or "336,672,1008",
    }
    generation = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]}
    files = {f"{name}/config.json": config for name, config in parts.items()} | {"config.json": top}
    files["llm/generation_config.json"] = generation
    files["vision_tower/preprocessor_config.json"] = _preprocessor_config(shape)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _to_stored(values: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[Any]:
    """Rounds to the stored type; bfloat16 as its bits, rounded to nearest even."""
    if dtype == "float16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits >> np.uint32(16)).astype(np.uint16)


def _draw(tensor: Drawn, seed: int, dtype: Dtype) -> Iterator[npt.NDArray[Any]]:
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.name.encode())]))
    left = math.prod(tensor.shape)
    while left:
        values = generator.standard_normal(min(left, BLOCK_ELEMENTS), np.float32)
        values *= np.float32(tensor.std)
        values += np.float32(tensor.mean)
        left -= values.size
        yield _to_stored(values, dtype)


def _write_file(path: Path, tensors: list[Drawn], seed: int, dtype: Dtype, done: Callable[[int], None]) -> None:
    header: Json = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        kind = {"bfloat16": "BF16", "float16": "F16"}[dtype]
        header[tensor.name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [at, at + tensor.n_bytes]}
        at += tensor.n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for block in _draw(tensor, seed, dtype):
                file.write(block.data)
                done(block.nbytes)


def _shards(tensors: list[Drawn], limit: int) -> list[list[Drawn]]:
    """Cuts the list where a file would become larger than `limit` bytes."""
    shards: list[list[Drawn]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.n_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.n_bytes
    return shards


def _write_weights(
    folder: Path, shards: list[list[Drawn]], seed: int, dtype: Dtype, done: Callable[[int], None]
) -> None:
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", shards[0], seed, dtype, done)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    index = {
        "metadata": {"total_size": sum(tensor.n_bytes for shard in shards for tensor in shard)},
        "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, seed, dtype, done)


def write_checkpoint(
    destination: Path,
    shape: Shape,
    *,
    seed: int = 0,
    dtype: Dtype = "bfloat16",
    shard_bytes: int = 5_000_000_000,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes the whole folder; it appears under its name only when it is complete.

    Args:
        destination: The new folder.
        shape: The model.
        seed: Of all weights.
        dtype: Type of the weights.
        shard_bytes: Largest weight file of the language model.
        progress: Called with the bytes of each block.

    Returns:
        Bytes of all weights.

    Raises:
        InvalidArgument: the destination exists.
        IoError: the disk is too small.
    """
    if destination.exists():
        raise InvalidArgument(f"[random] {destination}: expected a new folder, got an existing one")
    parts = {
        "vision_tower": [list(vision_tensors(shape.vision))],
        "mm_projector": [list(projector_tensors(shape))],
        "llm": _shards(list(llm_tensors(shape.llm)), shard_bytes),
    }
    total = sum(tensor.n_bytes for shards in parts.values() for shard in shards for tensor in shard)
    check_space(destination, total + TOKENIZER_BYTES)
    with atomic_folder(destination, replace=False) as scratch:
        for name in parts:
            (scratch / name).mkdir()
        ids = write_tokenizer(scratch / "llm", shape.llm.tokenizer, shape.llm.vocab)
        write_configs(scratch, shape, ids, dtype)
        for name, shards in parts.items():
            _write_weights(scratch / name, shards, seed, dtype, progress or (lambda _: None))
    return total


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--layers", type=int, help="fewer decoder layers than the shape has")
    parser.add_argument("--shard-gb", type=float, default=5.0, help="largest file of the language model in 1e9 bytes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
    shape = SHAPES[args.shape]
    if args.layers is not None:
        if args.layers < 1:
            parser.error(f"--layers: expected at least 1, got {args.layers}")
        shape = replace(shape, llm=replace(shape.llm, layers=args.layers))
    from tqdm import tqdm

    try:
        with tqdm(unit="B", unit_scale=True, desc="writing", disable=args.quiet or None) as bar:
            total = write_checkpoint(
                args.output,
                shape,
                seed=args.seed,
                dtype=args.dtype,
                shard_bytes=round(args.shard_gb * 1e9),
                progress=bar.update,
            )
    except Error as error:
        print(f"random_checkpoint: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {total / 1e6:,.1f} MB of weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
