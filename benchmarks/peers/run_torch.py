"""PyTorch in f32: the SigLIP tower and the mlp_downsample projector of a shape, from PyTorch's own modules."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import serve
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """One pre-norm block of the tower; attention is PyTorch's fused one."""

    def __init__(self, tower: dict[str, Any]) -> None:
        super().__init__()
        dim, eps = tower["dim"], tower["norm_eps"]
        self.heads = tower["n_heads"]
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(dim, tower["ffn_dim"]), nn.Linear(tower["ffn_dim"], dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [1, P, C] to [1, P, C]."""
        y = self.norm1(x)
        q, k, v = (linear(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Encoder(nn.Module):
    """Pixels [1, 3, S, S] to rows of the language model [1, T, C]."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        tower, projector = shape["vision"], shape["projector"]
        dim, out = tower["dim"], projector["out_dim"]
        self.grid = tower["image_size"] // tower["patch_size"]
        self.patches = nn.Conv2d(3, dim, tower["patch_size"], tower["patch_size"])
        self.positions = nn.Parameter(0.02 * torch.randn(self.grid**2, dim))
        self.blocks = nn.Sequential(*(Block(tower) for _ in range(tower["n_layers"])))
        self.project = nn.Sequential(nn.LayerNorm(4 * dim), nn.Linear(4 * dim, out), nn.GELU(), nn.Linear(out, out))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps [1, 3, S, S] to [1, T, C]."""
        x = self.blocks(self.patches(pixels).flatten(2).transpose(1, 2) + self.positions)
        odd = self.grid % 2
        plane = F.pad(x.unflatten(1, (self.grid, self.grid)), (0, 0, 0, odd, 0, odd))
        half = (self.grid + odd) // 2
        joined = plane.unflatten(2, (half, 2)).unflatten(1, (half, 2)).transpose(2, 3)
        return self.project(joined.flatten(3).flatten(1, 2))


class Torch:
    """An encoder with random weights."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.shape = json.loads((folder / "shape.json").read_text(encoding="utf-8"))
        self.encoder = Encoder(self.shape).eval()

    def hello(self) -> dict[str, Any]:
        """See serve.Program."""
        size = 4 * sum(parameter.numel() for parameter in self.encoder.parameters())
        capability = torch.backends.cpu.get_cpu_capability()
        return {"version": torch.__version__, "isa": capability, "threads": torch.get_num_threads(),
                "model": {"f32": size}}  # fmt: skip

    @torch.inference_mode()
    def vision(self) -> float:
        """See serve.Program: from normalised pixels."""
        side = self.shape["vision"]["image_size"]
        pixels = 2 * torch.rand(1, 3, side, side) - 1
        started = time.perf_counter()
        rows = self.encoder(pixels)
        seconds = time.perf_counter() - started
        expected = (1, serve.image_rows(self.shape), self.shape["projector"]["out_dim"])
        if rows.shape != expected or not torch.isfinite(rows).all():
            raise SystemExit(f"PyTorch: expected finite rows {expected}, got {tuple(rows.shape)}")
        return seconds


def make(shape: dict[str, Any], folder: Path) -> None:
    """Writes the shape alone: weights are drawn when it is loaded."""
    (folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")


if __name__ == "__main__":
    serve.main(make, Torch)
