"""Stages 1 to 3 of VILA: align the projector, pre-train on interleaved pictures and text, tune on conversations.

`align` shows one picture and learns its caption (`<image>caption` and a line feed); `pretrain` shows documents of
several pictures between their captions and, a quarter of the time, text alone; `sft` holds conversations of all tasks
and learns the answers only.
"""

from __future__ import annotations

import math
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
    "name": 0.10, "caption": 0.12, "count": 0.16, "colour": 0.06, "position": 0.14, "exists": 0.10, "changed": 0.08,
    "video": 0.06, "read": 0.09, "easy-vqa": 0.03, "in-context": 0.02, "text": 0.04,
}  # fmt: skip
PICTURES_PER_ROW = {"align": 12, "pretrain": 12, "sft": 7}  # of 512 tokens; about as many as those tokens hold
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

    Conversations are packed into `stage.batch` rows of `stage.row` tokens and do not see each other. All batches of a
    stage have one shape, pictures included, so that a GPU never waits for memory or for the choice of a kernel.
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
        self.rows, self.length = stage.batch, stage.row
        self.n_pictures = math.ceil(stage.batch * stage.row * PICTURES_PER_ROW[stage.name] / 512)
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
        """What `Packer` gives, filled with conversations until one finds no place."""
        packer = Packer(self.rows, self.length, self.n_pictures, self.per_picture, side=self.painter.renderer.side)
        while packer.add(self.make(np.random.default_rng([*self.key, index, packer.count]))):
            pass
        return packer.batch()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Log]:
        """Mean cross-entropy of the learnt tokens, in nats."""
        assert isinstance(model, Vila)
        visual = encode_pictures(model, batch["pictures"])
        states = model.llm(model.splice(batch["ids"], visual, batch["source"]), batch["document"])
        learnt = batch["target"] >= 0
        logits = model.llm.logits(states[learnt]).float()
        goal = batch["target"][learnt]
        with torch.no_grad():
            right = (logits.argmax(-1) == goal).float().mean()
        return F.cross_entropy(logits, goal), {"right_token": float(right)}


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


class Packer:
    """Rows of one length that take up conversations one after the other.

    Args:
        rows: Number of rows B.
        length: Tokens of a row L.
        n_pictures: Pictures of a batch P; what is not used is black and costs its encoding all the same.
        per_picture: Rows of the language model that a picture takes.
        side: Width and height of pictures in pixels S.
    """

    def __init__(self, rows: int, length: int, n_pictures: int, per_picture: int, *, side: int) -> None:
        self.per_picture = per_picture
        self.used = [0] * rows
        self.pictures = np.zeros((n_pictures, side, side, 3), np.uint8)
        self.n_shown = 0
        self.count = 0
        fill = {"ids": 0, "source": -1, "target": IGNORED, "document": -1}
        self.parts = {name: np.full((rows, length), filler, np.int64) for name, filler in fill.items()}

    def add(self, example: Example) -> bool:
        """Puts a conversation into the first row that has the space; False if none has, or no place for its pictures.

        Raises:
            InvalidArgument: it would not even fit into an empty batch.
        """
        encoded, pictures = example
        ids, source, target = expand(encoded, self.per_picture, self.n_shown * self.per_picture)
        length = self.parts["ids"].shape[1]
        if len(ids) > length or len(pictures) > len(self.pictures):
            room = f"{length} tokens and {len(self.pictures)} pictures"
            raise InvalidArgument(
                f"[train] batch: expected conversations of at most {room}, got {len(ids)} and {len(pictures)}"
            )
        row = next((row for row, used in enumerate(self.used) if used + len(ids) <= length), None)
        if row is None or self.n_shown + len(pictures) > len(self.pictures):
            return False
        place = slice(self.used[row], self.used[row] + len(ids))
        for name, values in (("ids", ids), ("source", source), ("target", target), ("document", self.count)):
            self.parts[name][row, place] = values
        self.used[row] += len(ids)
        for picture in pictures:
            self.pictures[self.n_shown] = picture
            self.n_shown += 1
        self.count += 1
        return True

    def batch(self) -> Batch:
        """The tensors of the batch.

        Returns:
            `pictures` `[P, S, S, 3]` u8 and, each `[B, L]`: `ids`; `source`, the picture row to take (-1: none);
            `target`, what is to be predicted (-100: nothing); `document`, the conversation (-1: none).
        """
        tensors = {name: torch.from_numpy(values) for name, values in self.parts.items()}
        return {"pictures": torch.from_numpy(self.pictures), **tensors}


def freeze(model: Vila, stage: str, lr_scale: dict[str, float]) -> None:
    """Leaves gradients on for what a stage trains at a rate above 0; the tower's unread norm is never trained here."""
    still = tuple(start for start, scale in lr_scale.items() if scale == 0)
    for name, parameter in model.named_parameters():
        trained = name.startswith(TRAINED[stage]) and not name.startswith(still)
        parameter.requires_grad_(trained and "post_layernorm" not in name)
