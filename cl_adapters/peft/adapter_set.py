"""Modules by slot and block: what a frozen ViT runs with."""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from torch import nn

from cl_adapters.errors import InputError, unknown_name

__all__ = ["AdapterSet", "Slot"]

Slot = Literal["attention", "key_value", "prefix", "mlp"]


class AdapterSet(nn.Module):
    """Modules by slot and block: what `AdaptedViT.run` adds to the frozen ViT.

    Args:
        modules: The module of each (slot, block); blocks count from 0.

    Example:
        >>> seeded = torch.Generator().manual_seed(0)
        >>> adapters = AdapterSet({("mlp", 3): Bottleneck(8, 2, generator=seeded)})
        >>> adapters.at("mlp", 3) is not None, adapters.at("mlp", 4) is None, adapters.first_block
        (True, True, 3)
    """

    def __init__(self, modules: Mapping[tuple[Slot, int], nn.Module]) -> None:
        super().__init__()
        for slot, block in modules:
            if slot not in get_args(Slot):
                raise unknown_name("slot", slot, get_args(Slot))
            if block < 0:
                raise InputError(f"block of slot {slot!r} must not be negative, got {block}")
        self._by_name = nn.ModuleDict(
            {f"{slot}_{block}": m for (slot, block), m in modules.items()}
        )
        self._keys = tuple(modules)

    def __iter__(self) -> Iterator[tuple[Slot, int]]:
        return iter(self._keys)

    def at(self, slot: Slot, block: int) -> nn.Module | None:
        """Returns the module of a slot, or None if the slot is empty."""
        name = f"{slot}_{block}"
        return self._by_name[name] if name in self._by_name else None  # noqa: SIM401 - no `get` there

    def touches(self, block: int) -> bool:
        """Says whether any slot of a block is filled."""
        return any(filled == block for _, filled in self._keys)

    @property
    def first_block(self) -> int:
        """The first block with a filled slot; 0 if there is none."""
        return min((block for _, block in self._keys), default=0)

    @property
    def stop_block(self) -> int:
        """The block after the last with a filled slot; 0 if there is none."""
        return max((block + 1 for _, block in self._keys), default=0)
