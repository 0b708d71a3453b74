"""The published VILA 1.5 folder layout: config.json beside llm/, vision_tower/ and mm_projector/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vila_engine._core import InvalidArgument

from .models import LlmConfig, Vila, VilaConfig, VisionConfig
from .tokenizer import Tokenizer

N_FRAMES = 8
_Json = dict[str, Any]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def _json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _llm_config(config: LlmConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads, "vocab_size": config.vocab_size,
        "rope_theta": config.rope_theta, "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings, "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos,
        "tokenizer_model_max_length": config.max_position_embeddings, "tokenizer_padding_side": "right",
    }  # fmt: skip


def _vision_config(config: VisionConfig) -> dict[str, Any]:
    return {
        "architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads,
        "image_size": config.image_size, "patch_size": config.patch_size, "layer_norm_eps": config.layer_norm_eps,
        "num_channels": 3,
    }  # fmt: skip


def _top_config(config: VilaConfig, llm: _Json, vision: _Json, projector: _Json) -> _Json:
    return {
        "architectures": ["LlavaLlamaModel"], "model_type": "llava_llama",
        "llm_cfg": llm, "vision_tower_cfg": vision, "mm_projector_cfg": projector,
        "hidden_size": config.llm.hidden_size, "mm_hidden_size": config.vision.hidden_size,
        "mm_vision_select_layer": config.select_layer, "mm_vision_select_feature": "cls_patch",
        "image_aspect_ratio": "resize", "num_video_frames": N_FRAMES, "s2": False,
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False,
        "vision_resolution": -1, "interpolate_mode": "linear",
    }  # fmt: skip


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, length: int) -> None:
    (folder / "tokenizer.model").write_bytes(tokenizer.model)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _json(folder / "special_tokens_map.json", {**tokens, "pad_token": "<unk>"})
    options = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False}
    _json(folder / "tokenizer_config.json", {**options, **tokens, "pad_token": "<unk>", "model_max_length": length})


def _weights(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in module.state_dict().items()}


def export_folder(model: Vila, tokenizer: Tokenizer, folder: Path, precision: str = "fp16") -> None:
    """Writes a model as a published VILA 1.5 folder, which `vila_engine.convert` and VILA itself read.

    Args:
        model: What to write.
        tokenizer: Its tokenizer.
        folder: Made if need be; files in it are replaced.
        precision: `fp32`, `fp16` or `bf16`.
    """
    config, dtype = model.config, DTYPES[precision]
    name = {"torch_dtype": str(dtype).removeprefix("torch.")}
    llm = {**_llm_config(config.llm, tokenizer), **name}
    vision = {**_vision_config(config.vision), **name}
    projector = {"architectures": ["MultimodalProjector"], "mm_projector_type": "mlp_downsample", **name}
    parts: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "llm": (model.llm, llm),
        "vision_tower": (model.vision_tower, vision),
        "mm_projector": (model.mm_projector, projector),
    }  # fmt: skip
    for part, (module, values) in parts.items():
        _json(folder / part / "config.json", values)
        path = folder / part / "model.safetensors"
        save_file(_weights(module, dtype), path, {"format": "pt"})
        path.chmod(0o644)  # the library writes files that only their owner can read
    top = _top_config(config, llm, vision, projector)
    _json(folder / "config.json", {**top, "model_dtype": str(dtype)})
    _json(folder / "llm" / "generation_config.json", {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos})
    _write_tokenizer(folder / "llm", tokenizer, config.llm.max_position_embeddings)
    size = {"height": config.vision.image_size, "width": config.vision.image_size}
    pixels = {"do_resize": True, "size": size, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255}
    statistics = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = {"image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor"}
    _json(folder / "vision_tower" / "preprocessor_config.json", {**processor, **pixels, **statistics})


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _read_weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    if not tensors:
        raise FileNotFoundError(f"[import_folder] {folder}: expected safetensors files, got none")
    return {name: tensor.float() for name, tensor in tensors.items() if ".head." not in name}


def read_config(folder: Path) -> VilaConfig:
    """Reads the sizes of a published folder.

    Raises:
        InvalidArgument: It is no SigLIP and Llama model with the `mlp_downsample` projector.
    """
    top, llm, vision, projector = (
        _read_json(folder / part / "config.json") for part in ("", "llm", "vision_tower", "mm_projector")
    )
    found = (llm["architectures"], vision["model_type"], projector["mm_projector_type"], bool(top.get("s2")))
    expected = (["LlamaForCausalLM"], "siglip_vision_model", "mlp_downsample", False)
    if found != expected:
        raise InvalidArgument(f"[read_config] {folder}: expected {expected}, got {found}")
    fields = {"num_key_value_heads": llm["num_attention_heads"], "rope_theta": 1e4, "tie_word_embeddings": False}
    known = LlmConfig.__dataclass_fields__
    fields |= {name: value for name, value in llm.items() if name in known and value is not None}
    vision_fields = {name: value for name, value in vision.items() if name in VisionConfig.__dataclass_fields__}
    return VilaConfig(VisionConfig(**vision_fields), LlmConfig(**fields), int(top["mm_vision_select_layer"]))


def import_folder(folder: Path) -> tuple[Vila, Tokenizer]:
    """Reads a published folder, ours or NVIDIA's, as an fp32 model.

    Raises:
        InvalidArgument: The architecture is another one.
        FileNotFoundError: A file is missing.
        RuntimeError: Tensors are missing or of a wrong shape.
    """
    model = Vila(read_config(folder))
    for part, module in (
        ("llm", model.llm), ("vision_tower", model.vision_tower), ("mm_projector", model.mm_projector),
    ):  # fmt: skip
        module.load_state_dict(_read_weights(folder / part))
    return model, Tokenizer.load(folder / "llm" / "tokenizer.model")
