"""A frozen ViT with an adapter in each block, and several in expandable blocks."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from cl_adapters.buffers import count_members
from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slots
from cl_adapters.peft.registry import PARALLEL, Peft
from cl_adapters.peft.router_registry import Router, build_router
from cl_adapters.peft.routing import ExpandableSlot, SlotRecord
from cl_adapters.peft.told_routers import PathRouter
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["ExpandableViT"]


class ExpandableViT(nn.Module):
    """A frozen ViT with an adapter in each block, and a slot of several in expandable blocks.

    Every pass may be cut before the first expandable block: what comes before it, the prefix, never
    changes once its adapters are frozen, so its tokens may be kept.

    Args:
        backbone: The frozen ViT.
        expandable: Blocks that can grow, counted from 0; sorted, at least one.
        width: R, width of every adapter.
        router: Name of the routers, or what builds one for the width of the stream; None: each
            pass is told whose adapters.
        generator: Source of the initial weights.
        peft: What the adapters are, beside the MLP by default; any kind that takes tokens.
    """

    def __init__(
        self,
        backbone: AdaptedViT,
        *,
        expandable: Sequence[int],
        width: int,
        router: str | Callable[[int], Router] | None,
        generator: torch.Generator,
        peft: Peft = PARALLEL,
    ) -> None:
        super().__init__()
        peft.check_holder("a slot that grows")
        self.backbone = backbone
        self.expandable = tuple(expandable)
        self.peft = peft
        modules: dict[tuple[Slots, int], nn.Module] = {}
        build = partial(build_router, router) if isinstance(router, str) else router or PathRouter
        routers = [build(backbone.embed_dim) for _ in self.expandable]
        for each in routers[1:]:
            each.share(routers[0])
        for block in range(backbone.num_blocks):
            if block in self.expandable:
                slot = ExpandableSlot(
                    backbone.embed_dim,
                    width,
                    router=routers[self.expandable.index(block)],
                    peft=peft,
                    site=backbone.site(peft.slots[0], block) if peft.takes_sites else None,
                )
                slot.add_adapter(generator)
                modules[peft.slot, block] = slot
            else:
                modules[peft.slot, block] = peft.build(
                    backbone.embed_dim, width, generator, place=(backbone.site, block)
                )
        self.adapters = AdapterSet(modules)

    def slot(self, block: int) -> ExpandableSlot:
        """Returns the slot of an expandable block."""
        return cast("ExpandableSlot", self.adapters.at(self.peft.slot, block))

    def begin_experience(self, number: int, generator: Callable[[str], torch.Generator]) -> None:
        """Tells routers that keep something of each experience that another one begins.

        Args:
            number: Of the experience, from 1; routers have begun with the first.
            generator: Gives a source of initial weights for a purpose.
        """
        for block in self.expandable if number > 1 else ():
            self.slot(block).router.begin_experience(generator(f"router {block}"))

    def learners(
        self, grown: Collection[int], tell: Callable[[Sequence[int]], None]
    ) -> list[nn.Parameter]:
        """Tells routers of the experience; returns what a phase of it trains in slots.

        That is the newest adapter of blocks that grew, and what routers keep of the experience: in
        all blocks the first time, and then where blocks grew.

        Args:
            grown: The blocks that grew now.
            tell: Tells the routers of blocks which images the experience has.
        """
        routers = {block: self.slot(block).router for block in self.expandable}
        waiting = [
            block
            for block, each in routers.items()
            if each.knows_experiences and each.asks() and block not in grown
        ]
        tell(sorted({*grown, *waiting}))
        found = [value for block in grown for value in self.slot(block).newest_parameters()]
        return found + [value for each in waiting for value in routers[each].newest_parameters()]

    def grown(self) -> list[tuple[int, int]]:
        """Returns block and number, from 0, of every adapter beside the first of its block."""
        return [(block, k) for block in self.expandable for k in range(1, len(self.slot(block)))]

    @property
    def unit(self) -> str:
        """What grows together."""
        return "adapter"

    def grown_together(self) -> list[list[tuple[int, int]]]:
        """Returns the adapters of `grown` in groups that came together, here each alone."""
        return [[each] for each in self.grown()]

    @contextmanager
    def leaving_out(self, adapters: Collection[tuple[int, int]]) -> Iterator[None]:
        """Answers without some adapters for a while, to see what they are worth.

        Args:
            adapters: Block and number of each.

        Raises:
            InputError: If there is no such adapter.
        """
        for block, number in adapters:
            if block not in self.expandable or not 0 <= number < len(self.slot(block)):
                raise InputError(
                    "adapters to leave out must be (block, number) of adapters that are there, "
                    f"got ({block}, {number})"
                )
        for block in self.expandable:
            left_out = frozenset(number for place, number in adapters if place == block)
            self.slot(block).left_out = left_out
        try:
            yield
        finally:
            for block in self.expandable:
                self.slot(block).left_out = frozenset()

    def prefix(self, images: Tensor) -> Tensor:
        """Returns the tokens that enter the first expandable block.

        Shape:
            images: (B, 3, S, S). Output: (B, N, D).
        """
        return self.forward_blocks(self.backbone.tokens(images), 0, self.expandable[0])

    def forward_blocks(
        self,
        tokens: Tensor,
        start: int,
        stop: int,
        *,
        record: dict[int, SlotRecord] | None = None,
        chosen: Tensor | int | None = None,
    ) -> Tensor:
        """Runs blocks `start` to `stop` - 1 with their adapters.

        Args:
            tokens: (B, N, D).
            start: The first block.
            stop: The block after the last.
            record: Filled, for each expandable block among them, with what its router read and
                decided.
            chosen: The adapter of each image in every expandable block, (B,), or one of all images;
                None: the routers decide.

        Shape:
            Output: (B, N, D).
        """
        is_plain = record is None and chosen is None
        adapters = self.adapters if is_plain else self._told(record, chosen)
        return self.backbone.run(tokens, start, stop, adapters=adapters)

    def _told(
        self, record: dict[int, SlotRecord] | None, chosen: Tensor | int | None
    ) -> AdapterSet:
        modules: dict[tuple[Slots, int], Callable[..., Any]] = {}
        for slot, block in self.adapters:
            module = cast("nn.Module", self.adapters.at(slot, block))
            is_slot = isinstance(module, ExpandableSlot)
            note = None if record is None else partial(record.__setitem__, block)
            told = partial(module, record=note, chosen=chosen)
            modules[slot, block] = told if is_slot else module
        return AdapterSet(modules)

    def features(
        self,
        inputs: Tensor,
        record: dict[int, SlotRecord] | None = None,
        chosen: Tensor | int | None = None,
    ) -> Tensor:
        """Returns the features of images, or of what `prefix` made of them.

        Args:
            inputs: Images or tokens.
            record: As in `forward_blocks`.
            chosen: As in `forward_blocks`.

        Shape:
            inputs: (B, 3, S, S) or (B, N, D). Output: (B, D).
        """
        tokens = inputs if inputs.ndim == 3 else self.prefix(inputs)
        first, stop = self.expandable[0], self.backbone.num_blocks
        run = self.forward_blocks(tokens, first, stop, record=record, chosen=chosen)
        return self.backbone.features(run)

    def prefix_modules(self) -> list[nn.Module]:
        """Returns all that the prefix computes with: the backbone and its adapters there."""
        slot, first = self.peft.slot, self.expandable[0]
        found = [self.adapters.at(slot, block) for block in range(first)]
        return [self.backbone, *(each for each in found if isinstance(each, nn.Module))]

    def adapters_held(self, state: Mapping[str, Tensor], block: int) -> int:
        """Returns how many adapters of an expandable block a state of this model holds."""
        slot = self.slot(block)
        (name,) = (name for name, module in self.named_modules() if module is slot.adapters)
        return count_members(state, name)
