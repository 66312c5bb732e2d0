"""Hydra: one low-rank branch beside a layer and one behind it, which merge into the layer.

Reference: Sanghyeon Kim, Hyunmo Yang, Younghyun Kim, Youngjoon Hong, Eunbyung Park, "Hydra:
Multi-head Low-rank Adaptation for Parameter Efficient Fine-tuning", arXiv:2309.06922.

What differs from the authors' code: each layer is merged with its own weights, where theirs takes
those of fc2 for attention too, whose shapes do not fit.

Parameters a block, D width of the stream, R rank: 11 D R + 4 R + 4 D; 19,976 at D = 768 and R = 2.
"""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.noise import draws
from cl_adapters.peft.noise import dropout as dropped
from cl_adapters.peft.site import Site

__all__ = ["Hydra"]


class _Branch(nn.Module):
    """B (A x + c_A) + c_B; A starts Xavier-uniform, the rest at zero."""

    def __init__(
        self, in_features: int, out_features: int, rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_features))
        nn.init.xavier_uniform_(self.down, generator=generator)
        self.down_bias = nn.Parameter(torch.zeros(rank))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.up_bias = nn.Parameter(torch.zeros(out_features))


class Hydra(nn.Module):
    """Updates s (B_p (A_p x + c) + c' + B_s (A_s y + c'') + c''') of layers, y what a layer gave.

    For the slots `proj` and `fc2`.

    Args:
        embed_dim: D, width of the stream.
        rank: R, positive, of each branch.
        scale: s, chosen for each data set from 0.1 to 4.5 by the authors.
        dropout: Share of each middle dropped in training, in [0, 1).
        generator: Source of the initial weights.
        sites: The sites of the two slots.

    Attributes:
        parallel, sequential: The branches A_p, B_p and A_s, B_s of each slot.
        noise: Source of what is dropped; None takes torch's global one.

    Raises:
        InputError: If the rank is not positive, or the dropout lies outside its range.
    """

    slots: ClassVar[tuple[Slot, ...]] = ("proj", "fc2")
    default_size: ClassVar[int] = 2

    def __init__(
        self,
        embed_dim: int,  # noqa: ARG002 - the sites know more
        rank: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        generator: torch.Generator,
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1), got {dropout}")
        self.scale, self.dropout = scale, dropout
        self.noise: torch.Generator | None = None
        self.parallel, self.sequential = nn.ModuleDict(), nn.ModuleDict()
        for slot in self.slots:
            taken, returned = sites[slot].in_features, sites[slot].out_features
            self.parallel[slot] = _Branch(taken, returned, rank, generator)
            self.sequential[slot] = _Branch(returned, returned, rank, generator)

    def forward(self, inputs: Tensor, output: Tensor, *, slot: str) -> Tensor:
        """Returns what is added to a layer's output.

        Args:
            inputs: Of the layer, (B, N, D) of `proj`, (B, N, 4 D) of `fc2`.
            output: Of the layer, (B, N, D).
            slot: Which layer.
        """
        beside, behind = self._branches(slot)
        return (self._through(beside, inputs) + self._through(behind, output)) * self.scale

    def _branches(self, slot: str) -> tuple[_Branch, _Branch]:
        return cast("_Branch", self.parallel[slot]), cast("_Branch", self.sequential[slot])

    def _through(self, branch: _Branch, inputs: Tensor) -> Tensor:
        hidden = functional.linear(inputs, branch.down, branch.down_bias)
        if self.dropout and draws(self, branch.up):
            hidden = dropped(hidden, self.dropout, self.noise)
        return functional.linear(hidden, branch.up, branch.up_bias)

    def merged(self, slot: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weights and the bias of one layer that does what it and the branches do.

        Args:
            slot: Which layer.
            weight: W of the frozen layer, (out, in).
            bias: Its bias, (out,).
        """
        beside, behind = self._branches(slot)
        change = beside.up @ beside.down + behind.up @ (behind.down @ weight)
        shift = beside.up @ beside.down_bias + beside.up_bias + behind.up_bias
        shift = shift + behind.up @ (behind.down @ bias + behind.down_bias)
        return weight + self.scale * change, bias + self.scale * shift
