"""The C++ tokenizers against sentencepiece, transformers (LlamaTokenizer) and the tokenizers library (byte-level BPE).

Small tokenizers are trained here, on generated text. Every comparison is exact, over seeded random strings: 20,000 each
against sentencepiece, LlamaTokenizer and three byte-level tokenizers, 4,000 each for eight more kinds of SentencePiece
tokenizers, and 2,000 byte strings that are no UTF-8 for each of the twelve.
"""

from __future__ import annotations

import io
import json
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sentencepiece
    import tokenizers
    import transformers

from vila_engine import _core
from vila_engine.convert.tokenizers import (
    GPT_2_PATTERN,
    LLAMA_3_PATTERN,
    read_tokenizer,
    spec_to_tensors,
    tensors_to_spec,
)

pytestmark = pytest.mark.filterwarnings("ignore")

N_STRINGS = 20_000
SPACES = " \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
SCRIPTS = [
    *((0x21, 0x7E), (0xA1, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x600, 0x6FF)),
    *((0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2010, 0x206F), (0x2150, 0x218B)),
    *((0x2460, 0x24FF), (0x2600, 0x27BF), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0xE000, 0xE010)),
    *((0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x10400, 0x1044F), (0x1D400, 0x1D4FF), (0x1F300, 0x1F6FF)),
    *((0x20000, 0x20020), (0xE0020, 0xE007F), (0, 0x1F), (0x80, 0xA0)),
]
SYLLABLES = [
    *(
        "the",
        "in",
        "er",
        "an",
        "re",
        "on",
        "at",
        "en",
        "es",
        "st",
        "or",
        "te",
        "ti",
        "al",
        "ar",
        "nd",
        "to",
        "it",
        "is",
    ),
    *("ha", "ng", "as", "ou", "io", "le", "ve", "co", "me", "de", "hi", "ri", "ro", "ic", "ough", "ing"),
]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'\u017f", "\u2019s", "''s", "'x"]
LLAMA_3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
YI_PIECES = ["<|Human|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "</s"]
ADDED = ["<added>", "<add", "ed>x", "<l>", "<r>", "<lr>", "word", "<n>", "\u2603", "abcd", "bc"]
MARKS = [
    *LLAMA_3_SPECIAL,
    *YI_PIECES,
    *ADDED,
    "<s>",
    "</s>",
    "<unk>",
    "[PAD]",
    "<0x0A>",
    "<image>",
    "\u2581",
    "\u2581\u2581",
]


def sentence(rng: random.Random) -> str:
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(rng.randint(3, 12))]
    words += rng.sample(
        [
            "12",
            "2024",
            "caf\u00e9",
            "na\u00efve",
            "\u0434\u043e\u043c",
            "\u4e2d\u56fd",
            "it's",
            "we'll",
            "  ",
            "\u3042",
        ],
        2,
    )
    rng.shuffle(words)
    return " ".join(words).capitalize() + rng.choice([".", "?", "!", "...", ":\n", ", "])


def corpus(seed: int, n: int = 3000) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(n)]


def scalar(rng: random.Random) -> str:
    """Any code point but a surrogate."""
    point = rng.randrange(0x110000 - 0x800)
    return chr(point if point < 0xD800 else point + 0x800)


def piece_of_text(rng: random.Random) -> str:
    kind = rng.randrange(14)
    if kind <= 2:
        return sentence(rng)[: rng.randint(1, 40)]
    if kind <= 4:
        first, last = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))
    if kind == 5:
        return "".join(rng.choices(SPACES, k=rng.randint(1, 5)))
    if kind == 6:
        return rng.choice(
            [" ", "  ", "    ", "\n", "\r\n", "\n\n", "\r", " \n ", "\n\r ", "\t\n", "\n  "]
        ) * rng.randint(1, 3)
    if kind == 7:
        return rng.choice(CONTRACTIONS)
    if kind == 8:
        return "".join(rng.choices("0123456789\u0663\u00b2\u2167", k=rng.randint(1, 9)))
    if kind == 9:
        return scalar(rng)
    if kind == 10:
        return rng.choice(
            [
                "a\u0301\u0323",
                "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                "\U0001f1e9\U0001f1ea",
                "\ufeff",
                " zqzq",
                "zqzqx",
                "...!",
            ]
        )
    if kind == 11:
        return "".join(rng.choices(SYLLABLES, k=rng.randint(1, 60)))
    return rng.choice(["", " "]) + rng.choice(MARKS) + rng.choice(["", " ", "\n"])


