"""FeCAM: the nearest class mean under a covariance of each class's own, nothing trained.

Classes spread differently in the features of a frozen network, and a distance that knows how each
one spreads tells them apart better than one distance for all. One pass over each experience, not
augmented, gives each class a mean and a covariance; a test image goes to the class that is nearest
under its own.

Reference: Dipam Goswami, Yuyang Liu, Bartlomiej Twardowski, Joost van de Weijer, "FeCAM: Exploiting
the Heterogeneity of Class Distributions in Exemplar-Free Continual Learning", NeurIPS 2023,
arXiv:2309.14062.

With n(f) the feature of an image at length 1, and by class mu its mean, Sigma its covariance:

    shrink       S = Sigma + a1 mean(diagonal of Sigma) I + a2 mean(the rest of Sigma) (1 1' - I)
    normalise    R = S / (s s'),  s the square roots of the diagonal of S
    answer       argmin of (n(f) - mu)' R^+ (n(f) - mu) over the classes seen

`cl_adapters/heads/mahalanobis.py` computes it. The defaults are those of the authors' script for
ViTs on CIFAR-100: a1 = 1, a2 = 0; they take 10 and 10 on ImageNet-R.

Differs from the authors' code, whatever `fidelity` says:
    `scale`              of the reported confidence; theirs reports none, and the answer is the same
    `power`              Tukey's, which they have for networks with features above 0 and not for
                         ViTs; here of numbers of either sign, with the sign kept
    one image            a class without spread takes the average covariance of the others, where
                         theirs divides by zero
Variants: `form="pilot"` is what LAMDA-PILOT computes (covariance of features as they are, 100 I,
correlations between rows), there after a first session, which `first_session=True` adds; its
adapter's output counts a tenth there, `peft_scale=0.1`, which `official` sets.
"""

from typing import Self

import torch
from pydantic import Field, model_validator

from cl_adapters.heads.mahalanobis import Form, MahalanobisHead
from cl_adapters.strategies.core.first_session import (
    FirstSessionConfig,
    FirstSessionModel,
    FirstSessionStrategy,
)
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["FeCAM", "FeCAMConfig"]


class FeCAMConfig(FirstSessionConfig):
    """Options of FeCAM; those of the first session have no effect without it."""

    first_session: bool = Field(default=False, description="adapt the network to experience 0")
    form: Form = Field(
        default="authors", description="authors, or pilot: what LAMDA-PILOT computes"
    )
    shrink_diagonal: float = Field(default=1.0, ge=0, description="a1, of the mean variance")
    shrink_rest: float = Field(default=0.0, ge=0, description="a2, of the mean covariance")
    power: float = Field(default=1.0, gt=0, description="Tukey's, of each feature; 1: none")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = self.shrink_diagonal, self.shrink_rest
        if self.form == "pilot" and given != (1.0, 0.0):
            raise ValueError(
                "`shrink_diagonal` and `shrink_rest` must stay at 1.0 and 0.0 with form 'pilot', "
                f"which adds 100 to each variance, got {given[0]} and {given[1]}"
            )
        return self


class FeCAM(FirstSessionStrategy):
    """Keeps a mean and a covariance of each class, and answers with the nearest under its own."""

    config_class = FeCAMConfig
    config: FeCAMConfig
    pieces = ("first session", "statistics")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: FeCAMConfig, seed: int) -> FirstSessionModel:
        """Returns the backbone with no class yet."""
        head = MahalanobisHead(
            backbone.embed_dim,
            form=config.form,
            shrinkage=(config.shrink_diagonal, config.shrink_rest),
            power=config.power,
            scale=config.scale,
        )
        return FirstSessionModel(backbone, config, seed, head)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Adds the experience to its classes' means and covariances."""
        features, labels = zip(*self.plain_features(), strict=True)
        self.model.head.add(torch.cat(features), torch.cat(labels))
