"""Writes a tiny checkpoint in the published VILA 1.5 folder layout, in every storage that is found in the wild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import weights
from awq_pack import pack_autoawq_gemm, pack_llm_awq_v2, quantize_rtn
from safetensors.torch import save_file
from tokenizers_own import MAX_LENGTH, write_json, write_llama_2_style, write_llama_3_style, write_yi_style
from variants import Variant

Tensors = dict[str, torch.Tensor]
TORCH_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
VERSION = {"transformers_version": "4.36.2"}


def _dtype_name(variant: Variant) -> str:
    return str(TORCH_DTYPE[variant.dtype]).removeprefix("torch.")


def write_tokenizer(variant: Variant, folder: Path) -> dict[str, int]:
    """Writes the variant's tokenizer; returns `vocab`, `bos`, `eos` and `pad`."""
    if variant.tok == "llama_2":
        return write_llama_2_style(folder, variant.n_base)
    if variant.tok == "yi":
        return write_yi_style(folder, variant.n_base)
    return write_llama_3_style(folder, variant.n_base, auto_bos=variant.tok == "llama_3_auto_bos")


def _llm_config(variant: Variant, ids: dict[str, int]) -> dict[str, Any]:
    c = variant.llm
    config: dict[str, Any] = {
        "_name_or_path": "./llm",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": c.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "hidden_act": "silu",
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        "intermediate_size": c.inter,
        "max_position_embeddings": MAX_LENGTH,
        "model_max_length": MAX_LENGTH,
        "model_type": "llama",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv,
        "pad_token_id": ids["pad"],
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": c.theta,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": MAX_LENGTH,
        "tokenizer_padding_side": "right",
        "torch_dtype": _dtype_name(variant),
        "use_cache": True,
        "vocab_size": ids["vocab"],
    }
    if variant.storage == "autoawq_gemm":
        config["quantization_config"] = {
            "bits": 4,
            "group_size": 128,
            "modules_to_not_convert": None,
            "quant_method": "awq",
            "version": "gemm",
            "zero_point": True,
        }
    return config | VERSION


def _vision_config(variant: Variant) -> dict[str, Any]:
    v = variant.vision
    shared: dict[str, Any] = {
        "_name_or_path": "./vision_tower",
        "attention_dropout": 0.0,
        "hidden_size": v.hidden,
        "image_size": v.image,
        "intermediate_size": v.inter,
        "layer_norm_eps": 1e-06,
        "num_attention_heads": v.heads,
        "num_channels": 3,
        "num_hidden_layers": v.layers,
        "patch_size": v.patch,
        "torch_dtype": _dtype_name(variant),
    }
    if v.kind == "siglip":
        kind = {"hidden_act": "gelu_pytorch_tanh", "model_type": "siglip_vision_model"}
        return {"architectures": ["SiglipVisionModel"]} | shared | kind | VERSION
    kind_intern: dict[str, Any] = {
        "drop_path_rate": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "model_type": "intern_vit_6b",
        "norm_type": "rms_norm",
        "qk_normalization": True,
        "qkv_bias": False,
        "use_flash_attn": True,
    }
    return {"architectures": ["InternVisionModel"]} | shared | kind_intern | VERSION


def _preprocessor_config(variant: Variant) -> dict[str, Any]:
    if variant.vision.kind == "intern_vit":
        return {"image_processor_type": "InternVisionPreprocessor"}
    side = max([variant.vision.image, *variant.s2_scales])
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": side, "width": side},
    }


def _top_config(variant: Variant, parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "_name_or_path": "./vlm",
        "architectures": ["LlavaLlamaModel"],
        "drop_path_rate": 0.0,
        "hidden_size": variant.llm.hidden,
        "image_aspect_ratio": variant.aspect,
        "interpolate_mode": "linear",
        "llm_cfg": parts["llm"],
        "mm_hidden_size": variant.vision.hidden * max(1, len(variant.s2_scales)),
        "mm_projector_cfg": parts["mm_projector"],
        "mm_projector_lr": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch" if variant.vision.kind == "intern_vit" else "cls_patch",
        "mm_vision_select_layer": variant.select_layer,
        "model_dtype": str(TORCH_DTYPE[variant.dtype]),
        "model_type": "llava_llama",
        "num_video_frames": 8,
        "resume_path": "./vlm",
        "s2": bool(variant.s2_scales),
        "s2_max_split_size": variant.s2_max_split or 336,
        "s2_scales": ",".join(str(s) for s in variant.s2_scales) or "336,672,1008",
        "tune_language_model": True,
        "tune_mm_projector": True,
        "tune_vision_tower": True,
        "vision_resolution": -1,
        "vision_tower_cfg": parts["vision_tower"],
    } | VERSION


