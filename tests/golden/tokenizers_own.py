"""Trains the fixtures' own tokenizers and writes them in the shape in which published checkpoints carry them.

Two sentencepiece BPE models (Llama-2 style, and Yi style without BOS and with ChatML pieces) and a byte-level BPE
with Llama-3's splitting pattern, with or without an automatic BOS.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece as spm
from corpus import sentences
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_2|>",
    "<|eot_id|>",
)
YI_PIECES = ("<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>")
MAX_LENGTH = 4096


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes one JSON file in the way that transformers does."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _flags(content: str) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _train_spm(vocab_size: int, bos: str, eos: str, user_defined: tuple[str, ...]) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=0.98,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=list(user_defined),
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        bos_piece=bos,
        eos_piece=eos,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _write_spm(folder: Path, model: bytes, special: dict[str, str], added: dict[int, str], add_bos: bool) -> None:
    (folder / "tokenizer.model").write_bytes(model)
    write_json(folder / "special_tokens_map.json", {role: _flags(content) for role, content in special.items()})
    config: dict[str, Any] = {
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): {**_flags(content), "special": True} for i, content in added.items()},
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "use_default_system_prompt": False,
    }
    write_json(folder / "tokenizer_config.json", config | special)


def write_llama_2_style(folder: Path, vocab_size: int) -> dict[str, int]:
    """Writes `tokenizer.model` with BOS 1, EOS 2, padding by `<unk>`; returns the ids that configurations need."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    added = {0: "<unk>", 1: "<s>", 2: "</s>"}
    _write_spm(folder, _train_spm(vocab_size, "<s>", "</s>", ()), special, added, add_bos=True)
    return {"vocab": vocab_size, "bos": 1, "eos": 2, "pad": 0}


def write_yi_style(folder: Path, vocab_size: int) -> dict[str, int]:
    """Writes `tokenizer.model` without automatic BOS whose ChatML tokens are user-defined pieces; EOS `<|im_end|>`."""
    model = _train_spm(vocab_size, "<|startoftext|>", "<|endoftext|>", YI_PIECES)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<unk>", "unk_token": "<unk>"}
    end = 3 + YI_PIECES.index("<|im_end|>")
    added = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", end: "<|im_end|>"}
    _write_spm(folder, model, special, added, add_bos=False)
    return {"vocab": vocab_size, "bos": 1, "eos": end, "pad": 0}


def _train_byte_bpe(n_base: int) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=n_base, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(), trainer)
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    return description


def _post_processor(auto_bos: bool, bos_id: int) -> dict[str, Any]:
    byte_level = json.loads(processors.ByteLevel(trim_offsets=False).__getstate__())
    if not auto_bos:
        return dict(byte_level)
    bos = LLAMA_3_SPECIAL[0]
    start, second = ({"SpecialToken": {"id": bos, "type_id": i}} for i in (0, 1))
    sequence_a, sequence_b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    template = {
        "type": "TemplateProcessing",
        "single": [start, sequence_a],
        "pair": [start, sequence_a, second, sequence_b],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }
    return {"type": "Sequence", "processors": [byte_level, template]}


def write_llama_3_style(folder: Path, n_base: int, auto_bos: bool) -> dict[str, int]:
    """Writes `tokenizer.json`: bytes and merges, then the special tokens, `[PAD]` last.

    Merges are written as "left right" strings with automatic BOS and as pairs without: both spellings are published.
    """
    description = _train_byte_bpe(n_base)
    contents = [*LLAMA_3_SPECIAL, "[PAD]"]
    ids = {content: n_base + index for index, content in enumerate(contents)}
    added = [{"id": i, **_flags(content), "special": True} for content, i in ids.items()]
    description["added_tokens"] = added
    description["post_processor"] = _post_processor(auto_bos, n_base)
    model = description["model"]
    if len(model["vocab"]) != n_base:
        raise ValueError(f"expected {n_base} pieces, got {len(model['vocab'])}")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [" ".join(pair) for pair in pairs] if auto_bos else pairs
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "[PAD]"}
    write_json(folder / "special_tokens_map.json", special)
    config: dict[str, Any] = {
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", config | special)
    return {"vocab": n_base + len(contents), "bos": n_base, "eos": n_base + 1, "pad": n_base + len(contents) - 1}
