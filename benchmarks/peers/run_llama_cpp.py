"""llama.cpp through llama-cpp-python: a GGUF of a shape in Q4_0 beside its picture encoder, and the timed loops."""

from __future__ import annotations

import ctypes
import json
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import serve
from llama_cpp_tower import PictureEncoder, write_tower

Q4_0, Q6_K = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K
MAX_CONTEXT = 4096


class LlamaCpp:
    """A context of llama.cpp. Tokens are given, not chosen: no time of sampling is counted."""

    def __init__(self, folder: Path, threads: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.threads = threads
        self.shape = json.loads((folder / "shape.json").read_text(encoding="utf-8"))
        llama_cpp.llama_backend_init()
        path = str(folder / "llm.gguf").encode()
        self.model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{folder}: llama.cpp does not load llm.gguf")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = MAX_CONTEXT
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.encoder = PictureEncoder(folder / "tower.gguf", self.shape, threads)

    def hello(self) -> dict[str, Any]:
        """See serve.Program."""
        text = self.api.llama_print_system_info().decode()
        size = self.api.llama_model_size(self.model)
        return {"version": self.api.__version__, "isa": text, "threads": self.threads,
                "tower_flash_attention": self.encoder.flash_attention,
                "model": {"Q4_0, Q6_K": size, "tower Q8_0, F16": self.encoder.n_bytes}}  # fmt: skip

    def prefill(self, tokens: int) -> float:
        """See serve.Program."""
        self._clear()
        return self._run(tokens)

    def decode(self, context: int, tokens: int) -> float:
        """See serve.Program."""
        self.prefill(context)
        return sum(self._run(1) for _ in range(tokens))

    def vision(self) -> float:
        """See serve.Program: from pixels that llama.cpp has resized and normalised."""
        return self.encoder.encode()[0]

    def first_token(self, question: int) -> float:
        """See serve.Program; the prompt has as many rows of the picture as VILA's projector makes."""
        self._clear()
        seconds, rows = self.encoder.encode()
        return seconds + self._run_rows(rows, serve.image_rows(self.shape)) + self._run(question)

    def _clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def _run(self, tokens: int) -> float:
        """Seconds for some tokens in one batch, with the logits of the last one."""
        ids = (self.api.llama_token * tokens)(*(3 + i % 97 for i in range(tokens)))
        return self._decode(self.api.llama_batch_get_one(ids, tokens))

    def _run_rows(self, rows: Any, n_rows: int) -> float:
        """Seconds for the first `n_rows` rows of floats in one batch."""
        return self._decode(self.api.llama_batch(n_tokens=n_rows, embd=rows))

    def _decode(self, batch: Any) -> float:
        started = time.perf_counter()
        status = self.api.llama_decode(self.context, batch)
        logits = self.api.llama_get_logits_ith(self.context, -1)  # waits for them
        if status or not ctypes.cast(logits, ctypes.c_void_p):
            raise SystemExit(f"llama_decode: status {status}")
        return time.perf_counter() - started


def make(shape: dict[str, Any], folder: Path) -> None:
    """Writes both files and the shape."""
    (folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
    write_llm(shape["llm"], folder / "llm.gguf")
    write_tower(shape, folder / "tower.gguf")


def write_llm(shape: dict[str, Any], path: Path) -> None:
    """Writes a GGUF: one layer of random values, written for every layer; no vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(MAX_CONTEXT)
    writer.add_embedding_length(shape["dim"])
    writer.add_block_count(shape["n_layers"])
    writer.add_feed_forward_length(shape["ffn_dim"])
    writer.add_head_count(shape["n_heads"])
    writer.add_head_count_kv(shape["n_kv_heads"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(0)
    dim, ffn, vocab = shape["dim"], shape["ffn_dim"], shape["vocab_size"]
    q_dim, kv_dim = shape["n_heads"] * shape["head_dim"], shape["n_kv_heads"] * shape["head_dim"]
    linears = {
        "attn_q": (q_dim, dim), "attn_k": (kv_dim, dim), "attn_v": (kv_dim, dim), "attn_output": (dim, q_dim),
        "ffn_gate": (ffn, dim), "ffn_up": (ffn, dim), "ffn_down": (dim, ffn),
    }  # fmt: skip
    layer = {name: _q4_0(random, n, k) for name, (n, k) in linears.items()}
    ones = np.ones(dim, np.float32)
    writer.add_tensor("token_embd.weight", _q4_0(random, vocab, dim), raw_dtype=Q4_0)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", _q6_k(random, vocab, dim), raw_dtype=Q6_K)
    for i in range(shape["n_layers"]):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", ones)
        for name, data in layer.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", data, raw_dtype=Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _q4_0(random: np.random.Generator, n: int, k: int) -> npt.NDArray[np.uint8]:
    """Normal values in Q4_0 [n, bytes of a row]."""
    block = random.standard_normal((256, k), np.float32) * np.float32(k**-0.5)
    packed = gguf.quants.quantize(block, Q4_0)
    return np.resize(packed, (n, packed.shape[1]))


def _q6_k(random: np.random.Generator, n: int, k: int) -> npt.NDArray[np.uint8]:
    """Random bytes in Q6_K [n, bytes of a row]: low bits, high bits, scales, and last in a block a small factor."""
    size, n_bytes = gguf.GGML_QUANT_SIZES[Q6_K]
    packed = random.integers(0, 256, (256, k // size, n_bytes), np.uint8)
    packed[..., -2:] = np.frombuffer(np.float16(1e-5).tobytes(), np.uint8)
    return np.resize(packed, (n, k // size * n_bytes))


if __name__ == "__main__":
    serve.main(make, LlamaCpp)
