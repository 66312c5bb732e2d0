"""PEFT modules without weights of their own, which are called with those of a stack or a bank.

Four things go by name here. The *template* is what the modules of all blocks and sets have in
common: everything but what they hold. A *stacked* module is a bottleneck with tensors from
elsewhere, a *functional* one any other kind with them, a *per-sample* one several modules that
share the images of a batch. The last three are functions as `AdapterSet` takes them.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, L blocks.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slots, traits
from cl_adapters.peft.bottleneck import ACTIVATIONS, Bottleneck
from cl_adapters.peft.noise import dropout, hand_out

__all__ = ["AdapterTemplate", "Drop", "Output"]

Output = Tensor | tuple[Tensor, ...]

_NAMES: Final = ("down", "down_bias", "up", "up_bias")


@dataclass
class Drop:
    """What stacked bottlenecks drop in their middle.

    Attributes:
        share: In [0, 1).
        noise: Source of what is dropped; None takes torch's global one.
    """

    share: float = 0.0
    noise: torch.Generator | None = None


@dataclass
class StackedModule:
    """A bottleneck with tensors from elsewhere: one for all images, or one an image.

    Attributes:
        module: What it computes like.
        tensors: Its parameters, (R, D) for `down`, or (B, R, D) for one an image.
        drop: Shared by all blocks.
    """

    module: Bottleneck
    tensors: Sequence[Tensor]
    drop: Drop

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream, (B, N, D)."""
        down, down_bias, up, up_bias, *learned = self.tensors
        is_one = down.ndim == 2
        if is_one:
            hidden = functional.linear(inputs, down, down_bias)
        else:
            hidden = inputs @ down.transpose(1, 2) + down_bias[:, None]
        hidden = ACTIVATIONS[self.module.activation](hidden)
        if self.drop.share:
            hidden = dropout(hidden, self.drop.share, self.drop.noise)
        # A number of the CPU where it is not learned.
        scale = learned[0].reshape(-1, 1, 1) if learned else self.module.scale
        if is_one:
            return functional.linear(hidden, up, up_bias) * scale
        return (hidden @ up.transpose(1, 2) + up_bias[:, None]) * scale


@dataclass
class FunctionalModule:
    """Any other PEFT module with tensors from elsewhere.

    Attributes:
        module: What it computes like.
        tensors: Its parameters and buffers, in the order of `names`; buffers are written back.
        names: Their names in the module.
        constants: Buffers of the block that no state holds, by name.
    """

    module: nn.Module
    tensors: Sequence[Tensor]
    names: Sequence[str]
    constants: dict[str, Tensor]

    def __post_init__(self) -> None:
        vars(self).update(traits(self.module))

    def __call__(self, *inputs: Tensor, **slot: str) -> Output:
        """Returns what the module makes of its input."""
        given = dict(zip(self.names, self.tensors, strict=True))
        device = self.tensors[0].device
        held = {**given, **{name: each.to(device) for name, each in self.constants.items()}}
        result: Output = functional_call(self.module, held, inputs, slot)
        for name, value in given.items():
            if held[name] is not value:  # a buffer that was set anew, not changed in place
                _write(name, value, held[name])
        return result


def _write(name: str, value: Tensor, new: Tensor) -> None:
    if new.shape != value.shape:
        raise InputError(
            f"buffer {name!r} of a PEFT module whose sets are stored must keep its shape, "
            f"{tuple(value.shape)}, got {tuple(new.shape)}"
        )
    value.copy_(new)


