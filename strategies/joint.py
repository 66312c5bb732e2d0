"""Joint: the same adapter, trained on all data seen so far; the upper bound.

Each experience continues the PEFT module and the heads of the one before, with a fresh optimiser,
on the images of every experience seen so far. It breaks the rules of continual learning on purpose:
the gap between it and a method is what forgetting costs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils import concat_datasets
from torch import Tensor

from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.strategies.core.config import PeftConfig, TrainedConfig, TrainedHeadConfig
from cl_adapters.strategies.core.loop import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier

__all__ = ["Joint", "JointConfig"]


class JointConfig(TrainedConfig, PeftConfig, TrainedHeadConfig):
    """Options of Joint; the PEFT module is LAE's."""


class Joint(AdapterStrategy):
    """Trains one PEFT module and the heads on the data of all experiences seen so far."""

    config_class = JointConfig
    config: JointConfig
    model: AdaptedClassifier

    def build_model(self, backbone: AdaptedViT) -> AdaptedClassifier:
        """Returns the backbone with one PEFT module a block and no heads yet."""
        self._datasets: list[Any] = []
        pefts = self.config.build(backbone, seed=self.seed)
        return AdaptedClassifier(backbone, pefts, self.config.build_head(backbone.embed_dim))

    def register_experience(self, experience: Any) -> None:  # noqa: ANN401 - Avalanche ships no types
        """Keeps the data of the experience beside what every strategy keeps."""
        super().register_experience(experience)
        self._datasets.append(experience.dataset)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.add_classes(classes, generator)

    def train_dataset_adaptation(self, **_: Any) -> None:  # noqa: ANN401
        """Trains on everything seen so far, the current experience included."""
        everything = concat_datasets([*self._datasets, self.experience.dataset])
        self.adapted_dataset = everything.train()

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over all classes seen."""
        return cross_entropy_over(self.classes_seen, logits, targets)
