"""MyStrategy: one PEFT module, averaged over all steps.

A PEFT module and the heads are trained on each experience; an average follows the PEFT module,
answers, and is where the next experience starts. Replace this by what your method does, in three
sentences.

Reference: authors, title, venue, year, arXiv id.

With theta the PEFT module in training and theta_bar its average:

    start        theta <- theta_bar
    learning     cross-entropy over the classes of the experience
    averaging    theta_bar <- momentum theta_bar + (1 - momentum) theta, after every step
    inference    the heads on the features with theta_bar

Differs from the authors' code: nothing yet.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.linear import ExperienceHeads, cross_entropy_over
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.strategies.core.config import PeftConfig, TrainedConfig
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["MyStrategy", "MyStrategyConfig", "blend"]


class MyStrategyConfig(TrainedConfig, PeftConfig):
    """Options of MyStrategy: each is one of `--set`, validated and recorded."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the averaged PEFT module")


def blend(average: Tensor, value: Tensor, momentum: float) -> Tensor:
    """Returns the average after one more value: the paper's formula, without any state.

    Example:
        >>> blend(torch.tensor(1.0), torch.tensor(0.0), 0.75).item()
        0.75
    """
    return momentum * average + (1 - momentum) * value


class MyStrategyModel(nn.Module):
    """The backbone, the PEFT module in training, its average, and the heads."""

    def __init__(self, backbone: AdaptedViT, adapters: Sequence[AdapterSet]) -> None:
        super().__init__()
        self.backbone = backbone
        self.online, self.average = adapters
        self.average.requires_grad_(requires_grad=False)
        self.heads = ExperienceHeads(backbone.embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits, in train mode of the module in training, in eval mode of its average.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        adapters = self.online if self.training else self.average
        logits: Tensor = self.heads(self.backbone(images, adapters))
        return logits


class MyStrategy(AdapterStrategy):
    """Trains one PEFT module on each experience in turn and answers with its average."""

    config_class = MyStrategyConfig
    config: MyStrategyConfig
    model: MyStrategyModel

    @classmethod
    def build_model(
        cls, backbone: AdaptedViT, config: MyStrategyConfig, seed: int
    ) -> MyStrategyModel:
        """Returns the backbone with two equal sets of PEFT modules and no heads yet."""
        return MyStrategyModel(
            backbone, [config.build_adapters(backbone, seed=seed) for _ in range(2)]
        )

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the classes that have none."""
        self.model.heads.add_classes(classes, generator)

    def begin_experience(self) -> None:
        """Starts from the average."""
        self.model.online.load_state_dict(self.model.average.state_dict())

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the experience."""
        return cross_entropy_over(self.current_classes, logits, targets)

    @torch.no_grad()
    def after_step(self) -> None:
        """Lets the average follow."""
        pairs = zip(self.model.average.parameters(), self.model.online.parameters(), strict=True)
        for average, value in pairs:
            average.copy_(blend(average, value, self.config.momentum))
