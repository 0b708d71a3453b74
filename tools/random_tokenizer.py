"""Tokenizers of our own in the published file formats, of any size: all strings of one to four small letters.

They need no training and no published vocabulary; random_checkpoint.py puts them beside random weights.
"""

from __future__ import annotations

import itertools
import json
import string
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["llama_2", "llama_3", "yi"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece's types of pieces
SPACE = "\u2581"
MAX_LENGTH = 4096
LLAMA_3_RESERVED = 256
YI_PIECES = ("<|im_start|>", "<|im_end|>")
LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def write_tokenizer(folder: Path, kind: Kind, vocab_size: int) -> dict[str, int]:
    """Writes the tokenizer files of an llm/ folder.

    Args:
        folder: The folder.
        kind: Llama-2 (SentencePiece), Llama-3 (byte-level, `[PAD]` last), or Yi (SentencePiece with ChatML pieces).
        vocab_size: Number of pieces, all special ones included.

    Returns:
        The ids "bos", "eos" and "pad".
    """
    if kind == "llama_3":
        return _write_byte_level(folder, vocab_size)
    return _write_sentencepiece(folder, vocab_size, chat_ml=kind == "yi")


def _words(space: str) -> Iterator[tuple[str, str]]:
    """Pairs whose joint is a piece of letters, shorter ones first: every left part was a joint or letter before."""
    for length in (1, 2, 3, 4):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            word = "".join(letters)
            yield (space + word[:-1], word[-1])
            if length > 1:
                yield (word[:-1], word[-1])


def _field(number: int, value: bytes | int | float) -> bytes:
    """One field of a protocol buffers message."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _write_sentencepiece(folder: Path, vocab_size: int, *, chat_ml: bool) -> dict[str, int]:
    bos, eos = ("<|startoftext|>", "<|endoftext|>") if chat_ml else ("<s>", "</s>")
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), (bos, 0.0, CONTROL), (eos, 0.0, CONTROL)]
    pieces += [(piece, 0.0, USER_DEFINED) for piece in YI_PIECES if chat_ml]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    characters = [SPACE, *(chr(code) for code in range(0x21, 0x7F))]
    n_merged = vocab_size - len(pieces) - len(characters)
    merged = (left + right for left, right in _words(SPACE))
    pieces += [(word, -float(rank), NORMAL) for rank, word in enumerate(itertools.islice(merged, max(n_merged, 0)))]
    pieces += [(character, -float(vocab_size), NORMAL) for character in characters]
    if len(pieces) != vocab_size:
        raise ValueError(f"vocab_size: expected at least {len(pieces)}, got {vocab_size}")
    trainer = _field(3, 2) + _field(4, vocab_size) + _field(35, 1)  # BPE, size, byte fallback
    normalizer = _field(1, b"identity") + _field(3, 1) + _field(4, 0)  # dummy prefix, white space is kept
    model = b"".join(
        _field(1, _field(1, piece.encode()) + _field(2, score) + _field(3, kind)) for piece, score, kind in pieces
    )
    (folder / "tokenizer.model").write_bytes(model + _field(2, trainer) + _field(3, normalizer))
    end = YI_PIECES[1] if chat_ml else eos
    ids = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    special = {"bos_token": bos, "eos_token": end, "pad_token": "<unk>", "unk_token": "<unk>"}
    added = {ids[content]: content for content in ("<unk>", bos, eos, end)}
    _write_configuration(folder, special, added, tokenizer_class="LlamaTokenizer", add_bos_token=not chat_ml)
    return {"bos": ids[bos], "eos": ids[end], "pad": ids["<unk>"]}


def _byte_characters() -> list[str]:
    """GPT-2's printable character of every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def _write_byte_level(folder: Path, vocab_size: int) -> dict[str, int]:
    characters = _byte_characters()
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(LLAMA_3_RESERVED - len(names))] + ["[PAD]"]
    n_base = vocab_size - len(names)
    merges = list(itertools.islice(_words(characters[ord(" ")]), max(n_base - len(characters), 0)))
    vocab = {piece: index for index, piece in enumerate([*characters, *(left + right for left, right in merges)])}
    if len(vocab) != n_base:
        raise ValueError(f"vocab_size: expected at least {len(vocab) + len(names)}, got {vocab_size}")
    ids = {name: n_base + index for index, name in enumerate(names)}
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3_PATTERN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    description: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, **_flags(name)} for name, index in ids.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": [" ".join(pair) for pair in merges]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(description, separators=(",", ":")) + "\n", encoding="utf-8")
    special = {"bos_token": names[0], "eos_token": names[1], "pad_token": names[-1]}
    added = {index: name for name, index in ids.items()}
    _write_configuration(folder, special, added, tokenizer_class="PreTrainedTokenizerFast")
    return {"bos": ids[names[0]], "eos": ids[names[1]], "pad": ids[names[-1]]}


def _flags(content: str) -> dict[str, Any]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": content, **plain, "special": True}


def _write_configuration(folder: Path, special: dict[str, str], added: dict[int, str], **more: str | bool) -> None:
    config = {
        "added_tokens_decoder": {str(index): _flags(content) for index, content in sorted(added.items())},
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        **more,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
