"""First-session adaptation: PEFT modules trained on the first experience alone, then frozen.

They are trained with a cosine head of learned scale and plain cross-entropy, by SGD with momentum
0.9 along a cosine; the head is not used afterwards. What follows (prototypes, regressions,
Gaussians) then works on features that fit the data and never change again.

References: Mark D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
Continual Learning", NeurIPS 2023, arXiv:2307.02251, phase 1. Da-Wei Zhou et al., "Revisiting
Class-Incremental Learning with Pre-Trained Models", IJCV 2024, arXiv:2303.07338.
"""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.registry import build_trained_head
from cl_adapters.strategies.core.config import BlockPeftConfig, SGDConfig
from cl_adapters.strategies.core.optimizers import sgd
from cl_adapters.strategies.core.output import Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["FirstSession", "FirstSessionConfig"]


class FirstSessionConfig(SGDConfig, BlockPeftConfig):
    """Options of the first session; the defaults are the published ones."""

    batch_size: int = Field(default=48, ge=1, description="images in a training step")
    epochs: int = Field(default=20, ge=1, description="passes over the first experience")
    lr: float = Field(default=0.01, gt=0, description="of SGD, cosine to 0")


class FirstSession(nn.Module):
    """The PEFT modules, one in every block, and the head that they are trained with.

    A method's model holds one as a part, and the method passes its questions on:

        add_classes       first.add_classes(classes, generator), in the first experience
        build_optimizer   first.optimizer(config)
        phases            yield from first.phases(self.classes_by_experience, config)
        forward           first.logits(backbone, images) in train mode, else what it does with
                          first.features(backbone, images)

    Args:
        backbone: The frozen ViT.
        config: Which PEFT module, and how it is trained.
        seed: Of the initial weights.
    """

    def __init__(self, backbone: AdaptedViT, config: FirstSessionConfig, seed: int) -> None:
        super().__init__()
        self.adapters = config.build_stack(backbone, seed)
        self.head = build_trained_head(
            "cosine", backbone.embed_dim, init_std=None, scale=1.0, learn_scale=True
        )

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Gives the head the classes of the first experience; later ones never reach it."""
        if not self.head.classes:
            self.head.add_classes(classes, generator)

    def phases(self, experiences: Sequence[object], config: FirstSessionConfig) -> Iterator[Phase]:
        """Yields the training of the first experience; freezes everything after it.

        Args:
            experiences: Those that have begun, the current one last.
            config: How many epochs.
        """
        if len(experiences) == 1:
            yield Phase("first session", config.epochs)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def optimizer(self, config: FirstSessionConfig) -> torch.optim.Optimizer:
        """Returns SGD over the PEFT modules and the head."""
        return sgd(list(self.parameters()), config.lr, config.weight_decay)

    def features(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the adapted features.

        Shape:
            images: (B, 3, S, S). Output: (B, D).
        """
        features: Tensor = backbone(images, self.adapters.adapters())
        return features

    def logits(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the logits of the first experience's classes, scaled cosines.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        logits: Tensor = self.head(self.features(backbone, images))
        return logits
