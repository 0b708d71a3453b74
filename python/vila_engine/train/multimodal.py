"""Stages 1 to 3 of VILA: align the projector, pre-train on interleaved pictures and text, tune on conversations.

`align` shows one picture and learns its caption (`<image>caption` and a line feed); `pretrain` shows documents of
several pictures between their captions and, a quarter of the time, text alone; `sft` holds conversations of all tasks
and learns the answers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vila_engine._core import InvalidArgument

from .config import StageConfig
from .facts import caption_text
from .layout import TRAIN, finish, text_item
from .loop import Batch, Log
from .models import IMAGE_ID, Vila, VilaConfig
from .scenes import Pixels, Renderer, Rng, Scene, random_background
from .tasks import PICTURE_TASKS, Sample, in_context_task, pair_scene, row_scene, shapes_scene, single_scene
from .texts import language_document, text_task
from .tokenizer import END, IGNORED, Encoded, Tokenizer, conversation
from .vision import normalise
from .world import World

Example = tuple[Encoded, list[Pixels]]
MIX = {
    "name": 0.22, "caption": 0.12, "count": 0.11, "colour": 0.08, "position": 0.12, "exists": 0.06, "changed": 0.06,
    "video": 0.05, "read": 0.07, "easy-vqa": 0.04, "in-context": 0.02, "text": 0.05,
}  # fmt: skip
BUCKETS = (48, 64, 96, 128, 192, 256, 320)
TRAINED = {
    "align": ("mm_projector",),
    "pretrain": ("mm_projector", "llm"),
    "sft": ("mm_projector", "llm", "vision_tower"),
}


class Painter:
    """Renders the pictures of samples at the model's size."""

    def __init__(self, world: World, side: int, patch: int = 14) -> None:
        self.world = world
        self.renderer = Renderer(world, side, patch)

    def paint(self, scene: Scene | int) -> Pixels:
        """A scene, or a picture of easy-VQA resized as the engine does: `[S, S, 3]` u8."""
        if isinstance(scene, Scene):
            return self.renderer.render(scene)
        side = self.renderer.side
        picture = Image.fromarray(self.world.vqa_images[scene])
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


def captioned(world: World, rng: Rng) -> tuple[Scene, str]:
    """A scene that can be told in one sentence, and that sentence."""
    while True:
        kind = rng.random()
        if kind < 0.1:
            background = random_background(rng)
            word = world.train_words[rng.integers(len(world.train_words))]
            scene = finish(rng, background, [text_item(rng, word, background, TRAIN.fonts)], TRAIN)
            return scene, f'The text "{word}".'
        makers = (single_scene, single_scene, pair_scene, row_scene, shapes_scene)
        scene = makers[rng.integers(len(makers))](world, rng, TRAIN)
        text = caption_text(world, scene, TRAIN)
        if text is not None:
            return scene, text


