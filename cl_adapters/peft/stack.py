"""One set of PEFT modules that is trained, as stacked tensors: a module in every block.

Shapes: D width of the stream, R width of an adapter, L blocks.
"""

import copy
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slots
from cl_adapters.peft.noise import hand_out
from cl_adapters.peft.registry import Peft
from cl_adapters.peft.site import SiteOf
from cl_adapters.peft.template import AdapterTemplate, Drop

__all__ = ["AdapterStack"]


class AdapterStack(nn.Module):
    """One PEFT module a block, stacked.

    Args:
        modules: The PEFT module of each block, all of one kind and size; what they hold is copied.
        slot: The slot that they fill, or the slots.
        blocks: Their blocks; None counts them from 0.

    Attributes:
        down, down_bias, up, up_bias: (L, R, D), (L, R), (L, D, R), (L, D) for bottlenecks; each
            parameter and buffer of other PEFT modules with the blocks in front.
        noise: Source of what the modules draw in train mode, on the parameters' device; None takes
            torch's global one.

    Raises:
        InputError: If a PEFT module keeps anything beside parameters and buffers, or no parameter.

    Example:
        >>> from cl_adapters.peft.registry import PARALLEL
        >>> seeded = torch.Generator().manual_seed(0)
        >>> stack = AdapterStack.build(PARALLEL, embed_dim=8, blocks=2, size=4, generator=seeded)
        >>> stack.adapters().at("mlp", 1)(torch.ones(3, 5, 8)).abs().sum().item()
        0.0
    """

    def __init__(
        self, modules: Sequence[nn.Module], slot: Slots, blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        blocks = range(len(modules)) if blocks is None else blocks
        self.template = AdapterTemplate(modules, slot, blocks)
        self.noise: torch.Generator | None = None
        self._drop = Drop()
        self._adapters: tuple[AdapterSet, list[Any]] | None = None
        parameters = [dict(module.named_parameters()) for module in modules]
        buffers = [dict(module.named_buffers()) for module in modules]
        for key, name in self.template.parameters.items():
            rows = torch.stack([each[name].detach() for each in parameters])
            self.register_parameter(key, nn.Parameter(rows))
        for key, name in self.template.buffers.items():
            self.register_buffer(key, torch.stack([each[name] for each in buffers]))

    @classmethod
    def build(  # noqa: PLR0913 - what modules are built from, and for whom
        cls,
        peft: Peft,
        *,
        embed_dim: int,
        blocks: int | Sequence[int],
        generator: torch.Generator,
        size: int | None = None,
        sites: SiteOf | None = None,
        begins_once: bool = False,
        **options: object,
    ) -> Self:
        """Returns a stack of new modules, drawn block after block.

        Args:
            peft: Their kind.
            embed_dim: D.
            blocks: L, or the blocks that get one.
            generator: Source of the initial weights.
            size: Width, rank or length; None takes the kind's own.
            sites: The network's `site`, for kinds that ask where they stand.
            begins_once: Whether no other set will begin where this one does.
            **options: `scale` and `dropout` of `parallel`; a kind that does not take them sees to
                these things itself.

        Raises:
            InputError: If the size is not positive, there is no block, or the kind cannot be
                stored.
        """
        peft.check_holder("a stored set", begins_once=begins_once)
        numbers = range(blocks) if isinstance(blocks, int) else blocks
        if len(numbers) == 0:
            raise InputError("a stack must have at least one block, got none")
        modules = [
            peft.build(
                embed_dim,
                size,
                generator,
                place=None if sites is None else (sites, block),
                **options,
            )
            for block in numbers
        ]
        return cls(modules, peft.slot, numbers)

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the stacked tensors, blocks first: parameters, then buffers."""
        return tuple(map(getattr, repeat(self), self.template.keys))

    @torch.no_grad()
    def load(self, tensors: Sequence[Tensor]) -> None:
        """Takes over the numbers of another set, as `tensors` gives them."""
        for value, other in zip(self.tensors(), tensors, strict=True):
            value.copy_(other)

    def adapters(self) -> AdapterSet:
        """Returns the adapters as a backbone runs with them.

        It is the same object each time and follows the stack: what it computes with is what the
        stack held, and the mode that the stack was in, when this was last called.
        """
        drop, template = self._drop, self.template
        drop.share, drop.noise = template.dropout if self.training else 0.0, self.noise
        if template.module.training != self.training:
            template.module.train(self.training)
        # Views of the parameters, new each time: those of a pass before belong to its graph.
        by_block = zip(*map(torch.unbind, self.tensors()), strict=True)
        if self._adapters is None:
            functions = template.functions([*by_block], drop)
            places = zip(template.blocks, functions, strict=True)
            adapters = AdapterSet({(template.slot, block): each for block, each in places})
            self._adapters = adapters, functions
        else:
            for function, tensors in zip(self._adapters[1], by_block, strict=True):
                function.tensors = tensors
            if not template.is_bottleneck:
                hand_out(template.module, self.noise)
        return self._adapters[0]

    @torch.no_grad()
    def modules_apart(self) -> AdapterSet:
        """Returns plain modules with copies of what the stack holds, to calibrate or to export."""
        modules: dict[tuple[Slots, int], nn.Module] = {}
        for row, block in enumerate(self.template.blocks):
            module = copy.deepcopy(self.template.module)
            held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            for (_, name), value in zip(self.template.keys.items(), self.tensors(), strict=True):
                held[name].copy_(value[row])
            for name, value in self.template.constants[row].items():
                held[name].copy_(value)
            modules[self.template.slot, block] = module
        return AdapterSet(modules)

    @torch.no_grad()
    def take(self, adapters: AdapterSet) -> None:
        """Takes over what the plain modules of the same blocks hold."""
        for row, block in enumerate(self.template.blocks):
            module = cast("nn.Module", adapters.at(self.template.slot, block))
            held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            for (_, name), value in zip(self.template.keys.items(), self.tensors(), strict=True):
                value[row].copy_(held[name])

    def __getstate__(self) -> dict[str, Any]:
        # The views of the last pass cannot be copied, and are made anew when asked for.
        return {**self.__dict__, "_adapters": None}
