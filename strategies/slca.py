"""SLCA: all weights learn, but slowly, and the classifier is aligned afterwards.

A copy of the whole network is trained in every experience, at a hundredth of the head's learning
rate, and nothing else protects what it knew. All heads are then aligned on Gaussians of the
classes, as their features were when their images were there; the next experience begins with the
heads as they were before.

Reference: Gengwei Zhang, Liyuan Wang, Guoliang Kang, Ling Chen, Yunchao Wei, "SLCA: Slow Learner
with Classifier Alignment for Continual Learning on a Pre-trained Model", ICCV 2023,
arXiv:2303.05118.

With f the features of the network as it is, mu_c and Sigma_c of class c, t_c its experience:

    training       a new linear head at `lr`, all weights of the network at `lr_ratio` times `lr`,
                   both at a tenth from epoch `milestone` on; cross-entropy over the current
                   classes; heads of old classes stay as they are
    statistics     mean and covariance of f for each class of the experience, never updated
    alignment      from experience 1 on all heads learn from samples of N(s_c mu_c, Sigma_c),
                   s_c = 0.9 + 0.1 (t_c + 1) / (t + 1); the logits z are divided by the mean over
                   experiences of the length of their part of z, and by tau
    answer         argmax over the aligned heads: one pass
    next           the heads are put back as they were before the alignment

Differs from the authors' code, unless `fidelity="official"`:
    `lr_ratio=0.1`, `epochs`, `batch_size`, `milestone`   a network that learns enough in the few
                             steps of a small stream (theirs for CIFAR-100: 0.01, 20, 128, 18)
    `statistics="low_rank"`  128 directions and a diagonal; theirs keeps D x D numbers a class
Without an option: theirs takes the experience of a class from the size of an experience, which is
wrong where these differ; colours are not jittered. Ours draws other random numbers. A class that
returns keeps the statistics of all its experiences, and its head learns on.
For Cars theirs takes `logit_temperature=0.05`. Not built in: SLCA++, which trains low-rank updates.
"""

from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.alignment import MeanScaling
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.strategies.core.aligned import AlignedModel, AlignedStrategy
from cl_adapters.strategies.core.config import SGDConfig
from cl_adapters.strategies.core.optimizers import set_step_rates, sgd
from cl_adapters.strategies.core.statistics import AlignmentConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier
from cl_adapters.vit.reweighted import OwnWeights

__all__ = ["SLCA", "SLCAConfig", "SLCAModel"]


class SLCAConfig(SGDConfig, AlignmentConfig):
    """Options of SLCA."""

    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    lr: float = Field(default=0.01, gt=0, description="of SGD, the head's")
    lr_ratio: float = Field(default=0.1, ge=0, description="the network's, as a share of `lr`")
    milestone: int | None = Field(
        default=None, ge=1, description="epoch from which rates are a tenth; None: none"
    )
    alignment_epochs: int = Field(default=5, ge=1, description="rounds of new samples")
    alignment_lr: float = Field(default=0.01, gt=0, description="of SGD, cosine to 0")
    alignment_samples: int | None = Field(
        default=256,
        ge=1,
        description="of a class in a round, and in a step; None: five times `batch_size`",
    )
    mean_scaling: MeanScaling = Field(
        default="slca",
        description="factor on class means: slca, the older the smaller; tuna, as published, "
        "the newer the smaller",
    )
    logit_temperature: float | None = Field(
        default=0.1, gt=0, description="tau of logits of normalised length; None: as they are"
    )
    head_restore: bool = Field(
        default=True, description="put the head back as it was before it learns on"
    )

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(batch_size=128, epochs=20, lr_ratio=0.01, milestone=18, statistics="full")


class SLCAModel(AlignedModel):
    """The backbone, all of its weights once more to be trained, heads, and class statistics."""

    def __init__(self, backbone: AdaptedViT, config: SLCAConfig, seed: int) -> None:
        del seed  # nothing is drawn but the heads
        heads = build_trained_head("linear", backbone.embed_dim, init_std=0.02)
        super().__init__(backbone, config, heads)
        self.network = OwnWeights(backbone)

    def features(self, images: Tensor) -> Tensor:
        """Returns the features of the network under its own weights.

        Shape:
            images: (B, 3, S, S). Output: (B, D).
        """
        return self.network.features(self.backbone, images)

    def fixed_graph(self) -> nn.Module:
        """Returns the network with its own weights as one that is frozen, and the heads."""
        return AdaptedClassifier(self.network.merged(self.backbone), None, self.heads)


class SLCA(AlignedStrategy):
    """Trains all weights slowly and aligns the heads on class Gaussians."""

    config_class = SLCAConfig
    config: SLCAConfig
    model: SLCAModel
    pieces = ("backbone", "heads", "statistics")

    def begin_experience(self) -> None:
        """Lets the whole network learn, with the new head."""
        super().begin_experience()
        self.model.network.requires_grad_(requires_grad=self.config.lr_ratio > 0)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9, slower for the network."""
        lr, decay, share = self.config.lr, self.config.weight_decay, self.config.lr_ratio
        return sgd(parameters, lr, decay, slower=self.model.network, share=share)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers both learning rates to a tenth from the milestone on."""
        set_step_rates(self.optimizer, epoch, self.config.milestone or self.config.epochs)

    def end_experience(self) -> None:
        """Keeps statistics of the new classes and aligns all heads."""
        features, labels = self.plain_features()
        self.keep_statistics(features, labels)
        self.align_heads()

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: SLCAConfig, seed: int) -> SLCAModel:
        """Returns the backbone and a copy of its weights that has learned nothing yet."""
        return SLCAModel(backbone, config, seed)
