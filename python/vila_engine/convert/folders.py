"""Reads the configuration files of a published VILA 1.5 folder into one description of the model.

The layout is the one that the reference writes: config.json beside llm/, vision_tower/ and mm_projector/. Nothing here
touches weights.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vila_engine._core import CheckpointError, IoError, UnsupportedError

Config = dict[str, Any]

INTERN_VIT_MEAN = (0.485, 0.456, 0.406)  # the reference hard-codes ImageNet's statistics for this tower
INTERN_VIT_STD = (0.229, 0.224, 0.225)
LLAMA_DEFAULT_ROPE_THETA = 10000.0
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
CONV_MODES = ("vicuna_v1", "vicuna_v1_nosys", "llama_3", "llama_3_fix", "hermes-2", "plain")


@dataclass
class SourceModel:
    """A published folder, understood: where its parts lie and the sections of the config.json to be written.

    With `adds_patch_token` the reference adds <im_patch> behind the tokenizer's tokens. `quantization` is AutoAWQ's.
    """

    folder: Path
    llm_folder: Path
    vision_folder: Path
    projector_folder: Path
    llm: Config
    vision: Config
    s2: Config | None
    projector: Config
    image: Config
    video: Config
    vision_layers_in_file: int
    vision_qkv_bias: bool
    tie_word_embeddings: bool
    adds_patch_token: bool
    quantization: Config
    notes: list[str] = field(default_factory=list)


def read_folder(folder: Path) -> SourceModel:
    """Reads the configuration of a published checkpoint folder.

    Args:
        folder: Folder with config.json, llm/, vision_tower/ and mm_projector/.

    Returns:
        The description; `vision["n_layers"]` counts the blocks that the selected hidden state needs.

    Raises:
        CheckpointError: files or entries are missing or contradict each other; everything found is listed.
        UnsupportedError: the model is of an architecture that the engine does not implement.
    """
    parts = {name: folder / name for name in ("llm", "vision_tower", "mm_projector")}
    files = [folder / "config.json", *(path / "config.json" for path in parts.values())]
    missing = [str(path.relative_to(folder)) for path in files if not path.is_file()]
    if missing:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"[convert] {folder}: expected a published VILA 1.5 folder with {', '.join(missing)}, got {found}"
        )
    top = Section(files[0], "config.json")
    _check_top(top)
    llm_section = Section(files[1], "llm/config.json")
    llm = _read_llm(llm_section, parts["llm"])
    vision_section = Section(files[2], "vision_tower/config.json")
    vision = _read_vision(vision_section, top)
    s2 = _read_s2(top, vision)
    projector = _read_projector(Section(files[3], "mm_projector/config.json"), llm, vision, s2)
    return SourceModel(
        folder=folder,
        llm_folder=parts["llm"],
        vision_folder=parts["vision_tower"],
        projector_folder=parts["mm_projector"],
        llm=llm,
        vision=vision,
        s2=s2,
        projector=projector,
        image=_read_image(top, parts["vision_tower"], vision, s2),
        video={"n_frames": top.positive("num_video_frames", 8)},
        vision_layers_in_file=vision_section.positive("num_hidden_layers"),
        vision_qkv_bias=vision["kind"] == "intern_vit" and vision_section.flag("qkv_bias", False),
        tie_word_embeddings=llm_section.flag("tie_word_embeddings", False),
        adds_patch_token=top.flag("mm_use_im_patch_token", True),
        quantization=llm_section.table("quantization_config"),
    )


class Section:
    """A JSON object with the name of its file, for typed access with clear errors."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise IoError(f"[convert] {path}: expected a readable file, got {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"[convert] {path}: expected JSON, got {error}") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"[convert] {path}: expected a JSON object, got {type(value).__name__}")
        self.values: Config = value

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default when it is missing or null."""
        value = self.values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer."""
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected an integer, got {value!r}")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """An integer of at least 1."""
        value = self.integer(key, default)
        if value < 1:
            raise CheckpointError(f"[convert] {self.name}: {key}: expected at least 1, got {value}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A real number."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected a number, got {value!r}")
        if not math.isfinite(value):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected a finite number, got {value!r}")
        return float(value)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected a string, got {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected true or false, got {value!r}")
        return value

    def table(self, key: str) -> Config:
        """An object; empty when it is missing."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise CheckpointError(f"[convert] {self.name}: {key}: expected an object, got {value!r}")
        return value

    def unsupported(self, key: str, expected: str) -> UnsupportedError:
        """The error for a value that the engine does not implement."""
        return UnsupportedError(f"[convert] {self.name}: {key}: expected {expected}, got {self.get(key)!r}")


