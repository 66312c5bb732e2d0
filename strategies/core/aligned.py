"""Methods that align all heads on Gaussians of the classes after each experience.

Each experience trains a head of its own over its classes, which are compared with no others; the
heads of earlier experiences stay as they are meanwhile. Afterwards mean and covariance of each
class are taken from the features of its images, and from experience 1 on all heads together learn
from samples of these Gaussians, old classes and new ones alike.

    AlignedModel      the backbone, the heads, and what is kept of each class
    AlignedStrategy   what a method with such a model subclasses: it says what beside the heads is
                      trained, and in which order statistics, alignment and its own come
    AlignedPeft...    the same with one PEFT set that is trained on and on, under heads of cosines

Reference: Gengwei Zhang, Liyuan Wang, Guoliang Kang, Ling Chen, Yunchao Wei, "SLCA: Slow Learner
with Classifier Alignment for Continual Learning on a Pre-trained Model", ICCV 2023,
arXiv:2303.05118.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.linear import ExperienceHeads, cross_entropy_over
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.strategies.core.config import AdapterSGDConfig
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.statistics import AlignmentConfig, collect_features
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = [
    "AlignedModel",
    "AlignedPeftConfig",
    "AlignedPeftModel",
    "AlignedPeftStrategy",
    "AlignedStrategy",
]


class AlignedModel(nn.Module):
    """The backbone, heads by experience, and what is kept of each class.

    Args:
        backbone: The frozen ViT.
        config: What is kept, and whether heads are put back.
        heads: Without a class yet.
    """

    def __init__(
        self, backbone: AdaptedViT, config: AlignmentConfig, heads: ExperienceHeads
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.classes = config.build_statistics(backbone.embed_dim)
        self.class_to_task = ClassToTask()  # the last experience of each class
        self.unaligned = config.build_unaligned()

    def features(self, images: Tensor) -> Tensor:
        """Returns the features of the network in training.

        Shape:
            images: (B, 3, S, S). Output: (B, D).
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of all heads.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        logits: Tensor = self.heads(self.features(images))
        return logits


class AlignedStrategy(AdapterStrategy):
    """Trains a head an experience and aligns all of them on class Gaussians."""

    config: Any  # with the options of `SGDConfig` and `AlignmentConfig`
    model: AlignedModel

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Puts back the head if it is to be, and adds one for the new classes."""
        self.config.restore_head(self.model)
        self.model.heads.add_classes(classes, generator)
        self.model.class_to_task.register(classes, len(self.classes_by_experience) - 1)

    def begin_experience(self) -> None:
        """Lets the heads of the current classes learn, and nothing else."""
        self.model.requires_grad_(requires_grad=False)
        self.model.heads.train_only(self.current_classes)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes."""
        return cross_entropy_over(self.current_classes, logits, targets)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9."""
        return sgd(parameters, self.config.lr, self.config.weight_decay)

    def plain_features(self, purpose: str = "statistics") -> tuple[Tensor, Tensor]:
        """Returns the features (n, D) of the experience's images, not augmented, and labels (n,).

        Args:
            purpose: Under which the time is noted.
        """
        self.model.eval()
        with self.events.timed(purpose, len(self.experience.dataset)):
            return collect_features(self.plain_images(), self.current_features)

    def current_features(self, images: Tensor) -> Tensor:
        """Returns the features (B, D) of images (B, 3, S, S) as the network is now."""
        with self.features.autocast():
            return self.model.features(images).float()

    def keep_statistics(self, features: Tensor, labels: Tensor) -> None:
        """Adds Gaussians of features (n, D) by label (n,) to what is kept."""
        for label in self.model.classes.add_all(features, labels):
            self.log_event("statistics", **{"class": label}, rule="spread of an average class")

    def align_heads(self) -> nn.Linear | None:
        """Aligns all heads, from experience 1 on; returns what the config's `align` does."""
        if len(self.classes_by_experience) < 2:
            return None
        aligned: nn.Linear | None = self.config.align(
            self.model, self.generator("alignment"), self.events
        )
        return aligned


class AlignedPeftConfig(AdapterSGDConfig, AlignmentConfig):
    """Options of a PEFT set that is trained on and on, under heads of cosines."""

    batch_size: int = Field(default=32, ge=1, description="images in a training step")
    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    head_scale: float = Field(default=20.0, gt=0, description="of the head's cosines")
    margin: float = Field(default=0.0, ge=0, lt=2, description="m, by which a cosine has to win")
    head_freeze: bool = Field(
        default=True, description="keep heads of old classes; false: weight decay shortens them"
    )


class AlignedPeftModel(AlignedModel):
    """The backbone, one PEFT set in training, heads of cosines, and what is kept of each class."""

    def __init__(self, backbone: AdaptedViT, config: AlignedPeftConfig, seed: int) -> None:
        heads = build_trained_head(
            "cosine", backbone.embed_dim, init_std=0.02, scale=config.head_scale
        )
        super().__init__(backbone, config, heads)
        self.current_adapters = config.build_stack(backbone, seed)

    def features(self, images: Tensor) -> Tensor:
        """Returns the features under the set in training.

        Shape:
            images: (B, 3, S, S). Output: (B, D).
        """
        found: Tensor = self.backbone(images, self.current_adapters.adapters())
        return found


class AlignedPeftStrategy(AlignedStrategy):
    """Trains one PEFT set on and on, with a head an experience."""

    model: AlignedPeftModel

    def begin_experience(self) -> None:
        """Lets the set learn on, with the heads of the current classes.

        The loss asks no other head, so that where all may learn only weight decay reaches the
        others: their cosines stay, but the next alignment turns shorter rows further.
        """
        super().begin_experience()
        if not self.config.head_freeze:
            self.model.heads.requires_grad_(requires_grad=True)
        self.model.current_adapters.requires_grad_(requires_grad=True)
        self.model.current_adapters.noise = self.generator("dropout", self.device)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes, each target's cosine less by m."""
        margin = self.config.head_scale * self.config.margin
        return cross_entropy_over(self.current_classes, logits, targets, margin=margin)

    def generators(self) -> dict[str, torch.Generator]:
        """Returns what the set's dropout draws from."""
        noise = self.model.current_adapters.noise
        return {} if noise is None else {"dropout": noise}
