"""Shapes of published models, as the sections of a model folder's config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vila_engine._core import InvalidArgument
from vila_engine.convert.folders import SourceModel

Config = dict[str, Any]


@dataclass(frozen=True)
class Llm:
    """A Llama decoder."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    theta: float = 1e4


@dataclass(frozen=True)
class Tower:
    """A SigLIP tower; `layers` counts the blocks that the selected hidden state needs."""

    dim: int
    layers: int
    heads: int
    ffn: int
    image: int
    patch: int = 14


@dataclass(frozen=True)
class Preset:
    """A decoder, a tower with the mlp_downsample projector, and the scales of S2 where the model has them."""

    llm: Llm
    tower: Tower
    scales: tuple[int, ...] = ()


SHEARED_LLAMA = Llm(2560, 32, 20, 20, 6912, 32000)
SO400M = Tower(1152, 26, 16, 4304, 384)  # VILA reads the state before the last of 27 blocks
PRESETS = {
    "3b": Preset(SHEARED_LLAMA, SO400M),
    "8b": Preset(Llm(4096, 32, 32, 8, 14336, 128257, 5e5), SO400M),
    "3b-s2": Preset(SHEARED_LLAMA, SO400M, (384, 768)),
    "13b": Preset(Llm(5120, 40, 40, 40, 13824, 32000), SO400M),
    "tiny": Preset(Llm(64, 2, 2, 2, 176, 512), Tower(72, 1, 1, 100, 56)),
}


def preset_config(name: str) -> Config:
    """The sections "llm" to "video" of config.json (docs/FORMATS.md).

    Raises:
        InvalidArgument: no preset has this name.
    """
    if name not in PRESETS:
        raise InvalidArgument(f"[bench] preset: expected one of {', '.join(PRESETS)}, got {name}")
    preset = PRESETS[name]
    llm, tower, scales = preset.llm, preset.tower, preset.scales
    return {
        "llm": {
            "dim": llm.dim, "n_layers": llm.layers, "n_heads": llm.heads, "n_kv_heads": llm.kv_heads,
            "head_dim": llm.dim // llm.heads, "ffn_dim": llm.ffn, "vocab_size": llm.vocab, "norm_eps": 1e-5,
            "rope_theta": llm.theta, "max_context": 4096, "attention_bias": False, "mlp_bias": False,
            "bos_token_id": 1, "eos_token_ids": [2],
        },
        "vision": {
            "kind": "siglip", "dim": tower.dim, "n_layers": tower.layers, "n_heads": tower.heads,
            "ffn_dim": tower.ffn, "image_size": tower.image, "patch_size": tower.patch, "norm_eps": 1e-6,
            "activation": "gelu_tanh", "select_layer": -1, "drop_class_token": False, "qk_norm": False,
        },
        "s2": {"scales": list(scales), "max_split": scales[0]} if scales else None,
        "projector": {
            "kind": "mlp_downsample", "in_dim": tower.dim * max(1, len(scales)), "out_dim": llm.dim, "depth": 2,
        },
        "image": {
            "size": max((tower.image, *scales)), "mode": "resize", "rescale": 1 / 255, "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        "video": {"n_frames": 8},
    }  # fmt: skip


def source_of(config: Config) -> SourceModel:
    """A model folder's config.json as the description that `plan_entries` takes; it has no published files."""
    nowhere = Path()
    return SourceModel(
        folder=nowhere,
        llm_folder=nowhere,
        vision_folder=nowhere,
        projector_folder=nowhere,
        llm=config["llm"],
        vision=config["vision"],
        s2=config["s2"],
        projector=config["projector"],
        image=config["image"],
        video=config["video"],
        vision_layers_in_file=config["vision"]["n_layers"],
        vision_qkv_bias=False,
        tie_word_embeddings=False,
        adds_patch_token=False,
        quantization={},
    )
