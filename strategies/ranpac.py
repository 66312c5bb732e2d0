"""RanPAC: random projections and ridge regression on frozen features.

The features of the frozen backbone are projected at random into many more dimensions, where a
nonlinearity lets a linear classifier separate what it could not before. The classifier is a ridge
regression over all images so far, in closed form: nothing is trained, nothing is forgotten. It
weighs class means by the inverse of the features' second moments, which decorrelates them.

Reference: Mark D. McDonnell, Dong Gong, Amin Parvaneh, Ehsan Abbasnejad, Anton van den Hengel,
"RanPAC: Random Projections and Pre-trained Models for Continual Learning", NeurIPS 2023,
arXiv:2307.02251.

With f the features of an image and W a fixed matrix of standard normal numbers, (D, M):

    h = relu(f W)
    G <- G + H' H,  C <- C + H' Y       over the images of each experience, once
    lambda                              least squared error on a held-out fifth of the experience,
                                        among 10^-8 ... 10^8, the regression fitted on the others
    scores = h (G + lambda I)^-1 C      by Cholesky, after each experience

Differs from the authors' code: no first-session adaptation (its phase 1, which trains a PEFT module
on the first experience), so it stands beside the paper's rows without it; 2,000 projections by
default, for a backbone of width 192, where the paper takes 10,000 for 768. What it costs: G has M x
M numbers of 8 bytes, 32 MB for 2,000, in memory and in each checkpoint.
"""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.ridge import RidgeHead, choose_strength
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.strategy import AdapterStrategy, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["RanPAC", "RanPACConfig", "project"]


class RanPACConfig(StrategyConfig):
    """Options of RanPAC."""

    projections: int = Field(default=2000, ge=1, description="M, width of the random projection")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")
    strength: float = Field(
        default=1.0, gt=0, description="lambda where an experience is too small to choose one"
    )


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


class RanPACModel(nn.Module):
    """The backbone, the random projection and the regression."""

    def __init__(self, backbone: AdaptedViT, config: RanPACConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(backbone.embed_dim, config.projections, generator=generator)
        self.register_buffer("weight", weight)
        self.weight: Tensor
        self.head = RidgeHead(config.projections, scale=config.scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the scores of all classes.

        Shape:
            inputs: images (B, 3, S, S) or features (B, D). Output: (B, C).
        """
        features = inputs if inputs.ndim == 2 else self.backbone(inputs)
        scores: Tensor = self.head(project(features, self.weight))
        return scores


class RanPAC(AdapterStrategy):
    """Regresses classes on random projections of the frozen features, in closed form."""

    config_class = RanPACConfig
    config: RanPACConfig
    model: RanPACModel
    learns_by_gradient = False

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: RanPACConfig, seed: int) -> RanPACModel:
        """Returns the backbone, a projection drawn from the run's seed, and no classes yet."""
        return RanPACModel(backbone, config, seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:  # noqa: ARG002
        """Makes room for the new classes."""
        self.model.head.add_classes(classes)

    def frozen_features(self) -> FeatureExtractor:
        """Returns the whole backbone: no image passes it twice where there is a cache."""
        return self.features.feature_extractor(self.backbone, self.backbone)

    def phases(self) -> Iterator[Phase]:
        """Yields nothing: no epoch is trained."""
        yield from ()

    @torch.no_grad()
    def end_experience(self) -> None:
        """Adds the experience to the regression and solves it."""
        rows: list[Tensor] = []
        targets: list[Tensor] = []
        frozen = self.features.cached_features(self.experience.dataset, self.frozen_features())
        with self.events.timed("statistics", len(frozen)):
            for found, labels in frozen.batches():
                rows.append(project(found.to(self.device), self.model.weight))
                targets.append(labels.to(self.device))
        features, labels = torch.cat(rows), torch.cat(targets)
        with self.events.timed("ridge", len(features)):
            chosen = choose_strength(features, labels, self.generator("held out"))
            strength = chosen or self.config.strength  # too few images to hold any out
            self.model.head.add(features, labels)
            strength = self.model.head.solve_from(strength)
        self.log_event("ridge", strength=strength)