def random_texts(seed: int, n: int = N_STRINGS) -> list[str]:
    """`n` different strings."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts["".join(piece_of_text(rng) for _ in range(rng.randint(0, 5)))] = None
    return list(texts)


@dataclass
class Pair:
    """The tokenizer under test and its oracle."""

    ours: Any
    encode: Callable[[list[str]], list[list[int]]]
    decode: Callable[[list[int], bool], str]


def build(folder: Path, **options: bool) -> Any:
    """Our tokenizer, by way of the stored form."""
    config, tensors = spec_to_tensors(read_tokenizer(folder, **options))
    return _core.Tokenizer.from_spec(tensors_to_spec(json.loads(json.dumps(config)), tensors))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    named = {key: value for key, value in config.items() if key.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(named), encoding="utf-8")


def train_spm(folder: Path, **options: Any) -> None:
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 900,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "character_coverage": 0.999,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(1)), model_writer=model, **{**settings, **options}
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def flagged(content: str, **flags: bool) -> dict[str, Any]:
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return {"content": content, **dict.fromkeys(names, False), **flags}


def added_decoder(first: int) -> dict[str, dict[str, Any]]:
    """Added tokens with every flag, for the end of a vocabulary."""
    tokens = [
        *(
            flagged("<added>"),
            flagged("<add"),
            flagged("ed>x"),
            flagged("<l>", lstrip=True),
            flagged("<r>", rstrip=True),
        ),
        *(
            flagged("<lr>", lstrip=True, rstrip=True),
            flagged("word", single_word=True),
            flagged("<n>", normalized=True),
        ),
        *(flagged("\u2603", single_word=True, rstrip=True), flagged("abcd"), flagged("bc", normalized=True)),
    ]
    return {str(first + i): token for i, token in enumerate(tokens)}


def spm_pair(folder: Path, *, legacy: bool) -> Pair:
    oracle = transformers.LlamaTokenizer.from_pretrained(folder, legacy=legacy)
    return Pair(
        build(folder, legacy=legacy),
        lambda texts: [oracle(text).input_ids for text in texts],
        lambda ids, skip: str(oracle.decode(ids, skip_special_tokens=skip)),
    )


SPM_CONFIG: dict[str, Any] = {
    **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
    **{"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False},
    "added_tokens_decoder": {str(i): flagged(text, special=True) for i, text in enumerate(["<unk>", "<s>", "</s>"])},
}


def make_spm(folder: Path, variant: str) -> Pair:
    legacy = variant.endswith("legacy")
    config = json.loads(json.dumps(SPM_CONFIG))
    if variant == "spm_no_fallback":
        train_spm(folder, byte_fallback=False, vocab_size=500)
    elif variant == "spm_trimmed":
        train_spm(folder, remove_extra_whitespaces=True, vocab_size=700)
    elif variant.startswith("spm_yi"):
        train_spm(
            folder,
            user_defined_symbols=YI_PIECES,
            bos_piece="<|startoftext|>",
            eos_piece="<|endoftext|>",
            add_dummy_prefix=False,
        )
        names = ["<unk>", "<|startoftext|>", "<|endoftext|>"]
        config.update(bos_token=names[1], eos_token="<|im_end|>", add_bos_token=False)
        config["added_tokens_decoder"] = {str(i): flagged(text, special=True) for i, text in enumerate(names)}
        config["added_tokens_decoder"]["5"] = flagged("<|im_end|>", special=True)
    else:
        train_spm(folder)
        if variant.startswith("spm_added"):
            config["added_tokens_decoder"] |= added_decoder(900)
            config["added_tokens_decoder"]["911"] = flagged("[PAD]", special=True)
            config.update(pad_token="[PAD]", add_eos_token=True, clean_up_tokenization_spaces=True)
    write_config(folder, config)
    return spm_pair(folder, legacy=legacy)


def make_byte_level(folder: Path, variant: str) -> Pair:
    pattern = GPT_2_PATTERN if variant == "byte_gpt2" else LLAMA_3_PATTERN
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=variant == "byte_gpt2")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    sequence = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    model.pre_tokenizer = byte_level if variant == "byte_gpt2" else sequence
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(corpus(2), trainer)
    if variant != "byte_gpt2":
        source = json.loads(model.to_str())
        # Pieces that no merge gives: found only where whole words are looked up first.
        source["model"]["ignore_merges"] = True
        unmerged = ["\u0120zqzq", "zqzqx", "...!", "\u010a\u010a\u010a\u010a"]
        assert not set(unmerged) & set(source["model"]["vocab"])
        source["model"]["vocab"] |= {piece: model.get_vocab_size() + i for i, piece in enumerate(unmerged)}
        model = tokenizers.Tokenizer.from_str(json.dumps(source))
    model.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in LLAMA_3_SPECIAL])
    tokens = [{key: value for key, value in token.items() if key != "special"} for token in added_decoder(0).values()]
    model.add_tokens([tokenizers.AddedToken(token.pop("content"), **token) for token in tokens])
    if variant != "byte_nobos":
        bos = LLAMA_3_SPECIAL[0]
        template = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, model.token_to_id(bos))]
        )
        steps = [tokenizers.processors.ByteLevel(trim_offsets=False), template]
        model.post_processor = tokenizers.processors.Sequence(steps)
    (folder / "tokenizer.json").write_text(model.to_str(), encoding="utf-8")
    config = {
        "bos_token": LLAMA_3_SPECIAL[0],
        "eos_token": LLAMA_3_SPECIAL[1],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_config(folder, {**config, "pad_token": "[PAD]", "clean_up_tokenization_spaces": variant == "byte_llama3"})
    oracle = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return Pair(
        build(folder),
        lambda texts: [encoding.ids for encoding in oracle.backend_tokenizer.encode_batch_fast(texts)],
        lambda ids, skip: str(oracle.decode(ids, skip_special_tokens=skip)),
    )


SPM = [
    "spm",
    "spm_legacy",
    "spm_added",
    "spm_added_legacy",
    "spm_yi",
    "spm_yi_legacy",
    "spm_no_fallback",
    "spm_trimmed",
    "spm_trimmed_legacy",
]
BYTE_LEVEL = ["byte_llama3", "byte_nobos", "byte_gpt2"]


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    variant = request.param
    make = make_spm if variant.startswith("spm") else make_byte_level
    return make(tmp_path_factory.mktemp(variant), variant)


every_variant = pytest.mark.parametrize("pair", SPM + BYTE_LEVEL, indirect=True, scope="module")


@every_variant
def test_encode_equals_the_oracle(pair: Pair, request: pytest.FixtureRequest) -> None:
    variant = request.node.callspec.params["pair"]
    # transformers' slow tokenizer takes most of the time: all strings for the main variants, a part for the others.
    n = N_STRINGS if variant in {"spm", *BYTE_LEVEL} else N_STRINGS // 5
    texts = random_texts(seed=3, n=n)
    expected = pair.encode(texts)
    wrong = [text for text, ids in zip(texts, expected, strict=True) if pair.ours.encode(text) != ids]
    assert not wrong, f"{len(wrong)} of {n}, first: {min(wrong, key=len)!a}"


@pytest.mark.parametrize("options", [{}, {"byte_fallback": False, "vocab_size": 500}], ids=["bytes", "unknown"])
def test_encode_equals_sentencepiece(tmp_path: Path, options: dict[str, Any]) -> None:
    """The library itself: without added tokens, the legacy tokenizer is SentencePiece."""
    train_spm(tmp_path, **options)
    write_config(tmp_path, SPM_CONFIG)
    ours = build(tmp_path, legacy=True)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    texts = random_texts(seed=11)
    for mark in ("<s>", "</s>", "<unk>"):  # text to SentencePiece, tokens to us
        texts = [text.replace(mark, "") for text in texts]
    assert len(set(texts)) > N_STRINGS * 0.9
    expected = oracle.encode(texts)
    wrong = [text for text, ids in zip(texts, expected, strict=True) if ours.encode(text, add_special=False) != ids]
    assert not wrong, f"{len(wrong)} of {len(texts)}, first: {min(wrong, key=len)!a}"


@every_variant
def test_invalid_utf8_reads_as_replacement_characters(pair: Pair) -> None:
    rng = random.Random(4)
    data = []
    for text in random_texts(seed=5, n=2000):
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            raw.insert(rng.randint(0, len(raw)), rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0xFF]))
        data.append(bytes(raw[: rng.randint(0, len(raw))]))
    expected = pair.encode([raw.decode(errors="replace") for raw in data])
    wrong = [raw for raw, ids in zip(data, expected, strict=True) if pair.ours.encode(raw) != ids]
    assert not wrong, f"{len(wrong)}, first: {min(wrong, key=len)!r}"


@every_variant
@pytest.mark.parametrize("skip", [True, False])
def test_decode_and_streaming_equal_the_oracle(pair: Pair, skip: bool) -> None:
    rng = random.Random(6)
    size = pair.ours.vocab_size
    known = [index for index in range(size) if pair.ours.piece(index)]
    rare = [index for index in known if pair.ours.is_special(index) or index >= size - 16]
    sequences = [pair.ours.encode(text) for text in random_texts(seed=7, n=600)]
    for _ in range(1200):
        ids = rng.choices(known, k=rng.randint(0, 12)) + rng.choices(rare, k=rng.randint(0, 3))
        bytes_only = rng.choices(range(3, min(259, size)), k=rng.randint(0, 8))
        rng.shuffle(ids)
        sequences.append(ids + bytes_only if rng.random() < 0.5 else bytes_only + ids)
    detokenizer = _core.Detokenizer(pair.ours, skip)
    for sequence in sequences:
        ids = [index for index in sequence if pair.ours.piece(index)]
        expected = pair.decode(ids, skip)
        assert pair.ours.decode(ids, skip_special=skip) == expected, ids
        streamed = [detokenizer.push(index) for index in ids]
        assert "".join([*streamed, detokenizer.flush()]) == expected, ids


@pytest.mark.parametrize("pair", ["byte_llama3"], indirect=True, scope="module")
def test_every_character_is_split_as_by_the_oracle(pair: Pair) -> None:
    # Behind the last assigned ideographs lie empty planes and private use: every 17th will do.
    points = [chr(point) for point in range(0x32400) if not 0xD800 <= point < 0xE000]
    points += [chr(point) for point in [*range(0x32400, 0x110000, 17), *range(0xE0000, 0xE0200)]]
    texts = [f"x{char}1{char} {char}\n{char}'{char}" for char in points[:0x3000]]
    # In blocks, each character beside letters, digits and spaces.
    texts += ["".join(f"a{c}1{c} {c}" for c in points[at : at + 64]) for at in range(0x3000, len(points), 64)]
    for text, ids in zip(texts, pair.encode(texts), strict=True):
        assert pair.ours.encode(text) == ids, ascii(text)


@pytest.mark.parametrize("pair", ["spm", "spm_yi", "byte_llama3", "byte_nobos"], indirect=True, scope="module")
def test_prompts_with_images(pair: Pair) -> None:
    rng = random.Random(8)
    for _ in range(500):
        chunks = random_texts(seed=rng.randrange(1 << 30), n=rng.randint(1, 4))
        if rng.random() < 0.3:
            chunks[0] = "<|begin_of_text|>" + chunks[0]
        prompt = "<image>".join(chunk.replace("<image>", "") for chunk in chunks)
        parts = pair.encode(prompt.split("<image>"))
        drop = int(bool(parts[0]) and parts[0][0] == pair.ours.bos_id)
        expected = parts[0][:drop] + parts[0][drop:]
        for part in parts[1:]:
            expected += [-200, *part[drop:]]
        assert _core.encode_with_images(pair.ours, prompt) == expected, ascii(prompt)


@pytest.mark.parametrize("pair", ["spm", "spm_no_fallback", "byte_llama3", "byte_gpt2"], indirect=True, scope="module")
@pytest.mark.parametrize("kind", ["sentences", "one word", "spaces", "digits", "newlines"])
def test_long_texts_take_no_quadratic_time(pair: Pair, kind: str) -> None:
    unit = {"one word": "theinerandre", "spaces": " ", "digits": "12", "newlines": "\n"}.get(kind)
    text = " ".join(corpus(9)) if unit is None else unit * (100_000 // len(unit))
    assert pair.ours.encode(text) == pair.encode([text])[0]
    long = text * (1_000_000 // len(text) + 1)
    begin = time.process_time()
    ids = pair.ours.encode(long)
    pair.ours.decode(ids)
    # A quadratic algorithm needs minutes here.
    assert time.process_time() - begin < 10


def test_missing_files_are_listed(tmp_path: Path) -> None:
    with pytest.raises(_core.CheckpointError, match=r"tokenizer\.model or tokenizer\.json and tokenizer_config\.json"):
        read_tokenizer(tmp_path)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    train_spm(tmp_path, model_type="unigram", normalization_rule_name="nmt_nfkc", vocab_size=400)
    write_config(tmp_path, SPM_CONFIG)
    with pytest.raises(_core.UnsupportedError, match=r"model type: expected 2 .*normaliser: expected identity"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(_core.CheckpointError, match="broken file"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("pair", ["spm"], indirect=True, scope="module")
def test_inconsistent_specs_are_refused(pair: Pair) -> None:
    spec = {"kind": "byte_bpe", "pieces": [bytes([b]) for b in range(256)], "types": [1] * 256, "merges": []}
    assert _core.Tokenizer.from_spec(spec).encode("hi") == [104, 105]
    for change, message in (
        ({"merges": [(1, 999)]}, "expected ids below 256, got 1 and 999"),
        ({"merges": [(1, 2)]}, "expected its result to be a piece"),
        ({"types": [1] * 255}, "types: expected 256, got 255"),
        ({"bos_id": 256}, "bos_id: expected an id below 256, got 256"),
        ({"add_bos": True}, "bos_id: expected an id"),
        ({"pretokenizer": "other"}, "pretokenizer: expected"),
        ({"added_tokens": [{"id": 7, "content": "<x>"}]}, "expected it as piece 7"),
        ({"pieces": [b"a"] * 256}, "expected a new piece"),
    ):
        with pytest.raises(_core.CheckpointError, match=message):
            _core.Tokenizer.from_spec({**spec, **change})
    with pytest.raises(_core.InvalidArgument, match="unknown kind"):
        _core.Tokenizer.from_spec({})
    with pytest.raises(_core.InvalidArgument, match=r"expected 0\.\.899, got -200"):
        pair.ours.decode([-200])
