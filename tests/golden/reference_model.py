"""A slow, plain reading of VILA 1.5 on top of `transformers`, in fp32 on the CPU: the oracle of the golden fixtures.

It reads a checkpoint in the published folder layout and computes pixels, vision features, projected tokens, prompt
ids, logits and greedy continuations. It shares no code with vila_engine. Papers: VILA 2312.07533, SigLIP 2303.15343,
InternVL 2312.14238, S2 2403.13043.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from awq_pack import unpack_autoawq_gemm, unpack_llm_awq_v2
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    InternVLVisionConfig,
    InternVLVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

IMAGE_ID = -200
Tensors = dict[str, torch.Tensor]

_V1_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_LLAMA_3_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True)
class Template:
    """A conversation template: what stands before the turns, in front of each message and behind it."""

    prefix: str
    headers: tuple[str, str]
    separators: tuple[str, str]
    open_header: str
    stop: str


def _llama_3(assistant: str, separator: str) -> Template:
    def header(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    prefix = "<|begin_of_text|>" + header("system") + _LLAMA_3_SYSTEM + separator
    headers = (header("user"), header(assistant))
    return Template(prefix, headers, (separator, separator), headers[1], separator)


def _hermes_2() -> Template:
    headers = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    prefix = "<|im_start|>system\nAnswer the questions.<|im_end|>"
    return Template(prefix, headers, ("<|im_end|>", "<|im_end|>"), headers[1], "<|im_end|>")


def _vicuna(system: str) -> Template:
    return Template(system + " ", ("USER: ", "ASSISTANT: "), (" ", "</s>"), "ASSISTANT:", "</s>")


TEMPLATES = {
    "vicuna_v1": _vicuna(_V1_SYSTEM),
    "vicuna_v1_nosys": _vicuna(""),
    "llama_3": _llama_3("system", "<|end_of_text|>"),
    "llama_3_fix": _llama_3("assistant", "<|eot_id|>"),
    "hermes-2": _hermes_2(),
}


def render_prompt(conv: str, turns: list[str | None]) -> str:
    """Renders alternating user and assistant messages; a final None leaves the assistant's turn open."""
    template = TEMPLATES[conv]
    text = template.prefix
    for index, message in enumerate(turns):
        if message is None:
            text += template.open_header
        else:
            text += template.headers[index % 2] + message + template.separators[index % 2]
    return text


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(f"{path.name}: expected an object")
    return value


def load_component(folder: Path) -> Tensors:
    """Reads all tensors of one sub-folder: an AWQ `.pt` first, else safetensors, else `pytorch_model*.bin`."""
    files = sorted(folder.glob("*.pt")) or sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_*.bin"))
    if not files:
        raise FileNotFoundError(f"no weights in {folder.name}")
    tensors: Tensors = {}
    for file in files:
        part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        tensors.update(part)
    return tensors


def dequantize(tensors: Tensors) -> Tensors:
    """Replaces the packed 4-bit linears of both AWQ layouts by f32 weights; other tensors become f32 as they are."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "qweight" and f"{stem}.scaled_zeros" in tensors:
            parts = (tensors[f"{stem}.{part}"].numpy() for part in ("qweight", "scales", "scaled_zeros"))
            plain[f"{stem}.weight"] = torch.from_numpy(unpack_llm_awq_v2(*parts)[1])
        elif leaf == "qweight":
            parts = (tensors[f"{stem}.{part}"].numpy() for part in ("qweight", "qzeros", "scales"))
            plain[f"{stem}.weight"] = torch.from_numpy(unpack_autoawq_gemm(*parts)[1])
        elif leaf not in ("qzeros", "scales", "scaled_zeros"):
            plain[name] = tensor.float()
    return plain


def resize_bicubic(image: Image.Image, size: int) -> Image.Image:
    """Squashes to size x size as Pillow 10.4 does: the horizontal pass comes first, whatever Pillow is installed."""
    wide = image.resize((size, image.height), Image.Resampling.BICUBIC)
    return wide.resize((size, size), Image.Resampling.BICUBIC)


def pad_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """Centres a picture on a square of its longer side."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


INTERN_RENAMES = (
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.position_embedding$", "embeddings.position_embeddings"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.ls1$", ".lambda_1"),
    (r"\.ls2$", ".lambda_2"),
)


def _intern_names(tensors: Tensors) -> Tensors:
    """Maps InternViT's published names to those of transformers; the fused qkv is (3, heads, head_dim) along N."""
    renamed: Tensors = {}
    for original, tensor in tensors.items():
        name = original
        for pattern, replacement in INTERN_RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith(".qkv.weight"):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace(".qkv.", f".{part}_proj.")] = rows
        else:
            renamed[name] = tensor
    return renamed


