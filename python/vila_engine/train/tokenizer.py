"""The SentencePiece tokenizer of the demo model, and prompts as ids in the form that VILA and the engine give them.

The rules are those of the slow Llama tokenizer with `legacy=False`: every stretch of text between pictures gets a word
mark in front, special tokens are cut out first, and the text behind one gets no mark.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from .models import IMAGE_ID
from .tasks import Sample
from .texts import corpus
from .world import World

IGNORED = -100
IMAGE_MARK = "<image>"
END = "</s>"


@dataclass(frozen=True)
class Encoded:
    """A prompt with its answers.

    Attributes:
        ids: Token ids; -200 stands for a picture.
        labels: The id that is to be learnt at each place, -100 where nothing is.
    """

    ids: list[int]
    labels: list[int]


class Tokenizer:
    """Text to ids and back.

    Args:
        model: The bytes of a `tokenizer.model`.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._guard: int = len(self._pieces.encode("\n"))  # a line feed is a byte, which joins with nothing
        self.bos: int = self._pieces.bos_id()
        self.eos: int = self._pieces.eos_id()
        self.size: int = self._pieces.get_piece_size()

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a `tokenizer.model`."""
        return cls(path.read_bytes())

    def stretch(self, text: str, first: bool = True) -> list[int]:
        """Ids of text without pictures; `first` puts the word mark in front."""
        ids: list[int] = []
        for index, part in enumerate(text.split(END)):
            if index:
                ids.append(self.eos)
            if part and first and not index:
                ids += self._pieces.encode(part)
            elif part:
                ids += self._pieces.encode("\n" + part)[self._guard :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens."""
        text: str = self._pieces.decode([i for i in ids if i not in (self.bos, self.eos) and i >= 0])
        return text

    def prompt(self, parts: Sequence[tuple[str, bool]]) -> Encoded:
        """Encodes stretches of a prompt one after the other.

        Args:
            parts: Text, and whether it is an answer to be learnt. A part that is not the first begins where a word
                begins, or behind a special token, so that cutting there changes no token.
        """
        ids, labels = [self.bos], [IGNORED]
        first = True
        for text, learnt in parts:
            for index, piece in enumerate(text.split(IMAGE_MARK)):
                if index:
                    ids.append(IMAGE_ID)
                    labels.append(IGNORED)
                    first = True
                new = self.stretch(piece, first)
                first = first and not piece
                ids += new
                labels += new if learnt else [IGNORED] * len(new)
        return Encoded(ids, labels)


def tagged(question: str, n_pictures: int) -> str:
    """The first question with a mark per picture, as the engine puts them where there are none."""
    return question if IMAGE_MARK in question else f"{IMAGE_MARK}\n" * n_pictures + question


def conversation(tokenizer: Tokenizer, sample: Sample) -> Encoded:
    """A sample in the form `vicuna_v1_nosys`; the answers and the ends of them are learnt."""
    parts = []
    for index, turn in enumerate(sample.turns):
        question = tagged(turn.question, len(sample.scenes)) if index == 0 else turn.question
        start = " USER: " if index == 0 else "USER: "
        parts += [(f"{start}{question} ASSISTANT:", False), (f" {turn.answer}{END}", True)]
    return tokenizer.prompt(parts)


def train_tokenizer(world: World, size: int, seed: int, documents: int = 30000) -> Tokenizer:
    """Trains a byte-pair tokenizer with byte fallback and single digits, as Llama's, on the texts of all stages."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(world, documents, seed)),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())
