"""VILA 1.5 in plain PyTorch for training: SigLIP tower, `mlp_downsample` projector and Llama decoder.

Parameter names are those of the published folder layout. Papers: SigLIP 2303.15343, VILA 2312.07533, Llama 2302.13971,
grouped queries 2305.13245, rotary positions 2104.09864.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_ID = -200


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the SigLIP tower; `image_size` and `patch_size` are in pixels."""

    hidden_size: int = 256
    intermediate_size: int = 1024
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    image_size: int = 126
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class LlmConfig:
    """Sizes of the Llama decoder."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    vocab_size: int = 4096
    rope_theta: float = 1e4
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class VilaConfig:
    """A whole model; `select_layer` indexes the tower's hidden states (-1: the last block's output, no post-norm)."""

    vision: VisionConfig = VisionConfig()
    llm: LlmConfig = LlmConfig()
    select_layer: int = -1


class VisionEmbeddings(nn.Module):
    """Patch projection plus learned positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)
        self.grid = config.grid
        self.patch = config.patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels `[B, 3, S, S]` to `[B, N, C]`; smaller S takes bilinearly resized positions."""
        batch, channels, side, _ = pixels.shape
        grid, patch = side // self.patch, self.patch
        blocks = pixels[:, :, : grid * patch, : grid * patch].reshape(batch, channels, grid, patch, grid, patch)
        flat = blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, channels * patch * patch)
        x = F.linear(flat, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        position = self.position_embedding.weight
        if grid != self.grid:
            plane = position.T.reshape(1, -1, self.grid, self.grid)
            position = F.interpolate(plane, size=(grid, grid), mode="bilinear").flatten(2)[0].T
        return x + position


class VisionAttention(nn.Module):
    """Full self-attention with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = config.num_attention_heads

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, N, C]` to `[B, N, C]`."""
        batch, tokens, width = x.shape
        q, k, v = (
            layer(x).reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Spelled out: the fused backward of PyTorch on CPUs is four times as slow at this few tokens.
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        y = scores.softmax(dim=-1) @ v
        return cast(Tensor, self.out_proj(y.transpose(1, 2).reshape(batch, tokens, width)))


class VisionMlp(nn.Module):
    """Two linears around a tanh GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, N, C]` to `[B, N, C]`."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x), approximate="tanh")))