class PerSampleModule:
    """Functions that share the images of a batch.

    Args:
        functions: One for each of some sets.
        rows: The images of each.
    """

    def __init__(self, functions: Sequence[Callable[..., Output]], rows: Sequence[Tensor]) -> None:
        vars(self).update(traits(functions[0]))
        self._parts = list(zip(functions, rows, strict=True))
        self._order = torch.cat(list(rows)).argsort()

    def __call__(self, *inputs: Tensor, **slot: str) -> Output:
        """Returns what the functions make of their images, in the order of the batch."""
        parts = []
        for function, rows in self._parts:
            found = function(*(each[rows] for each in inputs), **slot)
            several = found if isinstance(found, tuple) else (found,)
            # A prefix takes no images, so its output has no dimension for them.
            parts.append(several if inputs else [x.expand(len(rows), *x.shape) for x in several])
        whole = tuple(torch.cat(each)[self._order] for each in zip(*parts, strict=True))
        return whole if len(whole) > 1 else whole[0]


class AdapterTemplate:
    """What the PEFT modules of all blocks and sets have in common: everything but what they hold.

    Args:
        modules: The module of each block, all of one kind and size.
        slot: The slot that they fill, or the slots.
        blocks: Their blocks.

    Attributes:
        module: One of them; what it holds itself is never used.
        parameters: Names of its parameters, by the names under which a stack holds them.
        buffers: The same for the buffers that are part of its state.

    Raises:
        InputError: If it holds something else, or no parameter.
    """

    def __init__(self, modules: Sequence[nn.Module], slot: Slots, blocks: Sequence[int]) -> None:
        self.module = copy.deepcopy(modules[0]).requires_grad_(requires_grad=False)
        self.slot, self.blocks = slot, tuple(blocks)
        names = [name for name, _ in modules[0].named_parameters()]
        stored = modules[0].state_dict()
        held = [dict(module.named_buffers()) for module in modules]
        self.parameters = {_key(name): name for name in names}
        self.buffers = {_key(name): name for name in held[0] if name in stored}
        self.constants = [
            {name: value.clone() for name, value in each.items() if name not in stored}
            for each in held
        ]
        surplus = stored.keys() - names - held[0].keys()
        if surplus or not names:
            raise InputError(
                "a PEFT module whose sets are stored must keep what it learns in parameters and "
                "buffers, got " + (f"the state {min(surplus)!r}" if surplus else "no parameter")
            )
        self.keys = {**self.parameters, **self.buffers}

    @property
    def is_bottleneck(self) -> bool:
        """Whether two batched products serve all images, whatever sets they ask for."""
        return type(self.module) is Bottleneck

    @property
    def dropout(self) -> float:
        """Share of a bottleneck's middle that is dropped in training."""
        return self.module.dropout if isinstance(self.module, Bottleneck) else 0.0

    def functions(
        self, tensors: Sequence[Sequence[Tensor]], drop: Drop
    ) -> list[StackedModule | FunctionalModule]:
        """Returns a function for each block.

        Args:
            tensors: What each block's module holds, in the order of `keys`.
            drop: What bottlenecks drop.
        """
        module, names = self.module, [*self.keys.values()]
        if isinstance(module, Bottleneck) and self.is_bottleneck:
            return [StackedModule(module, each, drop) for each in tensors]
        hand_out(module, drop.noise)
        pairs = zip(tensors, self.constants, strict=True)
        return [FunctionalModule(module, each, names, constants) for each, constants in pairs]

    def filled(self, tensors: Sequence[Sequence[Tensor]], drop: Drop) -> AdapterSet:
        """Returns the functions of all blocks as a backbone runs with them."""
        functions = zip(self.blocks, self.functions(tensors, drop), strict=True)
        return AdapterSet({(self.slot, block): each for block, each in functions})

    def per_sample(
        self, sets: Sequence[Sequence[Sequence[Tensor]]], rows: Sequence[Tensor]
    ) -> AdapterSet:
        """Returns functions that give some rows of a batch to each of some sets."""
        by_set = [self.functions(each, Drop()) for each in sets]
        mixed = {
            (self.slot, block): PerSampleModule(functions, rows)
            for block, *functions in zip(self.blocks, *by_set, strict=True)
        }
        return AdapterSet(mixed)


def _key(name: str) -> str:
    # Apart from the bottleneck's, so that a stranger's name collides with none of a stack's own.
    return name if name in _NAMES else f"peft-{name.replace('.', '-')}"
