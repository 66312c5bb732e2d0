"""APER: class means over the frozen features and those of the adapted network, side by side.

The first experience adapts the network to the data, by a PEFT module or by all of its weights, and
never again. What the network knew and what it learned both count: the feature of an image is its
frozen feature followed by its adapted one, and a test image goes to the class whose mean has the
largest cosine to it.

Reference: Da-Wei Zhou, Zi-Wen Cai, Han-Jia Ye, De-Chuan Zhan, Ziwei Liu, "Revisiting
Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You
Need", IJCV 2024, arXiv:2303.07338 (ADAM in its first version).

With f the frozen and g the adapted network, both the class token after the last norm:

    experience 0     g is trained with a cosine head of learned scale, cross-entropy and SGD, then
                     stays as it is; the head is thrown away
    every one        mean of [f(x); g(x)], (2 D,), over the images of each class, not augmented
    answer           argmax of cos([f(x); g(x)], mean) over the classes seen

One cosine over both halves, whose lengths so decide which of them counts more. Variant:
`branches="mean_cosine"` answers by the mean of two cosines, one to each half of the mean.

`variant` is what of g is trained: `adapter`, `ssf`, `vpt_shallow`, `vpt_deep` or `finetune`
(`core/first_session.py`); of the last, a checkpoint holds what differs from f, bit for bit. The
defaults are the authors' for the first three on CIFAR-100. Theirs differ for `vpt_deep`
(`epochs=5`, `lr=0.05`, `batch_size=16`), for `finetune` (`epochs=5`, `lr=0.01`, `batch_size=128`),
and for adapters on ImageNet-R (`lr=0.05`, `batch_size=24`, `weight_decay=0.005`).

Differs from the authors' code, unless `fidelity="official"`:
    `peft_scale=1.0`     their adapter's output counts a tenth, which learns little in the few steps
                         of a small first experience
Whatever it says: `cosine_scale` multiplies the cosines before the softmax that gives the reported
confidence; the argmax is the same.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.strategies.core.first_session import (
    FirstSessionConfig,
    FirstSessionModel,
    FirstSessionStrategy,
)
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["APER", "APERConfig", "APERModel"]


class APERConfig(FirstSessionConfig):
    """Options of APER."""

    branches: Literal["concatenate", "mean_cosine"] = Field(
        default="concatenate", description="one cosine over both halves, or the mean of two"
    )
    cosine_scale: float = Field(default=10.0, gt=0, description="of the reported confidence")


class APERModel(FirstSessionModel):
    """The frozen and the adapted network, and class means of their features side by side."""

    def __init__(self, backbone: AdaptedViT, config: APERConfig, seed: int) -> None:
        branches = 2 if config.branches == "mean_cosine" else 1
        head = PrototypeHead(2 * backbone.embed_dim, scale=config.cosine_scale, branches=branches)
        super().__init__(backbone, config, seed, head)

    def features(self, inputs: Tensor) -> Tensor:
        """Returns frozen features, then adapted ones.

        Shape:
            inputs: images (B, 3, S, S), or features, which are given back. Output: (B, 2 D).
        """
        if inputs.ndim == 2:
            return inputs
        return torch.cat((self.backbone(inputs), super().features(inputs)), dim=1)


class APER(FirstSessionStrategy):
    """Adapts to experience 0, then keeps class means of frozen and adapted features together."""

    config_class = APERConfig
    config: APERConfig
    model: APERModel
    pieces = ("first session", "prototypes")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: APERConfig, seed: int) -> APERModel:
        """Returns the backbone, a network to adapt, and no class means yet."""
        return APERModel(backbone, config, seed)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Adds the experience to its classes' means."""
        for features, labels in self.plain_features():
            self.model.head.add(features, labels)