class VisionTower:
    """SigLIP or InternViT; returns the hidden state that the checkpoint selects."""

    def __init__(self, folder: Path, top: dict[str, Any]) -> None:
        """Loads the tower of a checkpoint whose top-level configuration is `top`."""
        self.config = read_json(folder / "config.json")
        self.select_layer = int(top["mm_vision_select_layer"])
        self.drop_first = top["mm_vision_select_feature"] == "patch"
        self.is_intern = self.config["model_type"] == "intern_vit_6b"
        tensors = dequantize(load_component(folder))
        if self.is_intern:
            self.model = self._intern(tensors)
        else:
            config = SiglipVisionConfig.from_dict({**self.config, "vision_use_head": False})
            config._attn_implementation = "eager"
            self.model = SiglipVisionModel(config)
            tensors = {name: t for name, t in tensors.items() if not name.startswith("vision_model.head.")}
            self.model.load_state_dict(tensors, strict=True)
        self.model.eval()
        self.image_size = int(self.config["image_size"])

    def _intern(self, tensors: Tensors) -> InternVLVisionModel:
        c = self.config
        config = InternVLVisionConfig(
            hidden_size=c["hidden_size"],
            num_hidden_layers=c["num_hidden_layers"],
            num_attention_heads=c["num_attention_heads"],
            attention_bias=c["qkv_bias"],
            use_qk_norm=c["qk_normalization"],
            intermediate_size=c["intermediate_size"],
            hidden_act=c["hidden_act"],
            norm_type=c["norm_type"],
            layer_norm_eps=c["layer_norm_eps"],
            image_size=c["image_size"],
            patch_size=c["patch_size"],
        )
        config._attn_implementation = "eager"
        model = InternVLVisionModel(config)
        model.load_state_dict(_intern_names(tensors), strict=True)
        return model

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps pixels `[B, 3, S, S]` to features `[B, N, C]`."""
        if self.is_intern:
            states = [self.model.embeddings(pixels)[0]]
            for layer in self.model.encoder.layer:
                states.append(layer(states[-1]))
        else:
            states = list(self.model(pixels, output_hidden_states=True).hidden_states)
        selected = states[self.select_layer]
        return selected[:, 1:] if self.drop_first else selected


def s2_features(tower: VisionTower, pixels: torch.Tensor, scales: list[int], max_split: int) -> torch.Tensor:
    """Runs the tower on every scale and joins the maps along the channels: `[B, N, C * len(scales)]`."""
    maps = []
    for scale in sorted(scales):
        resized = pixels if pixels.shape[-1] == scale else F.interpolate(pixels, size=(scale, scale), mode="bicubic")
        splits = -(-scale // max_split)
        tile = scale // splits
        rows = []
        for row in range(splits):
            columns = []
            for column in range(splits):
                part = resized[:, :, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                features = tower(part)
                side = round(features.shape[1] ** 0.5)
                columns.append(features.transpose(1, 2).reshape(len(pixels), -1, side, side))
            rows.append(torch.cat(columns, dim=3))
        maps.append(torch.cat(rows, dim=2))
    side = maps[0].shape[-1]
    reduced = [m if m.shape[-1] == side else F.interpolate(m, size=(side, side), mode="area") for m in maps]
    return torch.cat(reduced, dim=1).flatten(2).transpose(1, 2)


def space_to_depth(features: torch.Tensor) -> torch.Tensor:
    """Joins 2x2 blocks of a square grid `[B, g*g, C]` to `[B, ceil(g/2)^2, 4C]`; tokens leave column by column."""
    batch, n_tokens, channels = features.shape
    side = round(n_tokens**0.5)
    half = (side + 1) // 2
    grid = torch.zeros(batch, 2 * half, 2 * half, channels)
    grid[:, :side, :side] = features.reshape(batch, side, side, channels)
    tokens = []
    for block_column in range(half):
        for block_row in range(half):
            block = grid[:, 2 * block_row : 2 * block_row + 2, 2 * block_column : 2 * block_column + 2]
            tokens.append(block.reshape(batch, 4 * channels))
    return torch.stack(tokens, dim=1)


class Projector:
    """The connector between tower and LLM: `linear`, `mlpNx_gelu` or `mlp_downsample`."""

    def __init__(self, folder: Path) -> None:
        """Loads the projector of one checkpoint."""
        self.kind = str(read_json(folder / "config.json")["mm_projector_type"])
        self.tensors = dequantize(load_component(folder))

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Maps features `[B, N, C]` to LLM rows `[B, T, hidden]`."""
        if self.kind == "linear":
            return self._linear(features, "layers")
        if self.kind == "mlp_downsample":
            x = space_to_depth(features)
            x = F.layer_norm(x, x.shape[-1:], self.tensors["layers.1.weight"], self.tensors["layers.1.bias"], 1e-5)
            return self._linear(F.gelu(self._linear(x, "layers.2")), "layers.4")
        match = re.fullmatch(r"mlp(\d+)x_gelu", self.kind)
        if match is None:
            raise ValueError(f"unknown projector {self.kind}")
        x = self._linear(features, "layers.0")
        for depth in range(1, int(match[1])):
            x = self._linear(F.gelu(x), f"layers.{2 * depth}")
        return x


