"""LoRanPAC: random projections and least squares on their strongest directions.

RanPAC keeps a matrix of M x M numbers and damps what is uncertain with a ridge strength. Here many
more projections are drawn, and of what they show only the strongest directions are kept: the
truncation is what regularises, and memory grows with M, not with its square.

Reference: Liangzu Peng, Juan Elenter, Joshua Agterberg, Alejandro Ribeiro, René Vidal, "LoRanPAC:
Low-rank Random Features and Pre-trained Models for Bridging Theory and Practice in Continual
Learning", ICLR 2025, arXiv:2410.00645.

With f the features of an image and R a fixed matrix of standard normal numbers, (D, M):

    h = relu(f R)
    H' = U diag(s) V'                          the strongest k directions over all images,
                                               k = min(share N, share M, rank), N the images so
                                               far, by chunks of `chunk` images
    C <- C + H' Y
    scores = h U diag(1 / (s^2 + lambda)) U' C        lambda = 0 by default

`cl_adapters/heads/truncated.py` computes it. There is no held-out search.

Differs from the authors' code, unless `fidelity="official"`:
    `projections=10_000`   they take 100,000 for a backbone of width 768, and
    `rank=1000`            10,000 directions: 4 GB in memory and in each checkpoint, where the
                           defaults take 40 MB
    `chunk=1000`           10,000 images; where no direction is dropped it changes nothing
Variant: `first_session=True` adapts the network to experience 0 before.
"""

from typing import Self

import torch
from pydantic import Field

from cl_adapters.heads.truncated import TruncatedHead
from cl_adapters.strategies.core.first_session import (
    FirstSessionConfig,
    FirstSessionStrategy,
)
from cl_adapters.strategies.ranpac import ProjectedModel, project
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["LoRanPAC", "LoRanPACConfig"]


class LoRanPACConfig(FirstSessionConfig):
    """Options of LoRanPAC; those of the first session have no effect without it."""

    first_session: bool = Field(default=False, description="adapt the network to experience 0")
    projections: int = Field(default=10_000, ge=1, description="M, width of the projection")
    rank: int = Field(default=1000, ge=1, description="most directions that are kept")
    share: float = Field(
        default=0.75, gt=0, le=1, description="of the images so far, and of M: most directions"
    )
    strength: float = Field(default=0.0, ge=0, description="lambda, damps what is kept")
    chunk: int = Field(default=1000, ge=1, description="images of an update")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings."""
        return cls(projections=100_000, rank=10_000, chunk=10_000, peft_scale=0.1)


class LoRanPAC(FirstSessionStrategy):
    """Regresses classes on the strongest directions of many random projections, in closed form."""

    config_class = LoRanPACConfig
    config: LoRanPACConfig
    model: ProjectedModel
    pieces = ("first session", "regression")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: LoRanPACConfig, seed: int) -> ProjectedModel:
        """Returns the backbone, a projection drawn from the run's seed, and no classes yet."""
        head = TruncatedHead(
            config.projections, rank=config.rank, share=config.share, scale=config.scale
        )
        return ProjectedModel(backbone, config, seed, head, config.projections)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Adds the experience to the directions, and solves for the classifier."""
        model, chunk = self.model, self.config.chunk
        rows, labels = zip(*self.plain_features(), strict=True)
        features, targets = torch.cat(rows), torch.cat(labels)
        with self.events.timed("directions", len(features)):
            for part, known in zip(
                torch.split(features, chunk), torch.split(targets, chunk), strict=True
            ):
                model.head.add(project(part, model.weight), known)
            model.head.solve(self.config.strength)
