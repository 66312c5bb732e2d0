"""RanPAC: random projections and ridge regression on frozen features.

The features of the frozen backbone are projected at random into many more dimensions, where a
nonlinearity lets a linear classifier separate what it could not before. The classifier is a ridge
regression over all images so far, in closed form: nothing is trained, nothing is forgotten. It
weighs class means by the inverse of the features' second moments, which decorrelates them.

Reference: Mark D. McDonnell, Dong Gong, Amin Parvaneh, Ehsan Abbasnejad, Anton van den Hengel,
"RanPAC: Random Projections and Pre-trained Models for Continual Learning", NeurIPS 2023,
arXiv:2307.02251.

Phase 1, in the first experience alone: PEFT modules beside the MLP of every block are trained with
a cosine head, cross-entropy and SGD, then frozen (`core/first_session.py`). Phase 2, in every
experience: with f the features of an image and W a fixed matrix of standard normal numbers, (D, M):

    h = relu(f W)
    G <- G + H' H,  C <- C + H' Y       over the images of each experience, once
    lambda                              least squared error on a held-out fifth of the experience,
                                        among 10^-8 ... 10^8, the regression fitted on the others
    scores = h (G + lambda I)^-1 C      by Cholesky, after each experience

Differs from the authors' code, unless `fidelity="official"`:
    `projections=2000`   they take 10,000, for a backbone of width 768; ours has 192
    `peft_scale=1.0`     their adapter's output counts a tenth, which learns little in the few steps
                         of a small first experience
Without an option: they choose the PEFT module by data set, and train it in phase 1 with batches of
48 whatever the size later; W is drawn before phase 1, not after it, from a source of its own.
Variants: `first_session=False` leaves phase 1 out, as their ablation; `normalise_columns=True` is
what LAMDA-PILOT computes, whose ridge weights stand in a cosine layer: h and each class's weights
have length 1 in the scores, and the answers may be others.

What it costs: G has M x M numbers of 8 bytes, 32 MB for 2,000 and 800 MB for 10,000, in memory and
in each checkpoint; twice that while it is solved.
"""

from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.errors import check_memory
from cl_adapters.heads.ridge import RidgeHead, choose_strength
from cl_adapters.strategies.core.first_session import (
    FirstSessionConfig,
    FirstSessionModel,
    FirstSessionStrategy,
)
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["ProjectedModel", "RanPAC", "RanPACConfig", "project"]


class RanPACConfig(FirstSessionConfig):
    """Options of RanPAC."""

    projections: int = Field(default=2000, ge=1, description="M, width of the random projection")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")
    strength: float = Field(
        default=1.0, gt=0, description="lambda where an experience is too small to choose one"
    )
    normalise_columns: bool = Field(
        default=False, description="answer by cosines to the ridge weights, as LAMDA-PILOT does"
    )

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings."""
        return cls(projections=10_000, peft_scale=0.1)


def project(features: Tensor, weight: Tensor) -> Tensor:
    """Returns relu(f W).

    Shape:
        features: (B, D). weight: (D, M). Output: (B, M), float32.

    Example:
        >>> project(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -3.0], [1.0, 1.0]])).tolist()
        [[3.0, 0.0]]
    """
    with torch.autocast(features.device.type, enabled=False):  # sums of many squares follow
        return torch.relu(features.float() @ weight)


class ProjectedModel(FirstSessionModel):
    """The backbone, adapted or not, a random projection, and a classifier on what it gives.

    Args:
        backbone: The frozen ViT.
        config: Whether there is a first session, and which.
        seed: Of the projection, and of the initial weights.
        head: As for `FirstSessionModel`, on M features.
        projections: M.

    Raises:
        InputError: If the machine has not the memory.
    """

    def __init__(
        self,
        backbone: AdaptedViT,
        config: FirstSessionConfig,
        seed: int,
        head: nn.Module,
        projections: int,
    ) -> None:
        super().__init__(backbone, config, seed, head)
        width = backbone.embed_dim
        check_memory(f"{projections:,} projections of {width} features", 4 * width * projections)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(width, projections, generator=generator)
        self.register_buffer("weight", weight)
        self.weight: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Returns the scores (B, C) of features (B, D)."""
        return super().scores(project(features, self.weight))


class RanPAC(FirstSessionStrategy):
    """Adapts to experience 0, then regresses classes on random projections, in closed form."""

    config_class = RanPACConfig
    config: RanPACConfig
    model: ProjectedModel
    pieces = ("first session", "regression")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: RanPACConfig, seed: int) -> ProjectedModel:
        """Returns the backbone, a projection drawn from the run's seed, and no classes yet."""
        head = RidgeHead(
            config.projections, scale=config.scale, normalise_columns=config.normalise_columns
        )
        return ProjectedModel(backbone, config, seed, head, config.projections)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Adds the experience to the regression and solves it."""
        rows, targets = zip(
            *((project(found, self.model.weight), known) for found, known in self.plain_features()),
            strict=True,
        )
        features, labels = torch.cat(rows), torch.cat(targets)
        with self.events.timed("ridge", len(features)):
            chosen = choose_strength(features, labels, self.generator("held out"))
            strength = chosen or self.config.strength  # too few images to hold any out
            self.model.head.add(features, labels)
            strength = self.model.head.solve_from(strength)
        self.log_event("ridge", strength=strength)
