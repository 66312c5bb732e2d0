"""Parameter-efficient modules (PETs) and the slots of a frozen ViT block that they fill.

Four slots exist in a block, with h the residual stream that enters it and u = norm1(h):

    attention   module(u)  added beside attention            (LAE's adapter)
    key_value   module(u)  -> what is added to K and V       (LAE's LoRA)
    prefix      module()   -> learned keys and values        (LAE's prefix)
    mlp         module(x)  added beside the MLP, x = the stream after attention, not normalised
                           (SEMA, MOS)

Every module but the prefix leaves the block unchanged at the start. Modules draw their initial
weights from the generator that they are given and never from torch's global state.

References: Gao et al., "A Unified Continual Learning Framework with General Parameter-Efficient
Tuning" (LAE), ICCV 2023, arXiv:2303.10070. Wang et al., "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning" (SEMA), CVPR 2025, arXiv:2403.18886. Sun et al.,
"MOS: Model Surgery for Pre-Trained Model-Based Class-Incremental Learning", AAAI 2025,
arXiv:2412.09441. He, Zhou, Ma, Berg-Kirkpatrick, Neubig, "Towards a Unified View of
Parameter-Efficient Transfer Learning" (the parallel adapter), ICLR 2022, arXiv:2110.04366.

Shapes: B batch, N tokens, D width of the stream (`embed_dim`), R rank or width of the bottleneck,
L prefix length.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.plugins import Registry

__all__ = [
    "ACTIVATIONS",
    "PARALLEL",
    "PETS",
    "PET_NAMES",
    "AdapterSet",
    "Bottleneck",
    "KeyValueLoRA",
    "Pet",
    "Prefix",
    "Slot",
    "as_pet",
    "build_pets",
    "find_pet",
]

Slot = Literal["attention", "key_value", "prefix", "mlp"]
Activation = Literal["relu", "gelu"]

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


def _scale(value: float | None) -> Tensor:
    # A learnable scale is a parameter that starts at 1; a fixed one is a number that is not stored.
    return nn.Parameter(torch.ones(())) if value is None else torch.tensor(float(value))


def _uniform_rows(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    # Kaiming-uniform with a = sqrt(5), which torch also uses for a fresh linear layer.
    weight = torch.empty(rows, columns)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return nn.Parameter(weight)


def check_positive(name: str, value: int) -> None:
    """Raises `InputError` unless a size is a positive integer."""
    if value < 1:
        raise InputError(f"`{name}` must be a positive integer, got {value}")


class Bottleneck(nn.Module):
    """Two linear layers with a narrow middle: s * (W_up act(W_down x + b_down) + b_up).

    For the slots `attention` and `mlp`. W_up and both biases start at zero, so a new module
    outputs exactly zero.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        activation: `gelu` in LAE, `relu` in SEMA and MOS.
        scale: Fixed factor s (0.1 in MOS, 1 in SEMA); None learns it, starting at 1 (LAE).
        dropout: Share of the middle dropped in train mode, in [0, 1) (0.1 in MOS).
        generator: Source of the initial weights.

    Example:
        >>> module = Bottleneck(8, 2, generator=torch.Generator().manual_seed(0))
        >>> bool((module(torch.randn(3, 5, 8)) == 0).all())
        True
    """

    def __init__(
        self,
        embed_dim: int,
        width: int,
        *,
        activation: Activation = "gelu",
        scale: float | None = None,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1), got {dropout}")
        self.down = _uniform_rows(width, embed_dim, generator)
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(embed_dim, width))
        self.up_bias = nn.Parameter(torch.zeros(embed_dim))
        self.scale = _scale(scale)
        self.activation = activation
        self.dropout = dropout

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream.

        Shape:
            inputs: (B, N, D). Output: (B, N, D).
        """
        hidden = ACTIVATIONS[self.activation](functional.linear(inputs, self.down, self.down_bias))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        return functional.linear(hidden, self.up, self.up_bias) * self.scale


