"""SimpleCIL: class means of the frozen features, nothing trained.

One pass over each experience, without augmentation, adds its images to their class means; a test
image goes to the class whose mean has the largest cosine to its feature. What any method with
adapters has to beat.

Reference: Da-Wei Zhou, Zi-Wen Cai, Han-Jia Ye, De-Chuan Zhan, Ziwei Liu, "Revisiting
Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You
Need", IJCV 2024, arXiv:2303.07338.

Differs from the authors' code: `cosine_scale` multiplies the cosines before the softmax that gives
the reported confidence (theirs reports none); the argmax is the same.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.strategies.core.config import ClosedHead, ClosedHeadConfig, StrategyConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["PrototypeClassifier", "SimpleCIL", "SimpleCILConfig"]


class SimpleCILConfig(StrategyConfig, ClosedHeadConfig):
    """Options of SimpleCIL."""

    batch_size: int = Field(default=64, ge=1, description="images in a step")
    cosine_scale: float = Field(default=10.0, gt=0, description="of the reported confidence")


class PrototypeClassifier(nn.Module):
    """A frozen backbone and class means, or another closed form, over its features."""

    def __init__(self, backbone: AdaptedViT, head: ClosedHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, inputs: Tensor) -> Tensor:
        """Returns the features of images (B, 3, S, S), or what is given as such, (B, D)."""
        features: Tensor = inputs if inputs.ndim == 2 else self.backbone(inputs)
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the head's logits: scaled cosines to the class means.

        Shape:
            inputs: images (B, 3, S, S) or features (B, D). Output: (B, C).
        """
        logits: Tensor = self.head(self.features(inputs))
        return logits


class SimpleCIL(AdapterStrategy):
    """Adds each experience's images to their class means; nothing depends on the seed."""

    config_class = SimpleCILConfig
    config: SimpleCILConfig
    model: PrototypeClassifier
    pieces = ("prototypes",)
    learns_by_gradient = False
    trains_on_features = True
    role = "baseline"

    @classmethod
    def build_model(
        cls,
        backbone: AdaptedViT,
        config: SimpleCILConfig,
        seed: int,  # noqa: ARG003
    ) -> PrototypeClassifier:
        """Returns the backbone with no prototypes yet."""
        head = config.build_head(backbone.embed_dim, config.cosine_scale)
        return PrototypeClassifier(backbone, head)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:  # noqa: ARG002
        """Makes room for the new classes."""
        self.model.head.add_classes(classes)

    def frozen_features(self) -> FeatureExtractor:
        """Returns the whole backbone."""
        return self.features.feature_extractor(self.backbone, self.backbone)

    def accumulate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Adds a training batch to the class means, then classifies it."""
        with self.features.autocast():
            features = self.model.features(inputs)
        self.model.head.add(features, targets)
        logits: Tensor = self.model.head(features)
        return logits

    def end_experience(self) -> None:
        """Solves a ridge regression; other heads are up to date after each image."""
        if isinstance(self.model.head, RidgeHead):
            self.model.head.solve(self.config.ridge)