class VisionLayer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = VisionMlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, N, C]` to `[B, N, C]`."""
        x = x + self.self_attn(self.layer_norm1(x))
        return cast(Tensor, x + self.mlp(self.layer_norm2(x)))


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))


class VisionModel(nn.Module):
    """Embeddings, blocks and the post-norm that only the pooled output of the vision stage uses."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class SiglipTower(nn.Module):
    """A SigLIP vision tower without class token and without pooling head."""

    def __init__(self, config: VisionConfig, select_layer: int = -1) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionModel(config)
        layers = config.num_hidden_layers
        self.depth = layers + 1 + select_layer if select_layer < 0 else select_layer

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels `[B, 3, S, S]` in [-1, 1] to the selected hidden state `[B, N, C]`."""
        x = self.vision_model.embeddings(pixels)
        for layer in list(self.vision_model.encoder.layers)[: self.depth]:
            x = layer(x)
        return cast(Tensor, x)


def space_to_depth(features: Tensor) -> Tensor:
    """Joins 2x2 blocks of a square grid, zero-padded to even: `[B, g*g, C]` to `[B, ceil(g/2)^2, 4C]`, column-major."""
    batch, tokens, width = features.shape
    side = round(tokens**0.5)
    grid = F.pad(features.reshape(batch, side, side, width), (0, 0, 0, side % 2, 0, side % 2))
    half = (side + 1) // 2
    blocks = grid.reshape(batch, half, 2, half, 2, width).permute(0, 3, 1, 2, 4, 5)
    return blocks.reshape(batch, half * half, 4 * width)


class Downsample(nn.Module):
    """The parameter-free head of the projector's sequence."""

    def forward(self, features: Tensor) -> Tensor:
        """See `space_to_depth`."""
        return space_to_depth(features)


class Projector(nn.Module):
    """The `mlp_downsample` connector: every 2x2 block of patches becomes one row of the LLM."""

    def __init__(self, vision_width: int, llm_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Downsample(),
            nn.LayerNorm(4 * vision_width),
            nn.Linear(4 * vision_width, llm_width),
            nn.GELU(),
            nn.Linear(llm_width, llm_width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Maps features `[B, N, C]` to rows `[B, T, H]`."""
        return cast(Tensor, self.layers(features))


class RmsNorm(nn.Module):
    """Root-mean-square norm in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[..., C]` to `[..., C]`."""
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps)


class LlamaAttention(nn.Module):
    """Causal self-attention with grouped keys and rotary positions."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        width, dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(width, config.num_attention_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * dim, width, bias=False)
        self.dim = dim
        self.repeat = config.num_attention_heads // config.num_key_value_heads

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Maps `[B, L, C]` to `[B, L, C]`; `cos` and `sin` are `[L, dim]`, `mask` as in `attend`."""
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).reshape(batch, length, -1, self.dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (rotate(t, cos, sin).to(v.dtype) for t in (q, k))
        if self.repeat > 1:
            k, v = (t.repeat_interleave(self.repeat, dim=1) for t in (k, v))
        y = attend(q, k, v, mask)
        return cast(Tensor, self.o_proj(y.transpose(1, 2).reshape(batch, length, -1)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of `[B, H, L, dim]` where `mask` `[B, 1, L, L]` is true; causal without one.

    Spelled out on CPUs: the fused backward of PyTorch is slow there.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
    if mask is None:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


def document_mask(document: Tensor) -> Tensor:
    """Which place sees which in packed rows: `[B, L]` document numbers to `[B, 1, L, L]`, causal within a document."""
    length = document.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=document.device).tril()
    return ((document[:, :, None] == document[:, None, :]) & causal)[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + dim/2) of `[B, H, L, dim]` by their positions' angles."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class LlamaMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, L, C]` to `[B, L, C]`."""
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class LlamaLayer(nn.Module):
    """One pre-norm decoder block."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Maps `[B, L, C]` to `[B, L, C]`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return cast(Tensor, x + self.mlp(self.post_attention_layernorm(x)))


class LlamaModel(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """A Llama decoder; with `tie_word_embeddings` the head is the embedding table."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaModel(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, rows: Tensor, document: Tensor | None = None) -> Tensor:
        """Runs the decoder on embedded rows.

        Args:
            rows: `[B, L, C]`, at positions 0..L-1.
            document: `[B, L]`; places with different numbers do not see each other. Rotary positions are relative, so
                a document that begins in the middle of a row gives what it would give alone.

        Returns:
            Normalised states `[B, L, C]`.
        """
        config = self.config
        steps = torch.arange(0, config.head_dim, 2, device=rows.device, dtype=torch.float32) / config.head_dim
        places = torch.arange(rows.shape[1], device=rows.device, dtype=torch.float32)
        angles = places[:, None] / config.rope_theta**steps
        cos, sin = (f(angles).repeat(1, 2) for f in (torch.cos, torch.sin))
        mask = None if document is None else document_mask(document)
        x = rows
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return cast(Tensor, self.model.norm(x))

    def logits(self, states: Tensor) -> Tensor:
        """Maps states `[..., C]` to logits `[..., V]`."""
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return F.linear(states, head.weight)


class Vila(nn.Module):
    """Tower, projector and decoder, with the splice of `<image>` marks (id -200)."""

    def __init__(self, config: VilaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = SiglipTower(config.vision, config.select_layer)
        self.mm_projector = Projector(config.vision.hidden_size, config.llm.hidden_size)
        self.llm = Llama(config.llm)
        initialise(self)

    def encode(self, pixels: Tensor) -> Tensor:
        """Maps pictures `[B, 3, S, S]` to LLM rows `[B, T, H]`."""
        return cast(Tensor, self.mm_projector(self.vision_tower(pixels)))

    def splice(self, ids: Tensor, visual: Tensor, source: Tensor) -> Tensor:
        """Embeds ids and puts visual rows where they belong.

        Args:
            ids: `[B, L]`; places of visual rows hold any valid id.
            visual: `[n_rows, H]`, the rows of all pictures of the batch, one after the other.
            source: `[B, L]`; row of `visual` to take, or -1 for the embedding.

        Returns:
            Rows `[B, L, H]`.
        """
        rows = self.llm.model.embed_tokens(ids)
        if visual.numel() == 0:
            return cast(Tensor, rows)
        # Every visual row is taken once, so no two gradients meet in one row: sums over equal indices are slow on GPUs.
        shown = source >= 0
        return rows.masked_scatter(shown[..., None], visual.to(rows.dtype).index_select(0, source[shown]))


def initialise(model: nn.Module) -> None:
    """Draws the weights: linears by 1/sqrt(fan-in), embeddings by 0.02, biases zero, last layers of blocks smaller."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            scale = 0.4 if name.endswith(("out_proj", "fc2", "o_proj", "down_proj")) else 1.0
            nn.init.trunc_normal_(module.weight, std=scale * fan_in**-0.5 * 0.8)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def count_parameters(model: nn.Module) -> int:
    """Number of scalars that a model holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def part_state(model: nn.Module) -> Mapping[str, Tensor]:
    """A module's tensors as contiguous fp32 on the CPU."""
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
