"""The head as it was before an alignment, for methods that go on from there."""

from typing import cast

import torch
from torch import Tensor, nn

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError
from cl_adapters.heads.linear import ExperienceHeads

__all__ = ["UnalignedHead"]


class UnalignedHead(GrowingBuffers):
    """Keeps a copy of a head's rows, as part of the state, until they are put back.

    Example:
        >>> heads, kept = ExperienceHeads(4), UnalignedHead()
        >>> heads.add_classes([0, 1], torch.Generator().manual_seed(0))
        >>> kept.keep(heads)
        >>> _ = heads.layers[0].weight.data.zero_()
        >>> kept.restore(heads)
        >>> bool(heads.layers[0].weight.any()), kept.is_kept
        (True, False)
    """

    grows_by_learning = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(0, 0))
        self.register_buffer("bias", torch.zeros(0))
        self.weight: Tensor
        self.bias: Tensor

    @property
    def is_kept(self) -> bool:
        """Whether there is a head to put back."""
        return len(self.weight) > 0

    @torch.no_grad()
    def keep(self, heads: ExperienceHeads) -> None:
        """Copies all rows of a head."""
        layers = cast("list[nn.Linear]", list(heads.layers))
        self.weight = torch.cat([layer.weight for layer in layers])
        self.bias = torch.cat(
            [layer.weight.new_zeros(0) if layer.bias is None else layer.bias for layer in layers]
        )

    @torch.no_grad()
    def restore(self, heads: ExperienceHeads) -> None:
        """Puts the rows back, and forgets them; does nothing if none are kept.

        Raises:
            InputError: If the head has grown since.
        """
        if not self.is_kept:
            return
        layers = cast("list[nn.Linear]", list(heads.layers))
        sizes = [layer.out_features for layer in layers]
        if sum(sizes) != len(self.weight):
            raise InputError(
                f"a head must be put back before it grows: {len(self.weight)} rows were kept, "
                f"got {sum(sizes)}"
            )
        biases = torch.split(self.bias, sizes) if len(self.bias) else [None] * len(sizes)
        for layer, weight, bias in zip(
            layers, torch.split(self.weight, sizes), biases, strict=True
        ):
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        self.weight, self.bias = self.weight[:0], self.bias[:0]
