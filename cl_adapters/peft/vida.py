"""ViDA's module: a low-rank and a high-rank update of attention's two layers.

Reference: Jiaming Liu, Senqiao Yang, Peidong Jia, Renrui Zhang, Ming Lu, Yandong Guo, Wei Xue,
Shanghang Zhang, "ViDA: Homeostatic Visual Domain Adapter for Continual Test Time Adaptation", ICLR
2024, arXiv:2306.04344. The module alone: how it is trained on a test stream is a method of its own.

What differs from the authors' code: the two factors are set by whoever trains, and are 1.

Parameters a block, D width of the stream, R the high rank: 6 (1 + R) D; 594,432 at D = 768 and
R = 128, more than ten times an adapter's.
"""

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import check_positive

__all__ = ["ViDA"]

_OUTPUTS: Final = {"qkv": 3, "proj": 1}  # in widths of the stream


class ViDA(nn.Module):
    """Updates s_1 B_1 A_1 x + s_2 B_2 A_2 x of two layers, the one of rank 1, the other of rank R.

    For the slots `qkv` and `proj`. A starts normal with the deviation 1 / rank^2, B at zero. The
    rank-1 rows are far longer than those of LoRA: a lower learning rate may be due.

    Args:
        embed_dim: D, width of the stream.
        rank: R, positive.
        shared_rank: The low rank, positive.
        generator: Source of the initial weights.

    Attributes:
        scales: s_1 and s_2.
        down, up: A and B, by slot, low rank first.
    """

    def __init__(
        self, embed_dim: int, rank: int, *, shared_rank: int = 1, generator: torch.Generator
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        check_positive("shared_rank", shared_rank)
        self.scales = (1.0, 1.0)
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        for slot, times in _OUTPUTS.items():
            ranks = shared_rank, rank
            self.down[slot] = nn.ParameterList(
                torch.randn(each, embed_dim, generator=generator) / each**2 for each in ranks
            )
            self.up[slot] = nn.ParameterList(torch.zeros(times * embed_dim, each) for each in ranks)

    def forward(self, inputs: Tensor, output: Tensor, *, slot: str) -> Tensor:  # noqa: ARG002
        """Returns what is added to a layer's output.

        Args:
            inputs: Of the layer, (B, N, D).
            output: Of the layer, (B, N, 3 D) of `qkv`, (B, N, D) of `proj`.
            slot: Which layer.
        """
        low, high = (
            functional.linear(functional.linear(inputs, down), up) * scale
            for down, up, scale in self._parts(slot)
        )
        return low + high

    def _parts(self, slot: str) -> list[tuple[Tensor, Tensor, float]]:
        down, up = (cast("nn.ParameterList", each[slot]) for each in (self.down, self.up))
        return [*zip(down, up, self.scales, strict=True)]

    def delta(self, slot: str) -> Tensor:
        """Returns what merging adds to a layer's weights, (3 D, D) of `qkv`, (D, D) of `proj`."""
        return torch.stack([up @ down * scale for down, up, scale in self._parts(slot)]).sum(dim=0)
