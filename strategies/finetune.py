"""Finetune: one adapter that every experience overwrites; the lower bound.

The same PET, heads and optimiser as LAE's online part, but nothing protects what was learned: the
loss is the plain cross-entropy over all classes seen, although only the current ones occur, which
pushes the old classes' logits down. `mask_old_classes=True` takes the loss over the current classes
only, a stronger yardstick that isolates what masking alone does.
"""

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.adapters import build_pets
from cl_adapters.backbone import AdaptedViT
from cl_adapters.heads import AdaptedClassifier, ExperienceHeads, cross_entropy_over
from cl_adapters.strategies.base import AdapterStrategy, TemplateArgs, TrainedConfig

__all__ = ["Finetune", "FinetuneConfig", "build_classifier"]


class FinetuneConfig(TrainedConfig):
    """Options of Finetune; the PET is LAE's."""

    pet: Literal["adapter", "lora", "prefix"] = Field(default="adapter", description="kind of PET")
    size: int | None = Field(default=None, ge=1, description="width, rank or length; None: 5, 5, 10")
    blocks: int = Field(default=5, ge=1, description="how many blocks get a PET, from the first on")
    mask_old_classes: bool = Field(default=False, description="loss over the current classes only")


def build_classifier(
    backbone: AdaptedViT,
    *,
    pet: str,
    size: int | None,
    blocks: int,
    seed: int,
) -> AdaptedClassifier:
    """Builds one set of PETs in the first blocks and heads that grow."""
    adapters = build_pets(
        pet,
        embed_dim=backbone.embed_dim,
        blocks=range(min(blocks, backbone.num_blocks)),
        size=size,
        generator=torch.Generator().manual_seed(seed),
    )
    return AdaptedClassifier(backbone, adapters, ExperienceHeads(backbone.embed_dim))


class Finetune(AdapterStrategy):
    """Trains one PET and the heads on each experience in turn.

    Args:
        backbone: The frozen ViT.
        config: The method's options.
        seed: Seed of initial weights and of the order of images.
        **template: Arguments of Avalanche's `SupervisedTemplate` (`TemplateArgs`).
    """

    config_class = FinetuneConfig
    config: FinetuneConfig
    model: AdaptedClassifier

    def __init__(
        self,
        *,
        backbone: AdaptedViT,
        config: FinetuneConfig | None = None,
        seed: int = 0,
        **template: Unpack[TemplateArgs],
    ) -> None:
        config = config or FinetuneConfig()
        model = build_classifier(
            backbone, pet=config.pet, size=config.size, blocks=config.blocks, seed=seed
        )
        super().__init__(model=model, config=config, seed=seed, **template)

    def grow(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.grow(classes, generator)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over all classes seen, or over the current ones only."""
        classes = self.current_classes if self.config.mask_old_classes else self.classes_seen
        return cross_entropy_over(classes, logits, targets)
