"""Finetune: one adapter that every experience overwrites; the lower bound.

The same PEFT modules, heads and optimiser as LAE's online part, but nothing protects what was
learned: the loss is the plain cross-entropy over all classes seen, although only the current ones
occur, which pushes the old classes' logits down. `mask_old_classes=True` takes the loss over the
current classes only, a stronger yardstick that isolates what masking alone does.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.heads.aligning import align_weights
from cl_adapters.strategies.core.config import PeftConfig, TrainedConfig
from cl_adapters.strategies.core.consistency import ConsistencyConfig
from cl_adapters.strategies.core.head_options import OwnLossHeadConfig, WeightAligningConfig
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier

__all__ = ["Finetune", "FinetuneConfig"]


class FinetuneConfig(
    TrainedConfig, PeftConfig, OwnLossHeadConfig, WeightAligningConfig, ConsistencyConfig
):
    """Options of Finetune; the PEFT module is LAE's."""

    mask_old_classes: bool = Field(default=False, description="loss over the current classes only")


class Finetune(AdapterStrategy):
    """Trains one PEFT module a block and the heads on each experience in turn."""

    config_class = FinetuneConfig
    config: FinetuneConfig
    model: AdaptedClassifier
    pieces = ("heads", "one set")
    role = "lower_bound"

    @classmethod
    def build_model(
        cls, backbone: AdaptedViT, config: FinetuneConfig, seed: int
    ) -> AdaptedClassifier:
        """Returns the backbone with one PEFT module a block and no heads yet."""
        adapters = config.build_adapters(backbone, seed=seed)
        return AdaptedClassifier(backbone, adapters, config.build_head(backbone.embed_dim))

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.add_classes(classes, generator)

    @property
    def loss_classes(self) -> Sequence[int]:
        """All classes seen, or the current ones only."""
        return self.current_classes if self.config.mask_old_classes else self.classes_seen

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over `loss_classes`."""
        return self.model.heads.loss(self.loss_classes, logits, targets)

    def end_experience(self) -> None:
        """Aligns the rows of classes that are new, if asked for."""
        if self.config.weight_aligning:
            align_weights(self.model.heads, self.new_classes)
