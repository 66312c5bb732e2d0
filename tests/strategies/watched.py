"""What tests of methods look at while these train, and plain loops that train the same."""

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.strategies.checks.trial import TinyStream
from cl_adapters.vit.adapted_vit import AdaptedViT

NAMES = ("down", "down_bias", "up", "up_bias")


class Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps what each experience starts with, its batches, and the rates of its epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[dict[str, Tensor]] = []
        self.batches: list[list[tuple[Tensor, Tensor]]] = []
        self.rates: list[list[list[float]]] = []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        state = strategy.model.state_dict().items()
        self.starts.append({name: value.clone() for name, value in state})
        self.batches.append([])
        self.rates.append([])

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.rates[-1].append([group["lr"] for group in strategy.optimizer.param_groups])

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.batches[-1].append((strategy.mb_x.clone(), strategy.mb_y.clone()))


def plain_set(vit: AdaptedViT, tensors: Sequence[Tensor], scale: float) -> list[Bottleneck]:
    """Plain modules, one a block, with the tensors of a stack of parallel adapters."""
    blocks = []
    for block in range(vit.num_blocks):
        module = Bottleneck(
            vit.embed_dim,
            tensors[0].shape[1],
            activation="relu",
            scale=scale,
            generator=torch.Generator(),
        )
        for name, value in zip(NAMES, tensors, strict=True):
            getattr(module, name).data.copy_(value[block])
        blocks.append(module)
    return blocks


def stacked(blocks: Sequence[Bottleneck]) -> list[Tensor]:
    """The tensors of plain modules as a stack has them."""
    return [torch.stack([getattr(each, name).detach() for each in blocks]) for name in NAMES]


def in_slots(blocks: Sequence[Bottleneck]) -> AdapterSet:
    """Plain modules as a network runs with them."""
    return AdapterSet({("mlp", block): module for block, module in enumerate(blocks)})


def images_of(stream: TinyStream, experience: int) -> tuple[Tensor, Tensor]:
    """The training images of an experience and their labels."""
    images, labels = stream.train_sets[experience].tensors
    return images, labels