def _check_top(top: Section) -> None:
    architectures = top.get("architectures", [])
    if not isinstance(architectures, list) or not any("llava" in str(name).lower() for name in architectures):
        raise top.unsupported("architectures", "a LLaVA type model such as LlavaLlamaModel")
    if top.flag("mm_use_im_start_end", False):
        raise top.unsupported("mm_use_im_start_end", "false, as in all VILA 1.5 models")


def _read_llm(config: Section, folder: Path) -> Config:
    architectures = config.get("architectures", [])
    if architectures != ["LlamaForCausalLM"]:
        raise config.unsupported("architectures", "['LlamaForCausalLM']")
    if config.text("hidden_act", "silu") != "silu":
        raise config.unsupported("hidden_act", "silu")
    if config.get("rope_scaling") is not None:
        raise config.unsupported("rope_scaling", "null")
    dim, n_heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    if config.get("head_dim") is None and dim % n_heads:
        raise CheckpointError(
            f"[convert] {config.name}: expected hidden_size to be a multiple of {n_heads} attention heads, got {dim}"
        )
    head_dim, n_kv_heads = config.positive("head_dim", dim // n_heads), config.positive("num_key_value_heads", n_heads)
    if head_dim % 2 or n_heads % n_kv_heads:
        raise CheckpointError(
            f"[convert] {config.name}: expected heads of even width whose number is a multiple of num_key_value_heads, "
            f"got {n_heads} of {head_dim}, {n_kv_heads} of keys and values"
        )
    return {
        "dim": dim,
        "n_layers": config.positive("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": head_dim,
        "ffn_dim": config.positive("intermediate_size"),
        "vocab_size": config.positive("vocab_size"),
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "rope_theta": config.number("rope_theta", LLAMA_DEFAULT_ROPE_THETA),
        "max_context": config.positive("max_position_embeddings", 2048),
        "attention_bias": config.flag("attention_bias", False),
        "mlp_bias": config.flag("mlp_bias", False),
        "bos_token_id": None if config.get("bos_token_id") is None else config.integer("bos_token_id"),
        "eos_token_ids": _read_eos(config, folder),
    }


def _read_eos(config: Section, folder: Path) -> list[int]:
    """The ids that end an answer: those of generation_config.json if it names any, as when the reference generates."""
    generation = folder / "generation_config.json"
    sections = [config]
    if generation.is_file():
        sections.insert(0, Section(generation, "llm/generation_config.json"))
    for section in sections:
        value = section.get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(id_, int) and not isinstance(id_, bool) for id_ in ids):
            raise CheckpointError(f"[convert] {section.name}: eos_token_id: expected integers, got {value!r}")
        return ids
    return []


def _read_vision(config: Section, top: Section) -> Config:
    kind = {"siglip_vision_model": "siglip", "intern_vit_6b": "intern_vit"}.get(config.text("model_type"))
    if kind is None:
        raise config.unsupported("model_type", "siglip_vision_model or intern_vit_6b")
    activation = ACTIVATIONS.get(config.text("hidden_act", "gelu_pytorch_tanh" if kind == "siglip" else "gelu"))
    if activation is None:
        raise config.unsupported("hidden_act", " or ".join(ACTIVATIONS))
    if kind == "intern_vit" and config.text("norm_type", "rms_norm") != "rms_norm":
        raise config.unsupported("norm_type", "rms_norm")
    feature = top.text("mm_vision_select_feature", "patch")
    if feature not in ("patch", "cls_patch"):
        raise top.unsupported("mm_vision_select_feature", "patch or cls_patch")
    n_blocks = config.positive("num_hidden_layers")
    selected = top.integer("mm_vision_select_layer", -2)
    n_layers = selected if selected >= 0 else n_blocks + 1 + selected
    if not 0 <= n_layers <= n_blocks:
        raise CheckpointError(
            f"[convert] {top.name}: mm_vision_select_layer: expected one of {n_blocks + 1} states, got {selected}"
        )
    dim, n_heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    image_size, patch_size = config.positive("image_size"), config.positive("patch_size")
    if dim % n_heads or image_size < patch_size:
        raise CheckpointError(
            f"[convert] {config.name}: expected hidden_size to be a multiple of num_attention_heads and image_size at "
            f"least patch_size, got {dim} and {n_heads}, {image_size} and {patch_size}"
        )
    return {
        "kind": kind,
        "dim": dim,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "ffn_dim": config.positive("intermediate_size"),
        "image_size": image_size,
        "patch_size": patch_size,
        "norm_eps": config.number("layer_norm_eps", 1e-6),
        "activation": activation,
        "select_layer": -1,
        "drop_class_token": feature == "patch",
        "qk_norm": kind == "intern_vit" and config.flag("qk_normalization", True),
    }


def _read_s2(top: Section, vision: Config) -> Config | None:
    if not top.flag("s2", False):
        return None
    text = top.text("s2_scales")
    if not re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", text):
        raise top.unsupported("s2_scales", "sizes separated by commas")
    scales = sorted(int(part) for part in text.split(","))
    split = top.positive("s2_max_split_size", 336)
    if split != vision["image_size"] or scales[0] != split or any(scale % split for scale in scales):
        raise UnsupportedError(
            f"[convert] {top.name}: expected s2_scales to be multiples of s2_max_split_size and start with it, and a "
            f"tower of that size, got scales {scales}, split {split}, tower {vision['image_size']}"
        )
    return {"scales": scales, "max_split": split}


def _read_projector(config: Section, llm: Config, vision: Config, s2: Config | None) -> Config:
    kind = config.text("mm_projector_type")
    n_scales = len(s2["scales"]) if s2 else 1
    projector = {"in_dim": vision["dim"] * n_scales, "out_dim": llm["dim"]}
    mlp = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if mlp:
        return {"kind": "mlp_gelu", **projector, "depth": max(1, int(mlp[1]))}
    if kind == "mlp_downsample":
        return {"kind": kind, **projector, "depth": 2}
    if kind == "identity" and projector["in_dim"] != projector["out_dim"]:
        raise CheckpointError(
            f"[convert] {config.name}: expected a tower of the language model's width {projector['out_dim']} for an "
            f"identity projector, got {projector['in_dim']}"
        )
    if kind in ("linear", "identity"):
        return {"kind": kind, **projector, "depth": 1}
    raise config.unsupported("mm_projector_type", "linear, mlp<N>x_gelu, mlp_downsample or identity")


def _read_image(top: Section, vision_folder: Path, vision: Config, s2: Config | None) -> Config:
    aspect = top.text("image_aspect_ratio", "resize")
    if aspect.startswith("dynamic"):
        raise top.unsupported("image_aspect_ratio", "resize or pad")
    image: Config = {
        "size": s2["scales"][-1] if s2 else vision["image_size"],
        "mode": "pad" if aspect == "pad" else "resize",
        "rescale": 1 / 255,
        "mean": list(INTERN_VIT_MEAN),
        "std": list(INTERN_VIT_STD),
    }
    if vision["kind"] == "intern_vit":
        return image
    path = vision_folder / "preprocessor_config.json"
    if not path.is_file():
        raise CheckpointError(
            f"[convert] {path}: expected the picture statistics of the vision tower, got no such file"
        )
    config = Section(path, "vision_tower/preprocessor_config.json")
    size = config.get("size", image["size"])
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if not s2 and (height, width) != (image["size"], image["size"]):
        raise CheckpointError(
            f"[convert] {config.name}: size: expected {image['size']} as the tower's image_size, got {size!r}"
        )
    if config.get("resample", 3) != 3:
        raise config.unsupported("resample", "3 (bicubic)")
    image["rescale"] = config.number("rescale_factor", 1 / 255)
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        values = config.get(name, [0.5, 0.5, 0.5])
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise CheckpointError(f"[convert] {config.name}: {name}: expected three numbers, got {values!r}")
        image[key] = [float(value) for value in values]
    if not all(value > 0 for value in image["std"]):
        raise CheckpointError(f"[convert] {config.name}: image_std: expected positive numbers, got {image['std']}")
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not config.flag(step, True):
            raise config.unsupported(step, "true")
    return image


def detect_conv_mode(name: str, special_tokens: set[str]) -> tuple[str, str]:
    """Chooses the chat template from the checkpoint's name, else from the tokenizer's special tokens.

    Args:
        name: Name of the published folder.
        special_tokens: Contents of all control and added tokens.

    Returns:
        The mode and the reason, for the report.
    """
    lower = name.lower()
    is_llama_3 = (
        any(part in lower for part in ("llama-3", "llama3", "vila1.5-8b")) or "<|start_header_id|>" in special_tokens
    )
    if is_llama_3:
        mode = "llama_3_fix" if re.search(r"\bfix\b", lower.replace("_", "-")) else "llama_3"
        return mode, f'the name "{name}"' if mode == "llama_3_fix" else "a Llama 3 tokenizer or name"
    if "vila1.5-40b" in lower or "<|im_start|>" in special_tokens:
        return "hermes-2", "a ChatML tokenizer or name"
    return "vicuna_v1", "neither the name nor the tokenizer says otherwise"
