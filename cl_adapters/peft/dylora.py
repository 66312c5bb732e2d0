"""DyLoRA: one low-rank update that works at every rank up to its own.

Reference: Mojtaba Valipour, Mehdi Rezagholizadeh, Ivan Kobyzev, Ali Ghodsi, "DyLoRA:
Parameter-Efficient Tuning of Pre-trained Models using Dynamic Search-Free Low-Rank Adaptation",
EACL 2023, arXiv:2210.07558. Published for language models.

What differs from the authors' code: updates go to keys and values; each block draws a rank of its
own, where theirs is one for all blocks of a step; ranks count from 1; alpha is R where it is not
given, so that the full rank is LoRA without a factor.

Parameters a block, D width of the stream, R rank: 4 D R; 24,576 at D = 768 and R = 8. At rank b
4 D b of them are used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.noise import draws

__all__ = ["DyLoRA"]


class DyLoRA(nn.Module):
    """Updates of keys and values, (alpha / b) B[:, :b] A[:b] u, with b drawn at each step.

    For the slot `key_value`. B starts at zero. Training draws b from 1 to R, each as likely; else
    the update has the rank that is chosen.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R, the largest rank; positive.
        alpha: Factor; None takes R.
        frozen: Train row and column b alone, as the authors' runs did; else all of the first b.
        generator: Source of the initial weights.

    Attributes:
        noise: Source of the ranks; None takes torch's global one.

    Raises:
        InputError: If the rank is not positive.

    Example:
        >>> module = DyLoRA(8, 4, generator=torch.Generator().manual_seed(0)).eval()
        >>> module.rank = 2
        >>> keys, values = module(torch.ones(1, 5, 8))
        >>> keys.shape, bool(values.any())
        (torch.Size([1, 5, 8]), False)
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        alpha: float | None = None,
        frozen: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        self.key_down = uniform_rows(rank, embed_dim, generator)
        self.key_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.value_down = uniform_rows(rank, embed_dim, generator)
        self.value_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.alpha = float(rank) if alpha is None else alpha
        self.frozen = frozen
        self.noise: torch.Generator | None = None
        self._rank = rank

    @property
    def rank(self) -> int:
        """The rank outside of training, from 1 to R.

        Raises:
            InputError: If it is set to another.
        """
        return self._rank

    @rank.setter
    def rank(self, rank: int) -> None:
        if not 1 <= rank <= len(self.key_down):
            raise InputError(f"`rank` must lie in [1, {len(self.key_down)}], got {rank}")
        self._rank = rank

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        pairs = self._pairs()
        if not draws(self, self.key_up):
            return self._updates(inputs, [(a[: self._rank], b[:, : self._rank]) for a, b in pairs])
        where, largest = self.key_down.device, len(self.key_down)
        # The rank stays on its device, where masks take the place of slices.
        rank = torch.randint(1, largest + 1, (), generator=self.noise, device=where)
        numbers = torch.arange(1, largest + 1, device=where)
        taken, learns = numbers <= rank, numbers == rank
        if self.frozen:
            pairs = [
                (torch.where(learns[:, None], a, a.detach()), torch.where(learns, b, b.detach()))
                for a, b in pairs
            ]
        return self._updates(inputs, [(a, b * taken) for a, b in pairs], rank)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.key_down, self.key_up), (self.value_down, self.value_up)]

    def _updates(
        self, inputs: Tensor, pairs: list[tuple[Tensor, Tensor]], rank: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        factor = self.alpha / (self._rank if rank is None else rank)
        keys, values = (
            functional.linear(functional.linear(inputs, a), b) * factor for a, b in pairs
        )
        return keys, values

    def delta(self) -> Tensor:
        """Returns what merging at the chosen rank adds to the weights of keys and values.

        Shape:
            Output: (2 D, D).
        """
        products = [b[:, : self._rank] @ a[: self._rank] for a, b in self._pairs()]
        return torch.cat(products) * (self.alpha / self._rank)
