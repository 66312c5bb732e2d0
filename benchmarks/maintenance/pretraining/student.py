"""The student network with its training heads, and the losses that teach it.

Three kinds of images share one batch: photographs follow the teacher's features and their labels,
glyphs and emblems their classes. Only the network itself ships; the heads are dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.benchmarks.maintenance.pretraining.distortions import distort, random_views
from cl_adapters.benchmarks.maintenance.pretraining.glyphs import (
    EmblemBank,
    GlyphBank,
    draw_emblems,
    draw_glyphs,
)
from cl_adapters.benchmarks.maintenance.pretraining.pruning import prune

__all__ = ["ARCHITECTURE", "Batch", "Drawings", "Student", "make_batch"]

ARCHITECTURE: Final[dict[str, Any]] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "mlp_ratio": 2.0,
    "num_classes": 0,
}


class CosineClassifier(nn.Module):
    """Class scores as scaled cosines, the geometry that nearest-class-mean reads."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Returns scores, (B, D) -> (B, C)."""
        return 16 * functional.linear(
            functional.normalize(features, dim=-1), functional.normalize(self.weight, dim=-1)
        )


@dataclass(frozen=True, eq=False)
class Drawings:
    """The classes that are drawn rather than photographed."""

    glyphs: GlyphBank
    emblems: EmblemBank

    @classmethod
    def make(cls, num_glyphs: int, num_emblems: int, *, seed: int) -> "Drawings":
        """Returns random classes of both kinds."""
        return cls(
            GlyphBank.make(num_glyphs, seed=seed), EmblemBank.make(num_emblems, seed=seed + 1)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch: photographs first, then glyphs, then emblems.

    Attributes:
        images: Normalised to [-1, 1], (B, 3, 32, 32).
        rows: Which photographs, (P,).
        glyphs: Class of each glyph, (G,).
        emblems: Class of each emblem, (E,).
    """

    images: Tensor
    rows: Tensor
    glyphs: Tensor
    emblems: Tensor


def make_batch(
    pixels: Tensor, rows: Tensor, drawings: Drawings, num_drawn: int, source: torch.Generator
) -> Batch:
    """Returns distorted views of photographs with as many new glyphs and emblems.

    Args:
        pixels: All photographs, (N, 3, H, W), uint8.
        rows: Which photographs to show, (P,).
        drawings: The drawn classes.
        num_drawn: Number of glyphs, and of emblems.
        source: Randomness.
    """
    glyphs = torch.randint(len(drawings.glyphs.control), (num_drawn,), generator=source)
    emblems = torch.randint(len(drawings.emblems.sides), (num_drawn,), generator=source)
    views = random_views(pixels[rows], source)
    ground = views[torch.randint(len(views), (num_drawn,), generator=source)]
    parts = [
        views,
        draw_glyphs(drawings.glyphs, glyphs, source),
        draw_emblems(drawings.emblems, emblems, ground, source),
    ]
    return Batch(distort(torch.cat(parts), source) * 2 - 1, rows, glyphs, emblems)


class Student(nn.Module):
    """The network to pretrain with one head for each thing it learns from.

    Args:
        teacher: Weights of the teacher: the start of the network, and a classifier kept frozen.
        num_labels: Classes of the photographs.
        num_glyphs: Classes of glyphs.
        num_emblems: Classes of emblems.
    """

    head_weight: Tensor
    head_bias: Tensor

    def __init__(
        self, teacher: Mapping[str, Tensor], num_labels: int, num_glyphs: int, num_emblems: int
    ) -> None:
        super().__init__()
        # Tokens are dropped early in training only, see `drop_tokens`.
        self.network = VisionTransformer(**ARCHITECTURE, patch_drop_rate=0.5)
        for block in self.network.blocks:
            block.attn.fused_attn = False  # the fused bf16 backward on CPU is half as fast
        self.network.load_state_dict(prune(teacher, depth=6, hidden=384, patch_size=4, grid=8))
        width = ARCHITECTURE["embed_dim"]
        self.to_teacher = nn.Linear(width, width)
        nn.init.eye_(self.to_teacher.weight)
        self.labels = CosineClassifier(width, num_labels)
        self.glyphs = CosineClassifier(width, num_glyphs)
        self.emblems = CosineClassifier(width, num_emblems)
        self.register_buffer("head_weight", teacher["head.weight"], persistent=False)
        self.register_buffer("head_bias", teacher["head.bias"], persistent=False)

    def drop_tokens(self, share: float) -> None:
        """Sets the share of patch tokens that training leaves out, which makes steps cheaper."""
        self.network.patch_drop.prob = share

    def _teacher_scores(self, features: Tensor) -> Tensor:
        return functional.linear(features, self.head_weight, self.head_bias)

    def losses(self, batch: Batch, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the parts of the loss by name.

        Args:
            batch: The images.
            teacher: Teacher features of all photographs, (N, 192).
            labels: Class of all photographs, (N,).
        """
        with torch.autocast("cpu", torch.bfloat16):
            features = cast("Tensor", self.network(batch.images))
        features = features.float()
        sizes = [len(batch.rows), len(batch.glyphs), len(batch.emblems)]
        photos, glyphs, emblems = torch.split(features, sizes)
        target, guess = teacher[batch.rows], self.to_teacher(photos)
        # Centred, since the mean of the teacher's features says nothing about an image.
        centre = teacher.mean(dim=0)
        soft = self._teacher_scores(target).softmax(dim=-1)
        return {
            "features": 1 - functional.cosine_similarity(guess - centre, target - centre).mean(),
            "teacher": functional.cross_entropy(self._teacher_scores(guess), soft),
            "labels": functional.cross_entropy(
                self.labels(photos), labels[batch.rows], label_smoothing=0.1
            ),
            "glyphs": functional.cross_entropy(self.glyphs(glyphs), batch.glyphs),
            "emblems": functional.cross_entropy(self.emblems(emblems), batch.emblems),
        }
