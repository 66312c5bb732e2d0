"""LoRA-SB: LoRA-XS whose frozen factors come from the first step that full training would take.

Reference: Kaustubh Ponkshe, Raghav Singhal, Eduard Gorbunov, Alexey Tumanov, Samuel Horvath,
Praneeth Vepakomma, "Initialization using Update Approximation is a Silver Bullet for Extremely
Efficient Low-Rank Fine-Tuning", 2024, arXiv:2411.19557. Published for language models.

What differs from the authors' code: updates go to keys and values, each with factors of its own;
the gradient is the mean over at most 256 images of the first experience, through a classifier by
class means, as there is no trained one yet; the size of the first step is an option, where theirs
is that of their schedule; vectors are exact, and the sign of each makes its largest entry
positive. Until a gradient has been seen the factors are singular vectors of the frozen weights,
and nothing is added.

Parameters a block, R rank: 2 R^2; 512 at R = 16, and 4 D R fixed numbers that the state holds,
since images decided on them. With orthonormal factors, a step along the gradient of R is one along
the projection of the full gradient.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.lora_xs import between, singular_vectors
from cl_adapters.peft.site import Site, check_rank, frozen_weight

__all__ = ["LoRASB"]


class LoRASB(nn.Module):
    """Updates B R A u of keys and values, which start as the nearest of rank R to a signed step.

    For the slot `key_value`. With G the gradient of the loss at the frozen weights, -step * sign(G)
    is about U S V' (the largest R parts): B = U and A = V' stay, R starts as S.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R, at least 1, at most the width.
        step: Size of the first step, not negative; 0 takes the directions alone, and starts where
            the network is.
        generator: Not drawn from: nothing is random.
        sites: The site of `key_value`, with its frozen weights; keys and values are taken apart.

    Attributes:
        mix: R of keys and of values, (2, R, R).
        down, up: A, (2, R, D), and B, (2, D, R): frozen.
        has_seen: Whether a gradient has been seen, part of the state.

    Raises:
        InputError: If the rank does not fit the width, the step is negative, or there are no
            frozen weights.
    """

    moves_on_calibration = True

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        step: float = 0.001,
        generator: torch.Generator,  # noqa: ARG002 - that of every module
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        check_rank(rank, embed_dim)
        if step < 0:
            raise InputError(f"`step` must not be negative, got {step}")
        weight = frozen_weight(sites, "key_value", "LoRA-SB")
        self.step = step
        self.mix = nn.Parameter(torch.zeros(2, rank, rank))
        parts = [singular_vectors(each, rank) for each in weight.chunk(2)]
        self.register_buffer("up", torch.stack([up.float() for up, _, _ in parts]))
        self.register_buffer("down", torch.stack([down.float() for _, _, down in parts]))
        self.register_buffer("has_seen", torch.tensor(data=False))
        self.up: Tensor
        self.down: Tensor
        self.has_seen: Tensor

    @property
    def awaits_gradient(self) -> bool:
        """Whether no gradient has been seen yet."""
        return not bool(self.has_seen)

    @torch.no_grad()
    def calibrate_by(self, gradients: Mapping[Slot, Tensor]) -> None:
        """Takes the factors from the gradient at keys and values, (2 D, D)."""
        for side, gradient in enumerate(gradients["key_value"].chunk(2)):
            up, values, down = singular_vectors(-gradient.sign(), len(self.mix[side]))
            self.up[side], self.down[side] = up, down
            self.mix[side] = torch.diag(self.step * values)
        self.has_seen.fill_(value=True)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values: from (B, N, D) two of that shape."""
        return between(inputs, self.up, self.mix, self.down)

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of keys and values, (2 D, D)."""
        return (self.up @ self.mix @ self.down).flatten(0, 1)
