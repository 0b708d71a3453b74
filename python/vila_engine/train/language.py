"""Stage 0b: the language model learns the language of definitions, questions and answers, from random weights."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loop import Batch, Log
from .models import Llama
from .tasks import Sample
from .texts import language_document
from .tokenizer import Tokenizer, conversation
from .world import World


class LanguageTask:
    """Documents packed into sequences of one length, and next-token prediction on all of it."""

    def __init__(self, world: World, tokenizer: Tokenizer, seed: int, batch: int, length: int = 256) -> None:
        self.world, self.tokenizer = world, tokenizer
        self.seed, self.size, self.length = seed, batch, length

    def _document(self, rng: np.random.Generator) -> list[int]:
        document = language_document(self.world, rng)
        if isinstance(document, Sample):
            return conversation(self.tokenizer, document).ids
        return [self.tokenizer.bos, *self.tokenizer.stretch(document), self.tokenizer.eos]

    def batch(self, index: int) -> Batch:
        """Ids `[B, length + 1]`; the last document of a row is cut."""
        rows = []
        for row in range(self.size):
            rng = np.random.default_rng([self.seed, 3, index, row])
            ids: list[int] = []
            while len(ids) <= self.length:
                ids += self._document(rng)
            rows.append(ids[: self.length + 1])
        return {"ids": torch.tensor(rows)}

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Log]:
        """Mean cross-entropy of the next token, in nats."""
        assert isinstance(model, Llama)
        ids = batch["ids"]
        states = model(model.model.embed_tokens(ids[:, :-1]))
        logits = model.logits(states).float().flatten(0, 1)
        target = ids[:, 1:].flatten()
        loss = F.cross_entropy(logits, target)
        with torch.no_grad():
            right = (logits.argmax(-1) == target).float().mean()
        return loss, {"right_token": float(right)}
