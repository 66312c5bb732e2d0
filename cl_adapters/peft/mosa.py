"""MoSA: an adapter whose entries belong to sparse experts, of which each step trains some.

Reference: Qizhe Zhang, Bocheng Zou, Ruichuan An, Jiaming Liu, Shanghang Zhang, "MoSA: Mixture of
Sparse Adapters for Visual Efficient Tuning", arXiv:2312.02923. The hierarchical variant, in which
one W_down is shared and W_up alone is split, is that of the authors' scripts for single tasks.

What differs from the authors' code: one W_up and the owner of each entry take the place of a copy
an expert, so that an optimiser with momentum moves entries that were not drawn too; one bias is
shared, where theirs are trained apart and summed; the loss that pulls two passes together is a
method's to add (option `consistency`); owners are drawn from the module's generator and are part of
its state.

Parameters a block, D width of the stream, R of the middle: 2 D R + R + 3 D, those of one adapter
with its layer norm; 100,672 at D = 768 and R = 64.
"""

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.noise import draws
from cl_adapters.peft.noise import dropout as dropped

__all__ = ["MoSA", "Split", "owners"]

Split = Literal["all", "row", "column"]
_MOST: Final = 127  # owners are kept in a byte each


def owners(scores: Tensor, experts: int, split: Split = "all") -> Tensor:
    """Returns the expert that owns each entry: floor(rank * experts / entries).

    Args:
        scores: Of the entries, (rows, columns); they are ranked.
        experts: Number of experts.
        split: Rank all entries, or those of each row, or those of each column.

    Example:
        >>> owners(torch.tensor([[0.7, 0.1], [0.4, 0.9]]), 2).tolist()
        [[1, 0], [0, 1]]
    """
    lines = {"all": scores.reshape(1, -1), "row": scores, "column": scores.T}[split]
    if not 1 <= experts <= min(lines.shape[1], _MOST):
        raise InputError(
            f"`experts` must lie in [1, {min(lines.shape[1], _MOST)}], since each owns an entry of "
            f"every group of {lines.shape[1]}, got {experts}"
        )
    found = lines.argsort(dim=1).argsort(dim=1) * experts // lines.shape[1]
    return (found.T if split == "column" else found.reshape(scores.shape)).to(torch.int8)


class MoSA(nn.Module):
    """A bottleneck behind a layer norm: s * (W_up Dropout(GELU(W_down LN(x) + b_down)) + b_up).

    For the slot `mlp`. W_up and both biases start at zero. Each step draws the experts with whose
    entries it computes, one for W_down and one for W_up: entries of W_up that others own count as
    zero, those of W_down as they were at the start. Else all entries count.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        experts: Number of experts.
        shares_down: Leave W_down whole (the hierarchical variant).
        split: How entries are shared out.
        scale: s.
        dropout: Share of the middle dropped in training, in [0, 1).
        generator: Source of the initial weights and of the owners.

    Attributes:
        noise: Source of experts and of what is dropped; None takes torch's global one.

    Raises:
        InputError: If the width is not positive, or there are more experts than entries.
    """

    def __init__(  # noqa: PLR0913 - options of the published code
        self,
        embed_dim: int,
        width: int,
        *,
        experts: int = 4,
        shares_down: bool = False,
        split: Split = "all",
        scale: float = 0.1,
        dropout: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        self.norm = nn.LayerNorm(embed_dim)
        self.down = uniform_rows(width, embed_dim, generator)
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(embed_dim, width))
        self.up_bias = nn.Parameter(torch.zeros(embed_dim))
        self.experts, self.scale, self.dropout = experts, scale, dropout
        self.shares_down = shares_down
        self.noise: torch.Generator | None = None
        shapes = (
            {"up": self.up.shape} if shares_down else {"down": self.down.shape, "up": self.up.shape}
        )
        for name, shape in shapes.items():
            scores = torch.rand(shape, generator=generator)
            self.register_buffer(f"{name}_owners", owners(scores, experts, split))
        if not shares_down:
            self.register_buffer("down_start", self.down.detach().clone())
        self.up_owners: Tensor
        self.down_owners: Tensor
        self.down_start: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream, (B, N, D)."""
        is_drawn = draws(self, self.up)
        down: Tensor = self.down
        if is_drawn and not self.shares_down:
            down = torch.where(self._chosen(self.down_owners), down, self.down_start)
        up = self.up * self._chosen(self.up_owners) if is_drawn else self.up
        hidden = functional.gelu(functional.linear(self.norm(inputs), down, self.down_bias))
        if is_drawn and self.dropout:
            hidden = dropped(hidden, self.dropout, self.noise)
        return functional.linear(hidden, up, self.up_bias) * self.scale

    def _chosen(self, owner: Tensor) -> Tensor:
        # The expert stays on its device, which nothing waits for.
        return owner == torch.randint(self.experts, (), generator=self.noise, device=owner.device)
