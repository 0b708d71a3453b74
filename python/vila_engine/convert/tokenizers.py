"""Reads published tokenizer files into one plain description, and writes that as configuration and tensors.

The description ("spec") is a dictionary with the fields of the C++ TokenizerSpec: kind, pieces (list of bytes), scores,
types, merges, pretokenizer, ignore_merges, add_bos, add_eos, legacy, add_dummy_prefix, remove_extra_whitespaces,
clean_up_spaces, bos_id, eos_id, unk_id, pad_id, special_tokens, added_tokens. docs/FORMATS.md says what they mean.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vila_engine._core import CheckpointError, IoError, UnsupportedError
from vila_engine.convert.sentencepiece_model import NORMAL, UNUSED, read_sentencepiece

Spec = dict[str, Any]
Tensors = dict[str, npt.NDArray[np.generic]]

LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
GPT_2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {LLAMA_3_PATTERN: "llama3", GPT_2_PATTERN: "gpt2"}

ADDED = 0  # beside SentencePiece's types
MAX_VOCABULARY = 1 << 20  # larger ids are damage, and would take memory
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKEN_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def read_tokenizer(llm_dir: Path, *, legacy: bool = False) -> Spec:
    """Reads a tokenizer folder: tokenizer.model if it is there (as VILA does, use_fast=False), else tokenizer.json.

    Args:
        llm_dir: Folder with tokenizer_config.json and one of the two files.
        legacy: transformers' behaviour before its pull request 24565 (SentencePiece only). VILA forces False.

    Returns:
        The spec.

    Raises:
        CheckpointError: files or entries are missing or contradict each other; all that is missing is listed.
        UnsupportedError: the tokenizer is of a kind that the engine does not implement.
    """
    llm_dir = Path(llm_dir)
    has_model = (llm_dir / "tokenizer.model").is_file()
    missing = [] if has_model or (llm_dir / "tokenizer.json").is_file() else ["tokenizer.model or tokenizer.json"]
    if not (llm_dir / "tokenizer_config.json").is_file():
        missing.append("tokenizer_config.json")
    if missing:
        found = sorted(path.name for path in llm_dir.iterdir()) if llm_dir.is_dir() else "no such folder"
        raise CheckpointError(f"[tokenizer] {llm_dir}: expected {' and '.join(missing)}, got {found}")
    try:
        files = _Files(llm_dir)
        return _read_spm(files, legacy) if has_model else _read_byte_level(files)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # JSON can hold anything anywhere; every place that is not what transformers writes ends here.
        got = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(
            f"[tokenizer] {llm_dir}: expected the files that transformers writes, got {got}"
        ) from error


def add_special_token(spec: Spec, content: str) -> None:
    """Adds a special token behind the last piece, as transformers' add_tokens(special_tokens=True) does."""
    index = len(spec["pieces"])
    spec["pieces"].append(content.encode())
    spec["types"].append(ADDED)
    if "scores" in spec:
        spec["scores"].append(0.0)
    spec["added_tokens"].append(_added_token(index, {"content": content, "special": True}))


class _Files:
    """The JSON files around a tokenizer, with the names of its special tokens worked out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self.load("tokenizer_config.json")
        special_map = self.load("special_tokens_map.json")
        # With added_tokens_decoder the configuration is complete; before that existed, the map was what counted.
        first, second = self.config, special_map
        if "added_tokens_decoder" not in self.config:
            first, second = special_map, self.config
        self.named = {name: _content(first.get(name) or second.get(name)) for name in NAMED_TOKENS}
        additional = first.get("additional_special_tokens") or second.get("additional_special_tokens") or []
        self.additional = [content for token in additional if (content := _content(token)) is not None]
        self.flags = {
            content: token
            for source in (second, first)
            for token in (*map(source.get, NAMED_TOKENS), *(source.get("additional_special_tokens") or []))
            if isinstance(token, dict) and (content := _content(token)) is not None
        }

    def load(self, name: str) -> dict[str, Any]:
        """A JSON object, empty if there is no such file."""
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise IoError(f"[tokenizer] {path}: expected a readable file, got {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"[tokenizer] {path}: expected JSON, got {error}") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"[tokenizer] {path}: expected a JSON object, got {type(value).__name__}")
        return value

    def special_contents(self) -> list[str]:
        """Contents of all named special tokens, each once, in transformers' order."""
        contents = [content for content in self.named.values() if content is not None] + self.additional
        return list(dict.fromkeys(contents))

    def added_tokens(self) -> list[dict[str, Any]]:
        """Added tokens of the configuration or, in older folders, of added_tokens.json."""
        if "added_tokens_decoder" in self.config:
            return [_added_token(int(index), token) for index, token in self.config["added_tokens_decoder"].items()]
        special = set(self.special_contents())
        tokens = []
        for content, index in self.load("added_tokens.json").items():
            flags = {"special": content in special, "normalized": content not in special}
            tokens.append(_added_token(int(index), {"content": content, **flags}))
        return tokens