class ReferenceVila:
    """A whole checkpoint: preprocessing, tower, projector, tokenizer and LLM."""

    def __init__(self, folder: Path) -> None:
        """Loads the checkpoint in `folder`."""
        self.top = read_json(folder / "config.json")
        self.tower = VisionTower(folder / "vision_tower", self.top)
        self.projector = Projector(folder / "mm_projector")
        self.preprocessor = read_json(folder / "vision_tower" / "preprocessor_config.json")
        self.scales = [int(s) for s in self.top["s2_scales"].split(",")] if self.top.get("s2") else []
        self.tokenizer = load_tokenizer(folder / "llm")
        config = LlamaConfig.from_dict(read_json(folder / "llm" / "config.json"))
        config._attn_implementation = "eager"
        self.llm = LlamaForCausalLM(config).float()
        self.llm.load_state_dict(dequantize(load_component(folder / "llm")), strict=True)
        self.llm.eval()

    @property
    def input_size(self) -> int:
        """Side of the square that pictures are resized to, in pixels."""
        return max(self.scales) if self.scales else self.tower.image_size

    def preprocess(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Resizes or pads, rescales and normalises one picture to `[3, S, S]`."""
        rgb = image.convert("RGB")
        intern = self.tower.is_intern
        mean = np.array((0.485, 0.456, 0.406) if intern else self.preprocessor["image_mean"], np.float32)
        std = np.array((0.229, 0.224, 0.225) if intern else self.preprocessor["image_std"], np.float32)
        if self.top["image_aspect_ratio"] == "pad":
            rgb = pad_to_square(rgb, tuple(int(float(m) * 255) for m in mean))
        pixels = np.asarray(resize_bicubic(rgb, self.input_size))
        unit = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
        return np.ascontiguousarray(((unit - mean) / std).transpose(2, 0, 1))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Selected (and for S2 merged) tower states of pixels `[B, 3, S, S]`: `[B, N, C]`."""
        if self.scales:
            return s2_features(self.tower, pixels, self.scales, int(self.top["s2_max_split_size"]))
        return self.tower(pixels)

    def tokenize(self, prompt: str) -> list[int]:
        """Tokenises the text between `<image>` marks chunk by chunk; each mark becomes -200."""
        chunks = [self.tokenizer(chunk).input_ids for chunk in prompt.split("<image>")]
        has_bos = bool(chunks[0]) and chunks[0][0] == self.tokenizer.bos_token_id
        ids: list[int] = [chunks[0][0]] if has_bos else []
        for index, chunk in enumerate(chunks):
            if index > 0:
                ids.append(IMAGE_ID)
            ids.extend(chunk[1:] if has_bos else chunk)
        return ids

    def splice(self, ids: list[int], projected: torch.Tensor | None) -> torch.Tensor:
        """Embeds the ids and puts the rows of the next picture in place of each -200: `[1, L, hidden]`."""
        rows: list[torch.Tensor] = []
        image = 0
        for token in ids:
            if token != IMAGE_ID:
                rows.append(self.llm.model.embed_tokens.weight[token][None])
            elif projected is None:
                raise ValueError("the prompt has an image mark but no picture was given")
            else:
                rows.append(projected[image])
                image += 1
        return torch.cat(rows)[None]

    def greedy(self, embeds: torch.Tensor, n_steps: int) -> tuple[torch.Tensor, list[int], list[float]]:
        """Prefills, then decodes with a cache and no regard to stop tokens.

        Returns:
            Prompt logits `[L, V]`, `n_steps` ids and the gap between the best two logits at each step.
        """
        out = self.llm(inputs_embeds=embeds, use_cache=True)
        logits, ids, margins = out.logits[0], [], []
        last = logits[-1]
        for step in range(n_steps):
            best = torch.topk(last, 2)
            ids.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            if step + 1 < n_steps:
                out = self.llm(torch.tensor([ids[-1:]]), past_key_values=out.past_key_values, use_cache=True)
                last = out.logits[0, -1]
        return logits, ids, margins

    @torch.no_grad()
    def run(self, prompt: str, images: list[Image.Image], n_steps: int = 32) -> dict[str, npt.NDArray[Any]]:
        """Computes every array of one case; the vision arrays are absent without pictures."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        projected = None
        if images:
            pixels = torch.from_numpy(np.stack([self.preprocess(image) for image in images]))
            features = self.features(pixels)
            projected = self.projector(features)
            arrays["pixel_values"] = pixels.numpy()
            arrays["vision_features"] = features.numpy()
            arrays["projector_output"] = projected.numpy()
        ids = self.tokenize(prompt)
        logits, greedy_ids, margins = self.greedy(self.splice(ids, projected), n_steps)
        arrays["input_ids"] = np.array(ids, np.int32)
        arrays["logits"] = logits.numpy()
        arrays["greedy_ids"] = np.array(greedy_ids, np.int32)
        arrays["greedy_margin"] = np.array(margins, np.float32)
        return arrays

    def decode_until_stop(self, ids: list[int], stop_id: int) -> str:
        """Text of the ids before the stop token, special tokens left out, blanks at the ends removed."""
        kept = ids[: ids.index(stop_id)] if stop_id in ids else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer as the reference does: the slow sentencepiece one, or the fast one when only that exists."""
    if (folder / "tokenizer.model").exists():
        return LlamaTokenizer.from_pretrained(folder, legacy=False)
    return PreTrainedTokenizerFast.from_pretrained(folder)
