"""EMoE: experts that a trained MLP holds already, of which each token asks a few.

Reference: Zihan Qiu, Zeyu Huang, Jie Fu, "Unlocking Emergent Modularity in Large Language Models",
NAACL 2024, arXiv:2310.10908.

The neurons of an MLP are split into clusters of one size by the directions of their weights. A
cluster's score for a token is the mean of what its neurons get before the activation, without
biases; the neurons of all but the best few clusters give zero. Nothing is trained or drawn: with
all clusters chosen it is the network itself, with fewer another one, which methods then build on.

What differs from the authors' code: clusters are found by balanced k-means without chance, and
stay; the network stays frozen, so there is no loss that balances experts; no token is dropped.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.vit.clusters import balanced_clusters

__all__ = ["ChosenExperts", "Experts"]

_DIGITS: Final = 9  # more than any number of neurons has


@dataclass(frozen=True)
class Experts:
    """Which blocks get experts, and how many.

    Attributes:
        count: Clusters of neurons, at least 1; it has to divide the width of the MLP.
        chosen: How many of them compute for a token, from 1 to `count`.
        blocks: The blocks, counted from 0, each once.
    """

    count: int
    chosen: int
    blocks: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns what a text such as `24,4,8,10` says: count, chosen, blocks.

        Raises:
            InputError: If it says something else.

        Example:
            >>> Experts.parse("24,4,8,10")
            Experts(count=24, chosen=4, blocks=(8, 10))
        """
        parts = [each.strip() for each in text.split(",")]
        numbers = [int(each) for each in parts if each.isdecimal() and len(each) < _DIGITS]
        (count, chosen), blocks = [*numbers, 0, 0][:2], numbers[2:]
        is_sound = len(numbers) == len(parts) and 1 <= chosen <= count
        if not is_sound or not blocks or len(set(blocks)) < len(blocks):
            raise InputError(
                "`emoe` must be the number of experts, how many of them are chosen, from 1 to all, "
                f"and blocks, each once, such as 24,4,8,10, got {text!r}"
            )
        return cls(count, chosen, tuple(blocks))

    def install(self, vit: nn.Module) -> list[Tensor]:
        """Lets the MLPs of a network choose among their experts.

        Returns:
            The clusters of each block, (H,) int64, which the weights alone decide.

        Raises:
            InputError: If there is no such block, its MLP is not timm's plain one, or the number
                of experts does not divide its width.
        """
        blocks: Any = vit.blocks
        for index in self.blocks:
            if index >= len(blocks):
                raise InputError(f"`emoe` must name blocks below {len(blocks)}, got {index}")
            mlp = blocks[index].mlp
            if type(mlp) is not Mlp:
                raise InputError(f"`emoe` must split timm's plain Mlp, got {type(mlp).__name__}")
            if len(mlp.fc1.weight) % self.count:
                raise InputError(
                    "`emoe` must have a number of experts that divides the MLP's width, "
                    f"{len(mlp.fc1.weight)}, got {self.count}"
                )
        found = []
        for index in self.blocks:
            mlp = blocks[index].mlp
            found.append(balanced_clusters(mlp.fc1.weight, self.count))
            bias = torch.zeros(len(found[-1])) if mlp.fc1.bias is None else mlp.fc1.bias
            mlp.act = ChosenExperts(mlp.act, found[-1], bias, self.chosen)
        return found


class ChosenExperts(nn.Module):
    """An activation whose neurons are zero but for those of the clusters that a token chooses.

    Args:
        activation: The activation.
        clusters: Of each neuron, (H,) int64, from 0 on; all of one size.
        bias: That of the neurons, (H,), which scores leave out.
        chosen: How many clusters compute.
    """

    def __init__(self, activation: nn.Module, clusters: Tensor, bias: Tensor, chosen: int) -> None:
        super().__init__()
        self.activation, self.chosen = activation, chosen
        members = functional.one_hot(clusters).T / torch.bincount(clusters)[:, None]  # (E, H)
        # In no state: they follow from the weights.
        self.register_buffer("clusters", clusters, persistent=False)
        self.register_buffer("members", members.float(), persistent=False)
        self.register_buffer("offset", members.float() @ bias.detach().float(), persistent=False)
        self.clusters: Tensor
        self.members: Tensor
        self.offset: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the activations, (B, N, H), of what neurons got."""
        scores = functional.linear(hidden, self.members) - self.offset  # (B, N, E)
        best = scores.topk(self.chosen, dim=-1).indices
        is_chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, value=True)
        active: Tensor = self.activation(hidden)
        return torch.where(is_chosen[..., self.clusters], active, 0.0)
