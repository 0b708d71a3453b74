"""A PyTorch model of the published layout behind the methods of `vila_engine.Model`: the column to compare with.

It is slow and simple on purpose: no cache of keys and values, everything in fp32 or a precision that is asked for.
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
    """A published folder in PyTorch, answering greedily in the form `vicuna_v1_nosys`.

    Args:
        folder: Published folder.
        threads: Threads of PyTorch; its own default if left out.
        device: PyTorch device.
    """

    def __init__(self, folder: Path, threads: int | None = None, device: str = "cpu") -> None:
        if threads:
            torch.set_num_threads(threads)
        model, self.tokenizer = import_folder(folder)
        self.model = model.to(device).eval()
        self.device = device
        self.info = {"source": folder.name, "isa": "torch", "conv_mode": "vicuna_v1_nosys"}
        self._seen: dict[bytes, torch.Tensor] = {}

    def _picture(self, picture: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Rows of one picture `[T, H]`; the last few are remembered."""
        key = np.ascontiguousarray(picture).tobytes()
        if key not in self._seen:
            side = self.model.config.vision.image_size
            resized = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.asarray(resized).copy())[None].to(self.device)
            if len(self._seen) > 16:
                self._seen.clear()
            self._seen[key] = self.model.encode(normalise(pixels))[0]
        return self._seen[key]

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

    def _rows(self, messages: Messages, images: Sequence[Any], videos: Sequence[Sequence[Any]]) -> torch.Tensor:
        pictures = [*images, *(frame for video in videos for frame in video)]
        ids = self._prompt(messages, len(pictures)).ids
        rows: list[torch.Tensor] = []
        left = list(pictures)
        embed = self.model.llm.model.embed_tokens
        for token in ids:
            if token == IMAGE_ID:
                rows.append(self._picture(np.asarray(left.pop(0))))
            else:
                rows.append(embed(torch.tensor([token], device=self.device)))
        return torch.cat(rows)[None]

    def logits(
        self, messages: Messages, *, images: Sequence[Any] = (), videos: Sequence[Sequence[Any]] = ()
    ) -> npt.NDArray[np.float32]:
        """Logits at every place of the prompt, rows of pictures included: `[T, V]`."""
        with torch.no_grad():
            rows = self._rows(messages, images, videos)
            logits = self.model.llm.logits(self.model.llm(rows))[0]
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
        ids: list[int] = []
        with torch.no_grad():
            rows = self._rows(messages, images, videos)
            while len(ids) < max_new_tokens:
                states = self.model.llm(rows)
                ids.append(int(self.model.llm.logits(states[0, -1]).argmax()))
                if ids[-1] == self.tokenizer.eos:
                    break
                new = self.model.llm.model.embed_tokens(torch.tensor([[ids[-1]]], device=self.device))
                rows = torch.cat([rows, new], dim=1)
        return Answer(self.tokenizer.decode(ids).strip(), ids)
