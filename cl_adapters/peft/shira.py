"""SHiRA: a sparse update of high rank, of which few entries are trained.

Reference: Kartikeya Bhardwaj, Nilesh Prasad Pandey, Sweta Priyadarshi, Viswanath Ganapathy, Shreya
Kadambi, Rafael Esteves, Shubhankar Borse, Paul Whatmough, Risheek Garrepalli, Mart van Baalen,
Harris Teague, Markus Nagel, "Sparse High Rank Adapters", NeurIPS 2024, arXiv:2406.13175. Published
for language models and image generation.

What differs from the published code: updates go to keys and values; of the masks there are
`random`, `weight` (the largest frozen weights W), `gradient` (the largest gradients G of the loss)
and `snip` (the largest |W G|), and none of rows and columns. G is the mean over at most 256 images
of the first experience, through a classifier by class means; until a module has seen it, places
are those of the mask `weight`.

Parameters a block, D width of the stream, R the rank of a LoRA that has as many: 4 D R; 24,576 at
D = 768 and R = 8. Beside them stand as many whole numbers, the places, which are chosen once.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.site import Site

__all__ = ["Mask", "SHiRA"]

Mask = Literal["random", "weight", "gradient", "snip"]


class SHiRA(nn.Module):
    """Updates S u of keys and values, S zero but at K = 2 D R places of each, which never change.

    For the slot `key_value`. All entries start at zero.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R; 2 R must not be more than D, or there are more places than a matrix has.
        mask: Which places: `random`, or those of the largest frozen weights (`weight`), gradients
            (`gradient`) or products of both (`snip`).
        generator: Source of random places.
        sites: The site of `key_value`, for all masks but `random`.

    Attributes:
        values: Entries of keys and of values, (2, K).
        places: Where they stand in a matrix that is read row by row, (2, K).
        awaits_gradient: Whether the mask goes by a gradient that has not been seen yet.

    Raises:
        InputError: If the rank does not fit the width, or the mask has no weights to go by.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        mask: Mask = "random",
        generator: torch.Generator,
        sites: dict[Slot, Site] | None = None,
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        count, whole = 2 * embed_dim * rank, embed_dim**2
        if count > whole:
            raise InputError(
                f"`rank` must be at most half the width, {embed_dim // 2}, got {rank}: a mask of "
                f"{count} places is larger than the matrix of {whole}"
            )
        if mask == "random":
            order = [torch.randperm(whole, generator=generator) for _ in range(2)]
            places = torch.stack([each[:count] for each in order])
        else:
            weight = None if sites is None else sites["key_value"].weight
            if weight is None:
                raise InputError(f"mask {mask!r} must have frozen weights to go by, got none")
            places = _largest(weight.detach(), count)
            if mask == "snip":
                self.register_buffer("weight", weight.detach().clone(), persistent=False)
        if mask in {"gradient", "snip"}:
            self.register_buffer("has_seen", torch.tensor(data=False))
        self.weight: Tensor
        self.has_seen: Tensor
        self.mask: Mask = mask
        # Half the bytes of torch's own whole numbers.
        self.register_buffer("places", places.sort(dim=1).values.int())
        self.places: Tensor
        self.values = nn.Parameter(torch.zeros(2, count))
        self.embed_dim = embed_dim

    @property
    def awaits_gradient(self) -> bool:
        """Whether the mask goes by a gradient that has not been seen yet."""
        return hasattr(self, "has_seen") and not bool(self.has_seen)

    @torch.no_grad()
    def calibrate_by(self, gradients: Mapping[Slot, Tensor]) -> None:
        """Chooses the places by the gradient at keys and values, (2 D, D)."""
        found = gradients["key_value"]
        ranked = found if self.mask == "gradient" else found * self.weight
        self.places.copy_(_largest(ranked, self.places.shape[1]).sort(dim=1).values)
        self.has_seen.fill_(value=True)

    def delta(self) -> Tensor:
        """Returns S of keys and of values, which merging adds to their weights, (2 D, D)."""
        empty = self.values.new_zeros(2, self.embed_dim**2)
        return empty.scatter(1, self.places.long(), self.values).view(-1, self.embed_dim)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        keys, values = functional.linear(inputs, self.delta()).chunk(2, dim=-1)
        return keys, values


def _largest(rows: Tensor, count: int) -> Tensor:
    # On the CPU, where ties fall alike on every machine.
    return rows.abs().cpu().reshape(2, -1).topk(count).indices
