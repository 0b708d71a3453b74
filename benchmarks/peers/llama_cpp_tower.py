"""llama.cpp's own picture encoder (libmtmd): a GGUF of a SigLIP tower in Q8_0, and the call that is timed.

libmtmd has no mlp_downsample for towers with an odd grid. The nearest that it runs on a SigLIP tower of exactly this
grid is `janus_pro`: two linears on each patch, without the 2 x 2 join. That is one percent more work than VILA's.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Q8_0 = gguf.GGMLQuantizationType.Q8_0
BLOCK = 32  # columns of a block of Q8_0


class PictureEncoder:
    """A loaded tower with the faster kind of attention.

    Pictures are random; resizing and normalising them is not timed.
    """

    def __init__(self, path: Path, shape: dict[str, Any], threads: int) -> None:
        from llama_cpp import mtmd_cpp

        self.api = mtmd_cpp
        self.n_bytes = path.stat().st_size
        self.side = shape["vision"]["image_size"]
        self.patches = (self.side // shape["vision"]["patch_size"]) ** 2
        self.random = np.random.default_rng(0)
        self.flash_attention = min((True, False), key=lambda flash: self._trial(path, threads, flash))
        self.context = self._load(path, threads, self.flash_attention)

    def encode(self) -> tuple[float, Any]:
        """Encodes a new picture: seconds, and its rows as floats that the next call overwrites."""
        chunks = self._prepared()
        chunk = self.api.mtmd_input_chunks_get(chunks, 0)
        rows = self.api.mtmd_input_chunk_get_n_tokens(chunk)
        if rows != self.patches:
            raise SystemExit(f"llama.cpp: expected {self.patches} rows of a picture, got {rows}")
        started = time.perf_counter()
        status = self.api.mtmd_encode_chunk(self.context, chunk)
        seconds = time.perf_counter() - started
        self.api.mtmd_input_chunks_free(chunks)
        if status:
            raise SystemExit(f"mtmd_encode_chunk: status {status}")
        return seconds, self.api.mtmd_get_output_embd(self.context)

    def _load(self, path: Path, threads: int, flash: bool) -> Any:
        params = self.api.mtmd_context_params_default()
        params.use_gpu = params.print_timings = False
        params.n_threads = threads
        params.flash_attn_type = int(flash)
        context = self.api.mtmd_init_from_file(str(path).encode(), None, params)
        if not context:
            raise SystemExit(f"{path}: llama.cpp does not load it")
        return context

    def _trial(self, path: Path, threads: int, flash: bool) -> float:
        """Seconds that a picture takes with one kind of attention: which is faster depends on the build."""
        self.context = self._load(path, threads, flash)
        seconds = min(self.encode()[0] for _ in range(2))
        self.api.mtmd_free(self.context)
        return seconds

    def _prepared(self) -> Any:
        """A new picture as the only chunk of an input."""
        pixels = self.random.integers(0, 256, self.side * self.side * 3, np.uint8)
        data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = self.api.mtmd_bitmap_init(self.side, self.side, data)
        marker = self.api.mtmd_default_marker()
        text = self.api.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        chunks = self.api.mtmd_input_chunks_init()
        bitmaps = (self.api.mtmd_bitmap_p_ctypes * 1)(bitmap)
        status = self.api.mtmd_tokenize(self.context, chunks, ctypes.byref(text), bitmaps, 1)
        self.api.mtmd_bitmap_free(bitmap)
        if status:
            raise SystemExit(f"mtmd_tokenize: status {status}")
        return chunks


def write_tower(shape: dict[str, Any], path: Path) -> None:
    """Writes a GGUF: one block of random values, written for every block."""
    tower, out = shape["vision"], shape["projector"]["out_dim"]
    dim, ffn, patch = tower["dim"], tower["ffn_dim"], tower["patch_size"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("clip.projector_type", "janus_pro")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "image_size": tower["image_size"], "patch_size": patch, "embedding_length": dim, "feed_forward_length": ffn,
        "block_count": tower["n_layers"], "attention.head_count": tower["n_heads"], "projection_dim": out,
    }  # fmt: skip
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", tower["norm_eps"])
    writer.add_array("clip.vision.image_mean", shape["image"]["mean"])
    writer.add_array("clip.vision.image_std", shape["image"]["std"])
    random = np.random.default_rng(0)
    patches = (tower["image_size"] // patch) ** 2
    writer.add_tensor("v.patch_embd.weight", _normal(random, dim, 3 * patch**2).reshape(dim, 3, patch, patch))
    writer.add_tensor("v.patch_embd.bias", np.zeros(dim, np.float32))
    writer.add_tensor("v.position_embd.weight", _normal(random, patches, dim).astype(np.float32))
    linears = {name: (dim, dim) for name in ("attn_q", "attn_k", "attn_v", "attn_out")}
    linears |= {"ffn_up": (ffn, dim), "ffn_down": (dim, ffn)}
    matrices = {name: _normal(random, n, k) for name, (n, k) in linears.items()}
    for i in range(tower["n_layers"]):
        for name in ("ln1", "ln2"):
            writer.add_tensor(f"v.blk.{i}.{name}.weight", np.ones(dim, np.float32))
            writer.add_tensor(f"v.blk.{i}.{name}.bias", np.zeros(dim, np.float32))
        for name, matrix in matrices.items():
            _add_linear(writer, f"v.blk.{i}.{name}", matrix)
    _add_linear(writer, "mm.0", _normal(random, out, dim))
    _add_linear(writer, "mm.1", _normal(random, out, out))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _normal(random: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float16]:
    """Normal values that keep the spread of what they multiply, [n, k]."""
    return (random.standard_normal((n, k), np.float32) * np.float32(k**-0.5)).astype(np.float16)


def _add_linear(writer: gguf.GGUFWriter, name: str, matrix: npt.NDArray[np.float16]) -> None:
    """Adds a matrix, in Q8_0 where its rows are whole blocks and else in F16 as llama.cpp does it, and a bias."""
    if matrix.shape[1] % BLOCK:
        writer.add_tensor(f"{name}.weight", matrix)
    else:
        packed = gguf.quants.quantize(matrix.astype(np.float32), Q8_0)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=Q8_0)
    writer.add_tensor(f"{name}.bias", np.zeros(matrix.shape[0], np.float32))
