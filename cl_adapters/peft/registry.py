"""Kinds of PEFT modules, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slot
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.lora import KeyValueLoRA
from cl_adapters.peft.prefix import Prefix
from cl_adapters.plugins.registry import Registry

__all__ = ["PARALLEL", "PEFTS", "PEFT_NAMES", "Peft", "as_peft", "build_adapters", "find_peft"]


@dataclass(frozen=True)
class Peft:
    """A kind of PEFT module.

    Attributes:
        slot: Where it goes.
        default_size: Width, rank or length.
        make: From `embed_dim`, size and a generator of initial weights to a module.
    """

    slot: Slot
    default_size: int
    make: Callable[[int, int, torch.Generator], nn.Module]


def _parallel(dim: int, size: int, generator: torch.Generator) -> Bottleneck:
    return Bottleneck(dim, size, activation="relu", scale=1.0, generator=generator)


# SEMA's adapter, and MOS's but for its scale and dropout.
PARALLEL: Final = Peft("mlp", 16, _parallel)
PEFTS: Final[dict[str, Peft]] = {
    "parallel": PARALLEL,
    "adapter": Peft("attention", 5, lambda dim, size, rng: Bottleneck(dim, size, generator=rng)),
    "lora": Peft("key_value", 5, lambda dim, size, rng: KeyValueLoRA(dim, size, generator=rng)),
    "prefix": Peft("prefix", 10, lambda dim, size, rng: Prefix(dim, size, generator=rng)),
}


def as_peft(value: object) -> Peft:
    """Returns what a module class means as a PEFT module.

    Args:
        value: An `nn.Module` class with the class attributes `slot` and `default_size`, called as
            `Name(embed_dim, size, generator=generator)`; or a `Peft`.

    Raises:
        InputError: If it is neither; the sentence begins with the rule.
    """
    if isinstance(value, Peft):
        return value
    slot, size = getattr(value, "slot", None), getattr(value, "default_size", None)
    is_module = isinstance(value, type) and issubclass(value, nn.Module)
    if not is_module or slot not in get_args(Slot) or not isinstance(size, int):
        raise InputError(
            f"must be an nn.Module class with `slot`, one of {', '.join(get_args(Slot))}, and a "
            f"whole number `default_size`, got {value!r}"
        )
    kind = cast("Callable[..., nn.Module]", value)
    return Peft(cast("Slot", slot), size, lambda dim, size, rng: kind(dim, size, generator=rng))


PEFT_NAMES: Final = Registry("peft", "cl_adapters.adapters", PEFTS, as_peft)


def find_peft(name: str) -> Peft:
    """Returns the PEFT module of a name: built in, `file.py:Name`, or of an installed package.

    `as_peft` says what a class of one's own must be.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return PEFT_NAMES.find(name)


def build_adapters(
    name: str,
    *,
    embed_dim: int,
    blocks: Sequence[int],
    size: int | None = None,
    generator: torch.Generator,
) -> AdapterSet:
    """Builds LAE's modules: one of the named kind in each block (methods of LAE, section 4.1).

    Args:
        name: `adapter` (beside attention, GELU), `lora` (on K and V), `prefix`, `parallel` (beside
            the MLP, ReLU), or one of the user's, see `find_peft`.
        embed_dim: D, width of the stream.
        blocks: The blocks that get one; LAE uses the first five.
        size: Width, rank or length; None takes the PEFT module's own.
        generator: Source of the initial weights.

    Raises:
        InputError: If the name is unknown or the size is not positive.
    """
    peft = find_peft(name)
    chosen = peft.default_size if size is None else size
    return AdapterSet(
        {(peft.slot, block): peft.make(embed_dim, chosen, generator) for block in blocks}
    )