class StageTask:
    """Batches of one of the three stages.

    Rows of similar length are padded to one length and go through the language model together; a batch has as many
    such groups as it needs.
    """

    def __init__(
        self, stage: StageConfig, world: World, tokenizer: Tokenizer, config: VilaConfig, *, seed: int
    ) -> None:
        makers: dict[str, Callable[[Rng], Example]] = {
            "align": self._align, "pretrain": self._pretrain, "sft": self._sft,
        }  # fmt: skip
        self.make = makers[stage.name]
        self.world, self.tokenizer = world, tokenizer
        self.painter = Painter(world, config.vision.image_size, config.vision.patch_size)
        self.per_picture = ((config.vision.grid + 1) // 2) ** 2
        self.key = (seed, 4 + sorted(makers).index(stage.name))
        self.size = stage.batch
        self.side = replace(TRAIN, more=stage.questions)
        mix = stage.mix or MIX
        if not set(mix) <= set(MIX):
            raise InvalidArgument(f"[train] mix: expected tasks of {sorted(MIX)}, got {sorted(set(mix) - set(MIX))}")
        self.tasks, weights = list(mix), np.array(list(mix.values()))
        self.shares = weights / weights.sum()

    def _align(self, rng: Rng) -> Example:
        scene, text = captioned(self.world, rng)
        return self.tokenizer.prompt([("<image>", False), (f"{text}\n", True)]), [self.painter.paint(scene)]

    def _pretrain(self, rng: Rng) -> Example:
        kind = rng.random()
        if kind < 0.25:
            document = language_document(self.world, rng)
            if isinstance(document, Sample):
                return conversation(self.tokenizer, document), []
            return self.tokenizer.prompt([(document + END, True)]), []
        if kind < 0.4:
            sample = in_context_task(self.world, rng, TRAIN)
            before, _, after = sample.turns[0].question.rpartition(" What is this?")
            parts = [(before + after, False), (f" {sample.turns[0].answer}{END}", True)]
            return self.tokenizer.prompt(parts), [self.painter.paint(scene) for scene in sample.scenes]
        pairs = [captioned(self.world, rng) for _ in range(int(rng.integers(2, 5)))]
        parts = []
        for _, text in pairs:
            parts += [("<image>", False), (text, True)]
        return self.tokenizer.prompt([*parts, (END, True)]), [self.painter.paint(scene) for scene, _ in pairs]

    def _sft(self, rng: Rng) -> Example:
        name = self.tasks[rng.choice(len(self.tasks), p=self.shares)]
        sample = (text_task if name == "text" else PICTURE_TASKS[name])(self.world, rng, self.side)
        return conversation(self.tokenizer, sample), [self.painter.paint(scene) for scene in sample.scenes]

    def batch(self, index: int) -> Batch:
        """Pictures `[P, S, S, 3]` u8 and per group g the tensors `ids_g`, `source_g`, `target_g`, each `[B_g, L_g]`."""
        examples = [self.make(np.random.default_rng([*self.key, index, row])) for row in range(self.size)]
        return collate(examples, self.per_picture, self.painter.renderer.side)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Log]:
        """Mean cross-entropy of the learnt tokens, in nats."""
        assert isinstance(model, Vila)
        visual = encode_pictures(model, batch["pictures"])
        logits, targets = [], []
        for group in range(sum(name.startswith("ids_") for name in batch)):
            ids, source, target = (batch[f"{name}_{group}"] for name in ("ids", "source", "target"))
            states = model.llm.hidden(model.splice(ids, visual, source))
            learnt = target >= 0
            logits.append(model.llm.logits(states[learnt]).float())
            targets.append(target[learnt])
        every, goal = torch.cat(logits), torch.cat(targets)
        loss = F.cross_entropy(every, goal)
        with torch.no_grad():
            right = (every.argmax(-1) == goal).float().mean()
        return loss, {"right_token": float(right)}


def encode_pictures(model: Vila, pictures: Tensor) -> Tensor:
    """Maps pictures `[P, S, S, 3]` u8 to rows of the language model `[P * T, H]`."""
    if pictures.shape[0] == 0:
        return pictures.new_zeros((0, model.config.llm.hidden_size), dtype=torch.float32)
    return model.encode(normalise(pictures)).flatten(0, 1)


def expand(encoded: Encoded, per_picture: int, first_row: int) -> tuple[list[int], list[int], list[int]]:
    """Puts the rows of pictures in place of their marks.

    Returns:
        Ids (0 where a picture's row goes), the picture row to take (-1: none), and what is to be predicted there: the
        label of the next place.
    """
    ids: list[int] = []
    source: list[int] = []
    labels: list[int] = []
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        if token == IMAGE_ID:
            ids += [0] * per_picture
            source += range(first_row, first_row + per_picture)
            labels += [IGNORED] * per_picture
            first_row += per_picture
        else:
            ids.append(token)
            source.append(-1)
            labels.append(label)
    return ids, source, [*labels[1:], IGNORED]


def collate(examples: list[Example], per_picture: int, side: int) -> Batch:
    """Groups examples of similar length and pads each group; pictures of all of them come in one tensor."""
    pictures = [picture for _, own in examples for picture in own]
    rows: dict[int, list[tuple[list[int], list[int], list[int]]]] = {}
    first = 0
    for encoded, own in examples:
        row = expand(encoded, per_picture, first)
        first += per_picture * len(own)
        size = len(row[0])
        rows.setdefault(next((bound for bound in BUCKETS if size <= bound), 1 << 20), []).append(row)
    batch: Batch = {
        "pictures": torch.from_numpy(np.stack(pictures))
        if pictures
        else torch.zeros((0, side, side, 3), dtype=torch.uint8)
    }
    for group, bound in enumerate(sorted(rows)):
        length = max(len(ids) for ids, _, _ in rows[bound])
        for part, (name, filler) in enumerate((("ids", 0), ("source", -1), ("target", IGNORED))):
            padded = [row[part] + [filler] * (length - len(row[part])) for row in rows[bound]]
            batch[f"{name}_{group}"] = torch.tensor(padded)
    return batch


def freeze(model: Vila, stage: str, lr_scale: dict[str, float]) -> None:
    """Leaves gradients on for what a stage trains at a rate above 0; the tower's unread norm is never trained here."""
    still = tuple(start for start, scale in lr_scale.items() if scale == 0)
    for name, parameter in model.named_parameters():
        trained = name.startswith(TRAINED[stage]) and not name.startswith(still)
        parameter.requires_grad_(trained and "post_layernorm" not in name)
