"""CorDA: low-rank factors along directions that what was learned before hardly uses.

Reference: Yibo Yang, Xiaojie Li, Zhongzhu Zhou, Shuaiwen Leon Song, Jianlong Wu, Liqiang Nie,
Bernard Ghanem, "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models for
Task-Aware Parameter-Efficient Fine-tuning", NeurIPS 2024, arXiv:2406.05223. Published for language
models.

What differs from the authors' code: updates go to keys and values, whose rows are taken apart
together; the frozen weights stay, and what the factors start with is taken off again; no sample is
divided by its largest entry, and moments by the number of tokens. The moments are those of the
first experience: during it the module is LoRA, and it turns at its end. `freezes_down` is ours: A
is then not trained, so that later updates stay in those directions.

Parameters a block, D width, R rank: 3 D R; 18,432 at D = 768 and R = 8, and twice as many fixed.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.site import Site, check_rank, frozen_weight

__all__ = ["CorDA", "Mode", "oriented"]

Mode = Literal["preserve", "preview"]
_DAMPING = 0.01
_WRONG = 0.05  # of the product of the moments and their inverse


def oriented(
    weight: Tensor, moments: Tensor, rank: int, mode: Mode = "preserve"
) -> tuple[Tensor, Tensor]:
    """Returns factors B, (out, R), and A, (R, in), of a part of a matrix W.

    With C the damped moments and U S V' = W C, W is U S (V' C^-1): of these parts the R smallest
    (`preserve`) or the R largest (`preview`).

    Shape:
        weight: W, (out, in). moments: E[x x'] of its inputs x, (in, in).
    """
    moments, share = moments.double(), _DAMPING
    unit = torch.eye(len(moments), dtype=moments.dtype)
    while True:
        damped = moments + share * moments.diagonal().mean() * unit
        inverse = torch.linalg.inv(damped)
        if torch.linalg.norm(damped @ inverse - unit) < _WRONG:
            break
        share *= 2
    left, values, right = torch.linalg.svd(weight.double().cpu() @ damped, full_matrices=False)
    parts = slice(len(values) - rank, None) if mode == "preserve" else slice(rank)
    roots = values[parts].sqrt()
    return (left[:, parts] * roots).float(), (roots[:, None] * right[parts] @ inverse).float()


class CorDA(nn.Module):
    """Updates (B A - B_0 A_0) u of keys and values, beside what was learned before the turn.

    For the slot `key_value`. Until `calibrate` it is LoRA: A Kaiming-uniform, B, A_0, B_0 zero.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R, at least 1, at most the width.
        mode: Which parts of the weights the factors take: those that the inputs use least
            (`preserve`) or most (`preview`).
        freezes_down: Leave A as it is.
        generator: Source of the initial weights.
        sites: The site of `key_value`.

    Attributes:
        down, up: A, (R, D), and B, (2 D, R).
        down_start, up_start, down_before, up_before: A_0 and B_0; A and B before the turn.

    Raises:
        InputError: If the rank does not fit the width, or no weights are given.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        mode: Mode = "preserve",
        freezes_down: bool = False,
        generator: torch.Generator,
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        check_rank(rank, embed_dim)
        weight = frozen_weight(sites, "key_value", "CorDA")
        self.register_buffer("weight", weight.detach().clone(), persistent=False)
        self.down = uniform_rows(rank, embed_dim, generator)
        if freezes_down:
            start = self.down.detach()
            del self.down
            self.register_buffer("down", start)
        self.up = nn.Parameter(torch.zeros(2 * embed_dim, rank))
        for name in ("start", "before"):
            self.register_buffer(f"down_{name}", torch.zeros(rank, embed_dim))
            self.register_buffer(f"up_{name}", torch.zeros(2 * embed_dim, rank))
        self.weight: Tensor
        self.down_start: Tensor
        self.up_start: Tensor
        self.down_before: Tensor
        self.up_before: Tensor
        self.mode: Mode = mode
        self._moments: Tensor | None = None
        self._tokens = 0

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values: from (B, N, D) two of that shape."""
        down = torch.cat((self.down, self.down_start, self.down_before))  # (3 R, D)
        up = torch.cat((self.up, -self.up_start, self.up_before), dim=1)
        keys, values = functional.linear(functional.linear(inputs, down), up).chunk(2, dim=-1)
        return keys, values

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of keys and values, (2 D, D)."""
        update = self.up @ self.down - self.up_start @ self.down_start
        return update + self.up_before @ self.down_before

    @torch.no_grad()
    def observe(self, *inputs: Tensor) -> None:
        """Takes note of the second moments of a batch, (B, N, D)."""
        rows = inputs[0].flatten(0, -2).float()
        moments = (rows.T @ rows).double().cpu()
        self._moments = moments if self._moments is None else self._moments + moments
        self._tokens += len(rows)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Turns the factors, once; the update stays what it is. Without images: `InputError`."""
        moments, tokens, self._moments, self._tokens = self._moments, self._tokens, None, 0
        if moments is None:
            raise InputError("CorDA must see at least one image before it turns, got none")
        if self.up_start.any():
            return
        up, down = oriented(self.weight + self.delta(), moments / tokens, len(self.down), self.mode)
        for name, value in (("up", up), ("down", down)):
            getattr(self, f"{name}_before").copy_(getattr(self, name))
            getattr(self, name).copy_(value)
            getattr(self, f"{name}_start").copy_(value)
