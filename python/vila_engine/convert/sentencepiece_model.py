"""Reads SentencePiece's model file: a message of protocol buffers, of which a BPE tokenizer needs little."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vila_engine._core import CheckpointError, IoError, UnsupportedError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE_MODEL_TYPE = 2
MAX_VARINT_SHIFT = 63


@dataclass(frozen=True)
class SentencePieceModel:
    """Pieces in UTF-8, their scores and types, and two flags of the normaliser."""

    pieces: list[bytes]
    scores: list[float]
    types: list[int]
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads the parts of a ModelProto that BPE with the identity normaliser needs.

    Raises:
        CheckpointError: the file is damaged.
        UnsupportedError: another kind of model or normaliser.
        IoError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IoError(f"[tokenizer] {path}: expected a readable file, got {error.strerror or error}") from error
    try:
        return _parse(data, path)
    except (IndexError, TypeError, AttributeError, struct.error) as error:
        # Fields end behind the file, or are of another wire type than they must be.
        raise CheckpointError(f"[tokenizer] {path}: expected a SentencePiece model, got a broken file") from error


def _parse(data: bytes, path: Path) -> SentencePieceModel:
    pieces: list[bytes] = []
    scores: list[float] = []
    types: list[int] = []
    specs: dict[int, dict[int, Any]] = {2: {}, 3: {}, 5: {}}  # trainer, normaliser, denormaliser
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            pieces.append(bytes(memoryview(piece.get(1, b""))))
            scores.append(struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0])
            types.append(piece.get(3, NORMAL))
        elif number in specs:
            specs[number].update(_fields(value))
    if not pieces or not set(types) <= set(range(NORMAL, BYTE + 1)):
        got = f"{len(pieces)} pieces of types {sorted(set(types))[:10]}"
        raise CheckpointError(f"[tokenizer] {path}: expected pieces of types {NORMAL} to {BYTE}, got {got}")
    trainer, normalizer, denormalizer = specs.values()
    problems = []
    if trainer.get(3, 1) != BPE_MODEL_TYPE:
        problems.append(f"model type: expected {BPE_MODEL_TYPE} (BPE), got {trainer.get(3, 1)}")
    if trainer.get(24, 0):
        problems.append("treat_whitespace_as_suffix: expected false, got true")
    if normalizer.get(2) or denormalizer.get(2):
        problems.append(f"normaliser: expected identity, got {normalizer.get(1, b'').decode(errors='replace')!r}")
    if not normalizer.get(5, 1):
        problems.append("escape_whitespaces: expected true, got false")
    if problems:
        raise UnsupportedError(f"[tokenizer] {path}: {'; '.join(problems)}")
    return SentencePieceModel(pieces, scores, types, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message; a value is an int or the bytes of any other wire type."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > MAX_VARINT_SHIFT:
                raise IndexError

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(data) - at:
            raise IndexError
        at += size
        return data[at - size : at]

    while at < len(data):
        key = varint()
        wire = key & 7
        if wire not in {0, 1, 2, 5}:
            raise IndexError
        if wire == 0:
            yield key >> 3, varint()
        else:
            yield key >> 3, take({1: 8, 5: 4}[wire] if wire != 2 else varint())
