"""A PyTorch model of the published layout behind the methods of `vila_engine.Model`: the column to compare with.

It is simple on purpose: fp32, and no cache of keys and values. `replies` is `generate` and `logits` for many questions
at once, which the evaluation of thousands needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vila_engine.evaluate.items import Item
from vila_engine.evaluate.runner import MAX_NEW_TOKENS, Gold, Reply, gold_ids, told
from vila_engine.media import load_image

from .models import IMAGE_ID
from .published import import_folder
from .tokenizer import END, Encoded, tagged
from .vision import normalise

Messages = Sequence[Any]


@dataclass(frozen=True)
class Answer:
    """A finished answer: its text, and all generated ids with the end token."""

    text: str
    token_ids: list[int]


class TorchModel:
    """A published folder in PyTorch, answering greedily in the form `vicuna_v1_nosys`; a `BatchAnswerer`.

    Args:
        folder: Published folder.
        threads: Threads of PyTorch; its own default if left out.
        device: PyTorch device.
    """

    batch = 16

    def __init__(self, folder: Path, threads: int | None = None, device: str = "cpu") -> None:
        if threads:
            torch.set_num_threads(threads)
        model, self.tokenizer = import_folder(folder)
        self.model = model.to(device).eval()
        self.device = device
        self.info = {"source": folder.name, "isa": "torch", "conv_mode": "vicuna_v1_nosys"}
        self._seen: dict[bytes, torch.Tensor] = {}

    def _encode(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[torch.Tensor]:
        """Rows of pictures `[T, H]` each, encoded together but for those that are remembered from the last call."""
        keys = [np.ascontiguousarray(picture).tobytes() for picture in pictures]
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._seen}
        self._seen = {key: rows for key, rows in self._seen.items() if key in keys}
        if new:
            side = self.model.config.vision.image_size
            resized = [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in new.values()]
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).to(self.device)
            for key, rows in zip(new, self.model.encode(normalise(pixels)), strict=True):
                self._seen[key] = rows
        return [self._seen[key] for key in keys]

    def _prompt(self, messages: Messages, n_pictures: int) -> Encoded:
        parts = []
        for index, message in enumerate(messages):
            text = message["content"]
            if message["role"] == "user":
                text = tagged(text, n_pictures) if index == 0 else text
                parts.append((f"{' ' if index == 0 else ''}USER: {text} ASSISTANT:", False))
            else:
                parts.append((f" {text}{END}", False))
        return self.tokenizer.prompt(parts)

    def prompt_ids(self, messages: Messages, *, images: Any = (), videos: Sequence[int] = ()) -> list[int]:
        """The prompt's ids, -200 for a picture; pictures are only counted, videos are numbers of frames."""
        count = images if isinstance(images, int) else len(images)
        return self._prompt(messages, count + sum(videos)).ids

    def _rows(self, messages: Messages, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Rows of a prompt `[L, H]`, with those of the encoded pictures in it."""
        ids = self._prompt(messages, len(pictures)).ids
        rows = self._embed([0 if token == IMAGE_ID else token for token in ids])
        marks = [place for place, token in enumerate(ids) if token == IMAGE_ID]
        parts, start = [], 0
        for place, picture in zip(marks, pictures, strict=True):
            parts += [rows[start:place], picture]
            start = place + 1
        return torch.cat([*parts, rows[start:]])

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        rows: torch.Tensor = self.model.llm.model.embed_tokens(torch.tensor(ids, dtype=torch.int64, device=self.device))
        return rows

    def logits(
        self, messages: Messages, *, images: Sequence[Any] = (), videos: Sequence[Sequence[Any]] = ()
    ) -> npt.NDArray[np.float32]:
        """Logits at every place of the prompt, rows of pictures included: `[T, V]`."""
        with torch.no_grad():
            rows = self._rows(messages, self._encode(_all(images, videos)))
            logits = self.model.llm.logits(self.model.llm(rows[None]))[0]
        result: npt.NDArray[np.float32] = logits.float().cpu().numpy()
        return result

    def generate(
        self,
        messages: Messages,
        *,
        images: Sequence[Any] = (),
        videos: Sequence[Sequence[Any]] = (),
        max_new_tokens: int = 16,
    ) -> Answer:
        """The greedy answer."""
        with torch.no_grad():
            rows = self._rows(messages, self._encode(_all(images, videos)))
            (ids,) = self._continue([rows], [[]], max_new_tokens)
        return Answer(self._text(ids), ids)

    def replies(self, items: Sequence[Item], quality: bool) -> list[Reply]:
        """The greedy answers of several questions, and with `quality` what the model thinks of their gold answers.

        One pass over the gold answers gives their likelihood and, as far as a gold answer is what the model would say,
        the greedy answer too; from the first other token on the answer is continued token by token.
        """
        golds = [gold_ids(self, item) for item in items]
        with torch.no_grad():
            pictures = iter(self._encode([load_image(path) for item in items for path in item.images]))
            asked = [self._rows(told(item)[0], [next(pictures) for _ in item.images]) for item in items]
            whole = [torch.cat([rows, self._embed(ids)]) for rows, ids in zip(asked, golds, strict=True)]
            spans = [slice(len(rows) - 1, len(rows) - 1 + len(ids)) for rows, ids in zip(asked, golds, strict=True)]
            logits = [
                self.model.llm.logits(states[span]) for states, span in zip(self._states(whole), spans, strict=True)
            ]
            starts = [_agreed(rows.argmax(-1).tolist(), ids) for rows, ids in zip(logits, golds, strict=True)]
            answers = self._continue(asked, starts, MAX_NEW_TOKENS)
        measured = [
            Gold.of(rows.cpu().numpy(), ids) if quality else None for rows, ids in zip(logits, golds, strict=True)
        ]
        return [Reply(self._text(ids), ids, gold) for ids, gold in zip(answers, measured, strict=True)]

    def next_logits(self, item: Item, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits `[V]` of the token behind a question and the ids of an answer's beginning."""
        with torch.no_grad():
            rows = self._rows(told(item)[0], self._encode([load_image(path) for path in item.images]))
            states = self.model.llm(torch.cat([rows, self._embed(ids)])[None])
            result: npt.NDArray[np.float32] = self.model.llm.logits(states[0, -1]).cpu().numpy()
        return result

    def _states(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Hidden states `[B, L, H]` of sequences `[L_i, H]`; padding comes last, where attention never looks."""
        return self.model.llm(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True))

    def _continue(self, asked: list[torch.Tensor], starts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers to prompts `[L_i, H]`, given their first tokens."""
        answers = [list(ids[:max_new_tokens]) for ids in starts]
        eos = self.tokenizer.eos
        while left := [i for i, ids in enumerate(answers) if len(ids) < max_new_tokens and ids[-1:] != [eos]]:
            rows = [torch.cat([asked[i], self._embed(answers[i])]) for i in left]
            states = self._states(rows)
            last = torch.stack([states[n, len(own) - 1] for n, own in enumerate(rows)])
            for i, token in zip(left, self.model.llm.logits(last).argmax(-1).tolist(), strict=True):
                answers[i].append(token)
        return answers

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids).strip()


def _all(images: Sequence[Any], videos: Sequence[Sequence[Any]]) -> list[npt.NDArray[np.uint8]]:
    return [np.asarray(picture) for picture in (*images, *(frame for video in videos for frame in video))]


def _agreed(said: Sequence[int], gold: Sequence[int]) -> list[int]:
    """What is said as long as it is the gold answer, and the first token that is not."""
    other = next((place for place, (a, b) in enumerate(zip(said, gold, strict=True)) if a != b), len(gold))
    return list(said[: other + 1])
