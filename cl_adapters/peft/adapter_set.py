"""Modules by slot and block: what a frozen ViT runs with.

A slot is a place in a block where something is added or put in. With x what enters the block,
u = norm1(x), z the stream after attention, and y what a frozen linear layer made of its input:

    slot         is called with   returns
    tokens       nothing          (L, D) or (B, L, D): tokens put in before the block
    attention    u                (B, N, D): added to what attention adds to the stream
    key_value    u                two (B, N, D): added to the keys and to the values
    prefix       nothing          two (L, D) or (B, L, D): keys and values that all may attend to
    mlp          z                (B, N, D): added to what the MLP adds to the stream
    qkv          u, y             (B, N, 3 D): added to queries, keys and values, in this order
    proj, fc1,   the layer's      added to the layer's output: attention's projection, and the two
    fc2          input, y         layers of the MLP
    attention_   P, q, v, y       (B, N, D): added to y, what attention's projection gave; P
    graph                         (B, H, N, N) its shares, q and v its queries and values (B, N, D)

A module of `tokens` may say, by attributes, where its tokens go (`place`: `"after_class"`, the
default, behind class and register tokens; `"front"`; `"end"`), whether they get the class token's
position vector (`position = "class"`) or none, and whether they stay in the stream after the block
(`is_kept`, False by default). A module of `prefix` says with `renormalise` whether the prefix is
weighed apart (True, the default, as in LAE) or in one softmax with all other positions (False).

A module may fill several slots at once: it is called for each of them with the slot's name as the
keyword `slot`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Literal, cast, get_args

from torch import nn

from cl_adapters.errors import InputError, unknown_name

__all__ = ["SLOTS", "TRAITS", "AdapterSet", "Slot", "Slots", "slots_of", "traits"]

Slot = Literal[
    "attention",
    "key_value",
    "prefix",
    "mlp",
    "tokens",
    "qkv",
    "proj",
    "fc1",
    "fc2",
    "attention_graph",
]
Slots = Slot | tuple[Slot, ...]
SLOTS: Final[tuple[Slot, ...]] = get_args(Slot)
TRAITS: Final = ("place", "position", "is_kept", "renormalise")


def slots_of(slots: Slots) -> tuple[Slot, ...]:
    """Returns the slots as a tuple, be it one or several."""
    return slots if isinstance(slots, tuple) else (slots,)


def traits(module: object) -> dict[str, object]:
    """Returns what a module says, by attributes, about how its output is used."""
    return {name: getattr(module, name) for name in TRAITS if hasattr(module, name)}


class AdapterSet(nn.Module):
    """Modules by slot and block: what `AdaptedViT.run` adds to the frozen ViT.

    Args:
        modules: The module of each (slot, block), or of each (slots, block) where one fills
            several; blocks count from 0. Functions stand beside modules, without a state.

    Attributes:
        blocks: What is called in each slot, by block; blocks and slots that are empty are missing.
        first_block: The first block with a filled slot; 0 if there is none.
        stop_block: The block after the last with a filled slot; 0 if there is none.

    Raises:
        InputError: If a slot is unknown or filled twice, or a block is negative.

    Example:
        >>> adapters = AdapterSet({("mlp", 3): nn.Linear(8, 8)})
        >>> adapters.at("mlp", 3) is not None, adapters.at("mlp", 4) is None, adapters.first_block
        (True, True, 3)
    """

    def __init__(self, modules: Mapping[tuple[Slots, int], Callable[..., Any]]) -> None:
        super().__init__()
        self._by_name = nn.ModuleDict()
        self._by_place: dict[tuple[Slot, int], Callable[..., Any]] = {}
        self.blocks: dict[int, dict[Slot, Callable[..., Any]]] = {}
        for (slots, block), module in modules.items():
            names = slots if isinstance(slots, tuple) else (slots,)
            if block < 0:
                raise InputError(f"block of slot {names[0]!r} must not be negative, got {block}")
            filled = self.blocks.setdefault(block, {})
            for slot in names:
                if slot not in SLOTS:
                    raise unknown_name("slot", slot, SLOTS)
                if slot in filled:
                    raise InputError(f"slot {slot!r} of block {block} must be filled once, got two")
                filled[slot] = module if len(names) == 1 else _part(module, slot)
                self._by_place[slot, block] = module
            if isinstance(module, nn.Module):
                self._by_name[f"{'+'.join(names)}_{block}"] = module
        self._keys = tuple(modules)
        self.first_block = min(self.blocks, default=0)
        self.stop_block = max(self.blocks, default=-1) + 1

    def __iter__(self) -> Iterator[tuple[Slots, int]]:
        return iter(self._keys)

    def at(self, slots: Slots, block: int) -> nn.Module | None:
        """Returns the module of a slot, or of the first of several; None if it is empty."""
        slot = slots if isinstance(slots, str) else slots[0]
        return cast("nn.Module | None", self._by_place.get((slot, block)))

    def touches(self, block: int) -> bool:
        """Says whether any slot of a block is filled."""
        return block in self.blocks


def _part(module: Callable[..., Any], slot: Slot) -> Callable[..., Any]:
    part = partial(module, slot=slot)
    part.__dict__.update(traits(module))
    return part
