"""A cosine head over the current classes alone, renewed with each experience: it serves training.

Answers come from class means. EASE, ACMap and CL-LoRA train this way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.strategies.core.config import AdapterSGDConfig
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["RenewedHeadModel", "RenewedSetStrategy"]


class RenewedHeadModel(nn.Module):
    """A model that trains under a head of its own for each experience."""

    backbone: AdaptedViT
    head: nn.Module

    def renew_head(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Puts a new head over some classes in the place of the one in training."""
        head = build_trained_head(
            "cosine", self.backbone.embed_dim, init_std=None, scale=1.0, learn_scale=True
        )
        head.add_classes(classes, generator)
        self.head = head

    def training_logits(self, features: Tensor, classes: int) -> Tensor:
        """Returns the head's logits (B, C), C = `classes`; what it has no row for cannot win.

        Shape:
            features: (B, D).
        """
        logits = self.head(features)
        return nn.functional.pad(logits, (0, classes - logits.shape[1]), value=UNSEEN_LOGIT)


class RenewedSetStrategy(AdapterStrategy):
    """Trains one PEFT set, `current_adapters`, under a renewed head, by SGD along a cosine."""

    config: AdapterSGDConfig

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes a new head over these classes, and room for their means."""
        self.model.renew_head(classes, generator)
        self.model.prototypes.add_classes(classes)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9."""
        return sgd(parameters, self.config.lr, self.config.weight_decay)

    def generators(self) -> dict[str, torch.Generator]:
        """Returns what the set's dropout draws from."""
        noise = self.model.current_adapters.noise
        return {} if noise is None else {"dropout": noise}
