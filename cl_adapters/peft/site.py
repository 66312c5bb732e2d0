"""Where in a network a PEFT module stands, for those that want to know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import Slot

__all__ = ["Site", "SiteOf", "check_rank", "frozen_weight"]


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


def check_rank(rank: int, embed_dim: int) -> None:
    """Refuses a rank that does not fit the width.

    Raises:
        InputError: If it is below 1 or above the width.
    """
    check_positive("rank", rank)
    if rank > embed_dim:
        raise InputError(f"`rank` must be at most the width, {embed_dim}, got {rank}")


def frozen_weight(sites: Mapping[Slot, Site], slot: Slot, module: str) -> Tensor:
    """Returns the frozen weights beside a slot.

    Args:
        sites: Of the module's slots.
        slot: The slot.
        module: How the module is called in a message.

    Raises:
        InputError: If the site has none.
    """
    weight = sites[slot].weight
    if weight is None:
        raise InputError(f"{module} must stand beside frozen weights, got a site without")
    return weight