def _write_configs(variant: Variant, folder: Path, ids: dict[str, int]) -> None:
    parts = {
        "llm": _llm_config(variant, ids),
        "vision_tower": _vision_config(variant),
        "mm_projector": {
            "_name_or_path": "./mm_projector",
            "architectures": ["MultimodalProjector"],
            "mm_projector_type": variant.projector,
            "model_type": "v2l_projector",
            "torch_dtype": _dtype_name(variant),
        }
        | VERSION,
    }
    for name, config in parts.items():
        write_json(folder / name / "config.json", config)
    write_json(folder / "config.json", _top_config(variant, parts))
    write_json(folder / "vision_tower" / "preprocessor_config.json", _preprocessor_config(variant))
    generation = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]}
    write_json(folder / "llm" / "generation_config.json", {"_from_model_config": True} | generation | VERSION)


def _shard_index(tensors: Tensors, n_shards: int) -> dict[str, Any]:
    """The index of shards of about equal numbers of tensors, in order of name."""
    names = sorted(tensors)
    n_each = -(-len(names) // n_shards)
    files = [f"model-{i // n_each + 1:05d}-of-{n_shards:05d}.safetensors" for i in range(len(names))]
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    return {"metadata": {"total_size": total}, "weight_map": dict(zip(names, files, strict=True))}


def _save_plain(tensors: Tensors, folder: Path, storage: str, shards: int = 1) -> None:
    if storage == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        index = _shard_index(tensors, shards)
        write_json(folder / "model.safetensors.index.json", index)
        for file in sorted(set(index["weight_map"].values())):
            part = {name: tensors[name] for name, home in index["weight_map"].items() if home == file}
            save_file(part, folder / file, metadata={"format": "pt"})


def _quantize_linears(tensors: Tensors, storage: str) -> Tensors:
    """Packs the decoder layers' linears; embeddings, norms and head stay f16."""
    pack = pack_llm_awq_v2 if storage == "llm_awq_v2" else pack_autoawq_gemm
    packed: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight"):
            packed[name] = tensor
            continue
        stem = name.removesuffix(".weight")
        for leaf, array in pack(*quantize_rtn(tensor.float().numpy())).items():
            packed[f"{stem}.{leaf}"] = torch.from_numpy(array)
    return packed


def write_checkpoint(variant: Variant, folder: Path, seed: int) -> dict[str, int]:
    """Writes the whole folder; returns the tokenizer's `vocab`, `bos`, `eos` and `pad`."""
    for name in ("llm", "vision_tower", "mm_projector"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(variant, folder / "llm")
    _write_configs(variant, folder, ids)
    draw = weights.Sampler(seed, TORCH_DTYPE[variant.dtype])
    tower = weights.siglip if variant.vision.kind == "siglip" else weights.intern_vit
    plain = "bin" if variant.storage == "bin" else "safetensors"
    _save_plain(tower(draw, variant.vision), folder / "vision_tower", plain)
    _save_plain(weights.projector(draw, variant), folder / "mm_projector", plain)
    llm = weights.llama(draw, variant.llm, ids["vocab"])
    if variant.storage == "llm_awq_v2":
        write_json(folder / "llm" / "model.safetensors.index.json", _shard_index(llm, 2))
        name = variant.name.replace("_", "-") + "-w4-g128-awq-v2.pt"
        torch.save(_quantize_linears(llm, variant.storage), folder / "llm" / name)
    elif variant.storage == "autoawq_gemm":
        _save_plain(_quantize_linears(llm, variant.storage), folder / "llm", "safetensors")
    else:
        _save_plain(llm, folder / "llm", plain, variant.shards)
    return ids
