"""Stage 0a: the vision tower learns to see, from random weights.

Two losses share the tower. A sigmoid pair loss (SigLIP, 2303.15343) matches the pooled picture of a single drawing
with the name of its concept among all names; and every patch is asked what it shows and in which colour. The second
is not part of SigLIP: labels come for free with composed scenes, and 81 of them per picture teach a small tower far
faster than one. A softmax over the names is added to the pair loss for the same reason. All heads are thrown away.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layout import TRAIN, Side, vision_scene
from .loop import Batch, Log
from .models import SiglipTower, VisionConfig, initialise
from .scenes import COLOUR_NAMES, IGNORED, Renderer
from .world import World


class VisionLearner(nn.Module):
    """The tower with the heads of its stage.

    Args:
        config: Sizes of the tower.
        n_labels: Number of things that a patch can show.
        names: The concepts' names; their words are embedded and averaged, as a text tower in small.
        select_layer: Hidden state that the LLM will read; the heads read the same one.
    """

    def __init__(self, config: VisionConfig, n_labels: int, names: list[str], select_layer: int = -1) -> None:
        super().__init__()
        width = config.hidden_size
        self.tower = SiglipTower(config, select_layer)
        self.what = nn.Linear(width, n_labels)
        self.colour = nn.Linear(width, len(COLOUR_NAMES))
        words = sorted({word for name in names for word in name.split()})
        bag = torch.zeros(len(names), len(words))
        for row, name in enumerate(names):
            for word in name.split():
                bag[row, words.index(word)] = 1 / len(name.split())
        self.register_buffer("bag", bag, persistent=False)
        self.words = nn.Linear(len(words), width, bias=False)
        self.text = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.image = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-6.0))
        initialise(self)

    def pairs(self, features: Tensor) -> Tensor:
        """Cosine similarities of pooled pictures and all names, times the scale: `[B, n_names]`."""
        pooled = self.image(self.tower.vision_model.post_layernorm(features.mean(dim=1)))
        names = self.text(self.words(self.bag))
        similarity = F.normalize(pooled.float(), dim=-1) @ F.normalize(names.float(), dim=-1).T
        return similarity * self.scale.exp()


class VisionTask:
    """Labelled scenes and the losses on them."""

    def __init__(
        self, world: World, config: VisionConfig, seed: int, batch: int, *, side: Side = TRAIN, pixels: int = 0
    ) -> None:
        self.world = world
        self.renderer = Renderer(world, pixels or config.image_size, config.patch_size)
        self.zoom = config.image_size / self.renderer.side
        self.seed, self.size, self.side = seed, batch, side

    def batch(self, index: int) -> Batch:
        """Pictures `[B, S, S, 3]` u8, patch labels `[B, N]` twice, and the concept of single drawings `[B]`."""
        pictures, whats, colours, alone = [], [], [], []
        for row in range(self.size):
            rng = np.random.default_rng([self.seed, 1, index, row])
            scene, concept = vision_scene(self.world, rng, self.side, self.zoom)
            picture, what, colour = self.renderer.render_labelled(scene)
            pictures.append(picture)
            whats.append(what.ravel())
            colours.append(colour.ravel())
            alone.append(concept)
        return {
            "pictures": torch.from_numpy(np.stack(pictures)),
            "what": torch.from_numpy(np.stack(whats).astype(np.int64)),
            "colour": torch.from_numpy(np.stack(colours).astype(np.int64)),
            "alone": torch.tensor(alone),
        }

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Log]:
        """Patch losses plus the pair losses of single drawings."""
        assert isinstance(model, VisionLearner)
        features = model.tower(normalise(batch["pictures"]))
        logits = model.what(features).float()
        target = batch["what"]
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        weight = torch.where(target.flatten() == 0, 0.2, 1.0)
        patch = (each * weight).sum() / weight.sum()
        colours = model.colour(features).float().flatten(0, 1)
        known = (batch["colour"] != IGNORED).sum().clamp_min(1)
        colour = F.cross_entropy(colours, batch["colour"].flatten(), ignore_index=IGNORED, reduction="sum") / known
        single = batch["alone"] >= 0
        named = batch["alone"][single]
        pairs = model.pairs(features[single])
        hot = F.one_hot(named, pairs.shape[1]) * 2.0 - 1.0
        count = max(1, len(named))
        sigmoid = -F.logsigmoid(hot * (pairs + model.bias)).sum() / count
        softmax = F.cross_entropy(pairs, named, reduction="sum") / count
        with torch.no_grad():
            seen = target > 0
            right_patch = (logits.argmax(-1) == target)[seen].sum() / seen.sum().clamp_min(1)
            right_name = (pairs.argmax(-1) == named).sum() / count
        log = {
            "patch": float(patch.detach()),
            "colour": float(colour.detach()),
            "pair": float(sigmoid.detach()),
            "right_patch": float(right_patch),
            "right_name": float(right_name),
        }
        return patch + 0.3 * colour + 0.2 * sigmoid + 0.2 * softmax, log


def normalise(pictures: Tensor) -> Tensor:
    """Maps u8 `[B, S, S, 3]` to what the tower reads: `[B, 3, S, S]` in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().mul(1 / 255).sub(0.5).div(0.5)


def probe(
    model: VisionLearner, world: World, side: Side, *, count: int = 600, seed: int = 99, pixels: int = 0
) -> dict[str, float]:
    """Share of single drawings of a split side that the pair logits name rightly."""
    model.eval()
    task = VisionTask(world, model.tower.config, seed, 100, side=side, pixels=pixels)
    right = total = index = 0
    while total < count:
        batch = task.batch(index)
        single = batch["alone"] >= 0
        with torch.no_grad():
            pairs = model.pairs(model.tower(normalise(batch["pictures"][single])))
        right += int((pairs.argmax(-1) == batch["alone"][single]).sum())
        total += int(single.sum())
        index += 1
    model.train()
    return {"right": right / total, "count": float(total)}
