"""Joint: the same adapter, trained on all data seen so far; the upper bound.

Each experience continues the PEFT modules and the heads of the one before, with a fresh optimiser,
on the images of every experience seen so far. It breaks the rules of continual learning on purpose:
the gap between it and a method is what forgetting costs.

With `at_once` each experience begins from the initial weights instead: all classes so far are
learned at once, and nothing hangs on the order in which they came.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.strategies.core.config import PeftConfig, TrainedConfig
from cl_adapters.strategies.core.consistency import ConsistencyConfig
from cl_adapters.strategies.core.head_options import OwnLossHeadConfig
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier

__all__ = ["Joint", "JointConfig"]


class JointConfig(TrainedConfig, PeftConfig, OwnLossHeadConfig, ConsistencyConfig):
    """Options of Joint; the PEFT module is LAE's."""

    simplex_losses: ClassVar[tuple[str, ...]] = ("all", "seen")

    at_once: bool = Field(
        default=False, description="begin each experience from the initial weights"
    )


class Joint(AdapterStrategy):
    """Trains one PEFT module a block and the heads on the data of all experiences seen so far."""

    config_class = JointConfig
    config: JointConfig
    model: AdaptedClassifier
    pieces = ("heads", "one set")
    trains_on_all_data = True
    role = "upper_bound"

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: JointConfig, seed: int) -> AdaptedClassifier:
        """Returns the backbone with one PEFT module a block and no heads yet."""
        adapters = config.build_adapters(backbone, seed=seed)
        return AdaptedClassifier(backbone, adapters, config.build_head(backbone.embed_dim))

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.add_classes(classes, generator)

    def begin_experience(self) -> None:
        """Forgets what was learned, if all classes are to be learned at once."""
        if not self.config.at_once:
            return
        fresh = self.build_model(self.backbone, self.config, self.seed)
        source = self.generator("weights")
        for classes in self.classes_by_experience:
            fresh.heads.add_classes(classes, source)
        learned = self.learned_state()
        state = {name: value for name, value in fresh.state_dict().items() if name in learned}
        self.model.load_state_dict(state, strict=False)

    @property
    def loss_classes(self) -> Sequence[int]:
        """All classes seen."""
        return self.classes_seen

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over all classes seen."""
        return self.model.heads.loss(self.classes_seen, logits, targets)
