"""Joint: the same adapter, trained on all data seen so far; the upper bound.

Each experience continues the PET and the heads of the one before, with a fresh optimiser, on the
images of every experience seen so far. It breaks the rules of continual learning on purpose: the
gap between it and a method is what forgetting costs.
"""

from collections.abc import Sequence
from typing import Any, Literal, Unpack

import torch
from avalanche.benchmarks.utils import concat_datasets
from pydantic import Field
from torch import Tensor

from cl_adapters.backbone import AdaptedViT
from cl_adapters.heads import AdaptedClassifier, cross_entropy_over
from cl_adapters.strategies.base import AdapterStrategy, TemplateArgs, TrainedConfig
from cl_adapters.strategies.finetune import build_classifier

__all__ = ["Joint", "JointConfig"]


class JointConfig(TrainedConfig):
    """Options of Joint; the PET is LAE's."""

    pet: Literal["adapter", "lora", "prefix"] = Field(default="adapter", description="kind of PET")
    size: int | None = Field(default=None, ge=1, description="width, rank or length; None: 5, 5, 10")
    blocks: int = Field(default=5, ge=1, description="how many blocks get a PET, from the first on")


class Joint(AdapterStrategy):
    """Trains one PET and the heads on the data of all experiences seen so far.

    Args:
        backbone: The frozen ViT.
        config: The method's options.
        seed: Seed of initial weights and of the order of images.
        **template: Arguments of Avalanche's `SupervisedTemplate` (`TemplateArgs`).
    """

    config_class = JointConfig
    config: JointConfig
    model: AdaptedClassifier

    def __init__(
        self,
        *,
        backbone: AdaptedViT,
        config: JointConfig | None = None,
        seed: int = 0,
        **template: Unpack[TemplateArgs],
    ) -> None:
        config = config or JointConfig()
        model = build_classifier(
            backbone, pet=config.pet, size=config.size, blocks=config.blocks, seed=seed
        )
        self._datasets: list[Any] = []
        super().__init__(model=model, config=config, seed=seed, **template)

    def meet(self, experience: Any) -> None:  # noqa: ANN401 - Avalanche ships no types
        """Keeps the data of the experience beside what every strategy keeps."""
        super().meet(experience)
        self._datasets.append(experience.dataset)

    def grow(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.grow(classes, generator)

    def train_dataset_adaptation(self, **_: Any) -> None:  # noqa: ANN401
        """Trains on everything seen so far, the current experience included."""
        everything = concat_datasets([*self._datasets, self.experience.dataset])
        self.adapted_dataset = everything.train()

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over all classes seen."""
        return cross_entropy_over(self.classes_seen, logits, targets)