class KeyValueLoRA(nn.Module):
    """Low-rank updates of the key and value projections: s_K B_K A_K u and s_V B_V A_V u.

    For the slot `key_value`. The queries stay untouched, there is no alpha / R factor. B starts at
    zero, the scales are learned and start at 1.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R; positive.
        generator: Source of the initial weights.
    """

    def __init__(self, embed_dim: int, rank: int, *, generator: torch.Generator) -> None:
        super().__init__()
        check_positive("rank", rank)
        self.key_down = _uniform_rows(rank, embed_dim, generator)
        self.key_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.key_scale = _scale(None)
        self.value_down = _uniform_rows(rank, embed_dim, generator)
        self.value_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.value_scale = _scale(None)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values, before they are split into heads.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        keys = functional.linear(functional.linear(inputs, self.key_down), self.key_up)
        values = functional.linear(functional.linear(inputs, self.value_down), self.value_up)
        return keys * self.key_scale, values * self.value_scale


class Prefix(nn.Module):
    """Learned keys and values that every query may attend to, in the projected space.

    For the slot `prefix`; `cl_adapters.backbone.prefix_attention` says how they are used. Starts
    uniform in [0, 0.01): of all PETs the only one that changes the block from the first step on.

    Args:
        embed_dim: D, width of the key and value projections.
        length: L, number of learned positions; positive.
        generator: Source of the initial weights.
    """

    def __init__(self, embed_dim: int, length: int, *, generator: torch.Generator) -> None:
        super().__init__()
        check_positive("length", length)
        self.keys = nn.Parameter(
            torch.empty(length, embed_dim).uniform_(0, 0.01, generator=generator)
        )
        self.values = nn.Parameter(
            torch.empty(length, embed_dim).uniform_(0, 0.01, generator=generator)
        )
        self.key_scale = _scale(None)
        self.value_scale = _scale(None)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the keys and the values, two tensors (L, D)."""
        return self.keys * self.key_scale, self.values * self.value_scale


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


@dataclass(frozen=True)
class Pet:
    """A kind of PET.

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
PARALLEL: Final = Pet("mlp", 16, _parallel)
PETS: Final[dict[str, Pet]] = {
    "parallel": PARALLEL,
    "adapter": Pet("attention", 5, lambda dim, size, rng: Bottleneck(dim, size, generator=rng)),
    "lora": Pet("key_value", 5, lambda dim, size, rng: KeyValueLoRA(dim, size, generator=rng)),
    "prefix": Pet("prefix", 10, lambda dim, size, rng: Prefix(dim, size, generator=rng)),
}


def as_pet(value: object) -> Pet:
    """Returns what a module class means as a PET.

    Args:
        value: An `nn.Module` class with the class attributes `slot` and `default_size`, called as
            `Name(embed_dim, size, generator=generator)`; or a `Pet`.

    Raises:
        InputError: If it is neither; the sentence begins with the rule.
    """
    if isinstance(value, Pet):
        return value
    slot, size = getattr(value, "slot", None), getattr(value, "default_size", None)
    is_module = isinstance(value, type) and issubclass(value, nn.Module)
    if not is_module or slot not in get_args(Slot) or not isinstance(size, int):
        raise InputError(
            f"must be an nn.Module class with `slot`, one of {', '.join(get_args(Slot))}, and a "
            f"whole number `default_size`, got {value!r}"
        )
    kind = cast("Callable[..., nn.Module]", value)
    return Pet(cast("Slot", slot), size, lambda dim, size, rng: kind(dim, size, generator=rng))


PET_NAMES: Final = Registry("pet", "cl_adapters.adapters", PETS, as_pet)


def find_pet(name: str) -> Pet:
    """Returns the PET of a name: built in, `file.py:Name`, or of an installed package.

    `as_pet` says what a class of one's own must be.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return PET_NAMES.find(name)


def build_pets(
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
            the MLP, ReLU), or one of the user's, see `find_pet`.
        embed_dim: D, width of the stream.
        blocks: The blocks that get one; LAE uses the first five.
        size: Width, rank or length; None takes the PET's own.
        generator: Source of the initial weights.

    Raises:
        InputError: If the name is unknown or the size is not positive.
    """
    pet = find_pet(name)
    chosen = pet.default_size if size is None else size
    return AdapterSet(
        {(pet.slot, block): pet.make(embed_dim, chosen, generator) for block in blocks}
    )
