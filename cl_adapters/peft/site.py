"""Where in a network a PEFT module stands, for those that want to know."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cl_adapters.peft.adapter_set import Slot

__all__ = ["Site", "SiteOf"]


@dataclass(frozen=True, eq=False)
class Site:
    """A slot of a block.

    Attributes:
        slot: The slot.
        block: The block, counted from 0.
        in_features: Width of what the module gets.
        out_features: Width of what it returns.
        weight: The frozen weights (out_features, in_features) beside the module: of the linear
            layer for `qkv`, `proj`, `fc1` and `fc2`, its rows of keys and values (2 D, D) for
            `key_value`; None elsewhere. To be read only.
    """

    slot: Slot
    block: int
    in_features: int
    out_features: int
    weight: Tensor | None


SiteOf = Callable[[Slot, int], Site]