def _content(token: Any) -> str | None:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) and value else None


def _checked_id(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_VOCABULARY:
        raise CheckpointError(f"[tokenizer] expected ids from 0 to {MAX_VOCABULARY - 1}, got {str(value)[:80]}")
    return value


def _added_token(index: int, token: dict[str, Any]) -> dict[str, Any]:
    flags = {flag: bool(token.get(flag, False)) for flag in ADDED_TOKEN_FLAGS}
    return {"id": index, "content": token["content"], **flags}


class _Vocabulary:
    """Pieces with added tokens put in place."""

    def __init__(self, pieces: list[bytes], types: list[int], scores: list[float]) -> None:
        self.pieces = pieces
        self.types = types
        self.scores = scores
        self.added: dict[str, dict[str, Any]] = {}
        self.known = {piece: index for index, piece in enumerate(pieces) if types[index] != UNUSED or piece}

    def add(self, token: dict[str, Any], spelling: bytes | None = None) -> None:
        """Puts an added token in place; `spelling` is how the model writes it, its UTF-8 unless given.

        Raises CheckpointError if the model has another piece at its id.
        """
        index = _checked_id(token["id"])
        content = token["content"].encode()
        while len(self.pieces) <= index:
            self.pieces.append(b"")
            self.types.append(UNUSED)
            self.scores.append(0.0)
        if not self.pieces[index]:
            self.pieces[index] = content
            self.types[index] = ADDED
        elif self.pieces[index] not in {content, spelling}:
            known = self.pieces[index]
            raise CheckpointError(f"[tokenizer] id {index}: expected the model's piece {known!r}, got {content!r}")
        self.added[token["content"]] = token

    def id_of(self, content: str) -> int | None:
        """Id of an added token or of a piece."""
        return self.added[content]["id"] if content in self.added else self.known.get(content.encode())

    def add_missing(self, contents: list[str], flags: dict[str, dict[str, Any]]) -> None:
        """Adds special tokens as transformers does: at the model's id if it knows them, else at the end."""
        for content in contents:
            if content not in self.added:
                known = self.known.get(content.encode())
                index = len(self.pieces) if known is None else known
                self.add(_added_token(index, {**flags.get(content, {}), "content": content, "special": True}))


def _finish(files: _Files, vocabulary: _Vocabulary, special: dict[str, Any]) -> Spec:
    """The fields that both kinds have."""
    names = files.named
    ids = {f"{name}_id": vocabulary.id_of(names[f"{name}_token"] or "") for name in ("bos", "eos", "unk", "pad")}
    return {
        "pieces": vocabulary.pieces,
        "types": vocabulary.types,
        "clean_up_spaces": bool(files.config.get("clean_up_tokenization_spaces", False)),
        **ids,
        "special_tokens": files.special_contents(),
        "added_tokens": sorted(vocabulary.added.values(), key=lambda token: int(token["id"])),
        **special,
    }


def _read_spm(files: _Files, legacy: bool) -> Spec:
    model = read_sentencepiece(files.folder / "tokenizer.model")
    for name, content in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")):
        files.named[name] = files.named[name] or content
    vocabulary = _Vocabulary(model.pieces, model.types, model.scores)
    for token in sorted(files.added_tokens(), key=lambda token: int(token["id"])):
        vocabulary.add(token)
    vocabulary.add_missing(files.special_contents(), files.flags)
    return _finish(
        files,
        vocabulary,
        {
            "kind": "spm_bpe",
            "scores": vocabulary.scores,
            "add_bos": bool(files.config.get("add_bos_token", True)),
            "add_eos": bool(files.config.get("add_eos_token", False)),
            "legacy": legacy,
            "add_dummy_prefix": model.add_dummy_prefix,
            "remove_extra_whitespaces": model.remove_extra_whitespaces,
        },
    )


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character of every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _spelled(text: str, alphabet: dict[str, int]) -> bytes:
    """The bytes that a byte-level piece stands for; text with other characters is itself."""
    return bytes(alphabet[c] for c in text) if all(c in alphabet for c in text) else text.encode()


def _read_byte_level(files: _Files) -> Spec:
    path = files.folder / "tokenizer.json"
    source = files.load("tokenizer.json")
    model = source.get("model") or {}
    problems = _byte_level_problems(source, model)
    pretokenizer = _pretokenizer_of(source.get("pre_tokenizer"))
    if pretokenizer is None:
        problems.append(f"pre_tokenizer: expected Llama-3's or GPT-2's, got {json.dumps(source.get('pre_tokenizer'))}")
    template = _template_of(source.get("post_processor"))
    if template is None:
        found = json.dumps(source.get("post_processor"))
        problems.append(f"post_processor: expected at most BOS, text, EOS, got {found}")
    if problems or template is None:
        raise UnsupportedError(f"[tokenizer] {path}: {'; '.join(problems)}")

    alphabet = _byte_alphabet()
    vocab: dict[str, int] = {text: _checked_id(index) for text, index in model["vocab"].items()}
    size = max(vocab.values(), default=-1) + 1
    pieces, types = [b""] * size, [UNUSED] * size
    for text, index in vocab.items():
        pieces[index], types[index] = _spelled(text, alphabet), NORMAL
    vocabulary = _Vocabulary(pieces, types, [0.0] * size)
    added = [_added_token(token["id"], token) for token in source.get("added_tokens") or []]
    for token in added + files.added_tokens():
        if token["content"] not in vocabulary.added:
            vocabulary.add(token, _spelled(token["content"], alphabet))
    vocabulary.add_missing(files.special_contents(), files.flags)

    spec = _finish(
        files,
        vocabulary,
        {
            "kind": "byte_bpe",
            "merges": _merge_ids(model, vocab, path),
            "pretokenizer": pretokenizer,
            "ignore_merges": bool(model.get("ignore_merges", False)),
            "add_bos": template[0] is not None,
            "add_eos": template[1] is not None,
        },
    )
    for name, given in zip(("bos_id", "eos_id"), template, strict=True):
        if given is not None and spec[name] != given:
            raise UnsupportedError(
                f"[tokenizer] {path}: expected the post-processor to add {name} {spec[name]}, got {given}"
            )
    return spec


def _merge_ids(model: dict[str, Any], vocab: dict[str, int], path: Path) -> list[tuple[int, int]]:
    merges = []
    unknown = []
    for merge in model.get("merges") or []:
        left, right = merge.split(" ") if isinstance(merge, str) else merge  # both spellings are published
        if left in vocab and right in vocab:
            merges.append((vocab[left], vocab[right]))
        else:
            unknown.append(f"{left} {right}")
    if unknown:
        raise CheckpointError(
            f"[tokenizer] {path}: expected merges of known pieces, got {len(unknown)} others: {unknown[:10]}"
        )
    return merges


def _byte_level_problems(source: dict[str, Any], model: dict[str, Any]) -> list[str]:
    problems = []
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        problems.append(f"model: expected BPE with a vocabulary, got {model.get('type')}")
    problems += [
        f"model.{key}: expected none, got {model[key]!r}"
        for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model.get(key)
    ]
    if source.get("normalizer") is not None:
        problems.append(f"normalizer: expected null, got {json.dumps(source['normalizer'])}")
    decoder = source.get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        problems.append(f"decoder: expected ByteLevel, got {decoder.get('type')}")
    return problems


def _pretokenizer_of(description: dict[str, Any] | None) -> str | None:
    """The engine's name of a pre-tokenizer, or None."""
    steps = (description or {}).get("pretokenizers", [description])
    last = steps[-1] or {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if len(steps) == 1:
        return "gpt2" if last.get("use_regex", True) else None
    split = steps[0]
    if len(steps) != 2 or last.get("use_regex", True) or split.get("type") != "Split":
        return None
    if split.get("behavior") != "Isolated" or split.get("invert"):
        return None
    return PATTERNS.get((split.get("pattern") or {}).get("Regex", ""))


def _template_of(description: dict[str, Any] | None) -> tuple[int | None, int | None] | None:
    """Ids that are put before and after a text, or None for another post-processor."""
    steps = (description or {}).get("processors", [description] if description else [])
    templates = [step for step in steps if step.get("type") == "TemplateProcessing"]
    if any(step.get("type") not in {"TemplateProcessing", "ByteLevel"} for step in steps) or len(templates) > 1:
        return None
    if not templates:
        return None, None
    ids: list[int | None] = []
    for item in templates[0]["single"]:
        if "Sequence" in item:
            ids.append(None)
            continue
        found = templates[0]["special_tokens"][item["SpecialToken"]["id"]]["ids"]
        if len(found) != 1:
            return None
        ids.append(found[0])
    if ids.count(None) != 1:
        return None
    text = ids.index(None)
    before, after = ids[:text], ids[text + 1 :]
    if len(before) > 1 or len(after) > 1:
        return None
    return (before[0] if before else None), (after[0] if after else None)


SPM_FIELDS = ("legacy", "add_dummy_prefix", "remove_extra_whitespaces")
BYTE_LEVEL_FIELDS = ("pretokenizer", "ignore_merges")
COMMON_FIELDS = (
    *("bos_id", "eos_id", "unk_id", "pad_id", "add_bos", "add_eos", "clean_up_spaces"),
    *("special_tokens", "added_tokens"),
)


def spec_to_tensors(spec: Spec) -> tuple[dict[str, Any], Tensors]:
    """The "tokenizer" section of config.json and the tensors "tokenizer.*" (docs/FORMATS.md)."""
    is_spm = spec["kind"] == "spm_bpe"
    fields = COMMON_FIELDS + (SPM_FIELDS if is_spm else BYTE_LEVEL_FIELDS)
    config = {"kind": spec["kind"], "vocab_size": len(spec["pieces"]), **{field: spec[field] for field in fields}}
    pieces: list[bytes] = spec["pieces"]
    offsets = np.zeros(len(pieces) + 1, np.int32)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    tensors: Tensors = {
        "tokenizer.pieces": np.frombuffer(b"".join(pieces), np.uint8),
        "tokenizer.piece_offsets": offsets,
        "tokenizer.types": np.asarray(spec["types"], np.uint8),
    }
    if is_spm:
        tensors["tokenizer.scores"] = np.asarray(spec["scores"], np.float32)
    else:
        tensors["tokenizer.merges"] = np.asarray(spec["merges"], np.int32).reshape(-1, 2)
    return config, tensors


def tensors_to_spec(config: dict[str, Any], tensors: Tensors) -> Spec:
    """The inverse of spec_to_tensors.

    Raises:
        CheckpointError: tensors are missing.
    """
    is_spm = config["kind"] == "spm_bpe"
    last = "tokenizer.scores" if is_spm else "tokenizer.merges"
    needed = ("tokenizer.pieces", "tokenizer.piece_offsets", "tokenizer.types", last)
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(f"[tokenizer] expected the tensors {', '.join(missing)}, got {sorted(tensors)}")
    data = tensors["tokenizer.pieces"].tobytes()
    offsets = tensors["tokenizer.piece_offsets"].tolist()
    spec = {key: value for key, value in config.items() if key != "vocab_size"}
    spec["pieces"] = [data[begin:end] for begin, end in itertools.pairwise(offsets)]
    spec["types"] = tensors["tokenizer.types"].tolist()
    if is_spm:
        spec["scores"] = tensors["tokenizer.scores"].tolist()
    else:
        spec["merges"] = [tuple(pair) for pair in tensors["tokenizer.merges"].tolist()]
    return spec
