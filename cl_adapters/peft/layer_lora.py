"""LoRA on any choice of a block's linear layers.

Reference: Edward J. Hu, Yelong Shen, Phillip Wallis, Zeyuan Allen-Zhu, Yuanzhi Li, Shean Wang, Lu
Wang, Weizhu Chen, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
arXiv:2106.09685. Published for language models, on queries and values.

What differs from the authors' code: their factor alpha / R is 1, and nothing of the input is
dropped.

Parameters a block, D width of the stream, R rank: 2 D R for each of query, key, value and proj,
5 D R for each of fc1 and fc2; 24,576 for queries and values, 110,592 for all, at D = 768 and R = 8.
"""

from collections.abc import Sequence
from typing import Final, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import Slot, Slots
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.lora import Projection, ProjectionLoRA
from cl_adapters.peft.registry import Peft
from cl_adapters.peft.site import Site

__all__ = ["Layer", "LayerLoRA", "LinearLoRA", "lora_on", "slots_for"]

Layer = Literal["query", "key", "value", "proj", "fc1", "fc2"]
_LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)
_PROJECTIONS: Final = frozenset(get_args(Projection))


def slots_for(layers: Sequence[Layer]) -> tuple[Slot, ...]:
    """Returns the slots in which some layers are updated, in the order of a block.

    Raises:
        InputError: If the layers are none, others, or named twice.

    Example:
        >>> slots_for(["fc1", "value", "query"])
        ('qkv', 'fc1')
    """
    if not layers or any(each not in _LAYERS for each in layers) or len(set(layers)) < len(layers):
        raise InputError(
            f"`layers` must be some of {', '.join(_LAYERS)}, each once, got {[*layers]}"
        )
    found = ("qkv" if each in _PROJECTIONS else each for each in _LAYERS if each in layers)
    return cast("tuple[Slot, ...]", tuple(dict.fromkeys(found)))


class LinearLoRA(nn.Module):
    """A low-rank update B A x of one layer. A starts Kaiming-uniform, B at zero.

    Args:
        in_features: Width of the layer's input.
        out_features: Width of its output.
        rank: R, positive.
        generator: Source of the initial weights.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        self.down = uniform_rows(rank, in_features, generator)
        self.up = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:  # noqa: ARG002
        """Returns what is added to the layer's output, (B, N, out_features)."""
        return functional.linear(functional.linear(inputs, self.down), self.up)

    def delta(self) -> Tensor:
        """Returns what merging adds to the layer's weights, (out_features, in_features)."""
        return self.up @ self.down


class LayerLoRA(nn.Module):
    """A low-rank update B A x of each layer chosen.

    For the slots that `slots_for` gives, which may be one.

    Args:
        embed_dim: D, width of the stream.
        rank: R, positive, of each update.
        layers: Which layers: some of query, key, value, proj, fc1 and fc2.
        generator: Source of the initial weights.
        sites: The sites of these slots.

    Attributes:
        updates: Those of each slot.

    Raises:
        InputError: If the rank is not positive, or the layers are none or others.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        layers: Sequence[Layer],
        generator: torch.Generator,
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        self.updates = nn.ModuleDict()
        for slot in slots_for(layers):
            if slot == "qkv":
                chosen = cast("list[Projection]", [x for x in _LAYERS[:3] if x in layers])
                self.updates[slot] = ProjectionLoRA(
                    embed_dim, rank, projections=chosen, generator=generator
                )
            else:
                site = sites[slot]
                self.updates[slot] = LinearLoRA(
                    site.in_features, site.out_features, rank, generator=generator
                )

    def forward(self, inputs: Tensor, output: Tensor, *, slot: str | None = None) -> Tensor:
        """Returns what is added to a layer's output.

        Args:
            inputs: Of the layer, (B, N, in).
            output: Of the layer, (B, N, out).
            slot: Which layer; None where there is one.
        """
        update = self.updates[next(iter(self.updates)) if slot is None else slot]
        return cast("Tensor", update(inputs, output))

    def delta(self, slot: str) -> Tensor:
        """Returns what merging adds to a layer's weights, (out, in)."""
        return cast("ProjectionLoRA | LinearLoRA", self.updates[slot]).delta()


def lora_on(*layers: Layer) -> Peft:
    """Returns the kind of LoRA on these layers, of rank 8: for a file of one's own.

    Raises:
        InputError: If the layers are none, others, or named twice.

    Example:
        >>> lora_on("key", "fc2").slots
        ('qkv', 'fc2')
    """
    found = slots_for(layers)
    slots: Slots = found if len(found) > 1 else found[0]

    def make(dim: int, size: int, rng: torch.Generator, *, sites: dict[Slot, Site]) -> LayerLoRA:
        return LayerLoRA(dim, size, layers=layers, generator=rng, sites=sites)

    return Peft(slots, 8, make, takes_sites=True)
