"""Learned tokens in the stream: where they go in, and how they are cut off again.

Shapes: B batch, N tokens, L learned tokens, D width.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cl_adapters.errors import unknown_name

__all__ = ["Place", "inserted", "removed"]

_PLACES = ("after_class", "front", "end")


@dataclass(frozen=True)
class Place:
    """Where learned tokens stand in the stream.

    Attributes:
        index: Tokens before them.
        is_kept: Whether they stay in the stream after the block.
    """

    index: int
    is_kept: bool

    @classmethod
    def of(cls, module: object, num_tokens: int, num_prefix_tokens: int) -> Self:
        """Returns the place that a module names by its attributes.

        Args:
            module: May have `place` and `is_kept`.
            num_tokens: N, before the learned ones are put in.
            num_prefix_tokens: Class and register tokens, which stand in front.

        Raises:
            InputError: If `place` is unknown.
        """
        name = getattr(module, "place", "after_class")
        if name not in _PLACES:
            raise unknown_name("place", name, _PLACES)
        index = {"after_class": num_prefix_tokens, "front": 0, "end": num_tokens}[name]
        return cls(index, bool(getattr(module, "is_kept", False)))


def inserted(stream: Tensor, rows: Tensor, index: int) -> Tensor:
    """Returns the stream with learned tokens in it.

    Shape:
        stream: (B, N, D). rows: (L, D) or (B, L, D). Output: (B, N + L, D).
    """
    rows = rows.to(stream.dtype).expand(stream.shape[0], -1, -1)
    return torch.cat((stream[:, :index], rows, stream[:, index:]), dim=1)


def removed(stream: Tensor, count: int, index: int) -> Tensor:
    """Returns the stream without the learned tokens that stand behind its first `index` ones.

    Shape:
        stream: (B, N + L, D). Output: (B, N, D).
    """
    return torch.cat((stream[:, :index], stream[:, index + count :]), dim=1)
