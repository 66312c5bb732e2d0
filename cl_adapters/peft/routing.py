"""A slot that holds several adapters, mixed by a router (SEMA's expandable block).

With x the tokens that enter the slot, m their mean (class token included) and f_k adapter k,

    w = router(m)                             one weight an adapter and image, shared by its tokens
    S(x) = sum_k w_k f_k(x)

`cl_adapters/peft/router_registry.py` names the routers; some mix in another way.

Reference: Huiyi Wang, Haodong Lu, Lina Yao, Dong Gong, "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning", CVPR 2025, arXiv:2403.18886.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, K adapters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.mixing import Output, mix_outputs
from cl_adapters.peft.registry import PARALLEL, Peft
from cl_adapters.peft.router_registry import Router, build_router
from cl_adapters.peft.site import Site

__all__ = ["ExpandableSlot", "RouterKind", "SlotRecord"]

RouterKind = str  # a name of `ROUTER_NAMES`


@dataclass(frozen=True, eq=False)
class SlotRecord:
    """What a slot's router read and decided in a forward pass, without gradient.

    Attributes:
        mean_tokens: (B, D), its input.
        weights: (B, K), its output; what is missing of a sum of 1 went to no adapter.
    """

    mean_tokens: Tensor
    weights: Tensor


class ExpandableSlot(nn.Module):
    """K adapters of one kind and width, and their router.

    Args:
        embed_dim: D.
        width: R.
        router: The router, of no other slot and without an adapter yet, or its name.
        peft: What the adapters are; any kind that takes tokens.
        site: Where the slot stands, for kinds that ask.

    Attributes:
        left_out: Adapters that no image may use, to see what they are worth; the router shares
            their weight among the others. Nothing of it is kept.

    Raises:
        InputError: If there is no such router, or it cannot mix adapters of the kind.
    """

    def __init__(
        self,
        embed_dim: int,
        width: int,
        *,
        router: RouterKind | Router,
        peft: Peft = PARALLEL,
        site: Site | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.width, self.peft, self.site = embed_dim, width, peft, site
        self.left_out: frozenset[int] = frozenset()
        self.adapters = nn.ModuleList()
        self.router = build_router(router, embed_dim) if isinstance(router, str) else router
        self.router.check_kind(self._build)
        for name, part in self.router.parts().items():
            if hasattr(self, name):
                raise InputError(
                    f"router {type(self.router).__name__} must keep its modules under names that a "
                    f"slot does not have itself, got {name!r}"
                )
            self.add_module(name, part)

    def __len__(self) -> int:
        return len(self.adapters)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an adapter, which changes nothing yet, and makes room for it in the router."""
        self.adapters.append(self._build(generator))
        self.router.add_adapter(generator)

    def _build(self, generator: torch.Generator) -> nn.Module:
        site = self.site
        place = None if site is None else ((lambda *_: site), site.block)
        return self.peft.build(self.embed_dim, self.width, generator, place=place)

    def cost(self) -> int:
        """Returns the numbers that one more adapter and its part of the router hold."""
        held = self.adapters[-1].state_dict().values()
        return sum(int(value.numel()) for value in held) + self.router.cost()

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns what is trained with the newest adapter: its weights, and what its router has."""
        return [*self.adapters[-1].parameters(), *self.router.newest_parameters()]

    def update_router(self, mean_tokens: Tensor, adapter: int) -> None:
        """Tells a router that asks what an adapter is for.

        Shape:
            mean_tokens: (B, D), of images that belong to the adapter.
        """
        if self.router.asks():
            self.router.update(mean_tokens, adapter)

    def route(self, mean_tokens: Tensor) -> Tensor:
        """Returns the weight of each adapter.

        Shape:
            mean_tokens: (B, D). Output: (B, K), rows sum to 1, or to 0 if all are left out; to less
            than 1 where no adapter is a choice.
        """
        return self._shares(self._portions(mean_tokens), mean_tokens)

    def _portions(self, mean_tokens: Tensor) -> Tensor:
        return self.router.route(mean_tokens, len(self.adapters), self.left_out)

    def told(self, adapters: Tensor) -> Tensor:
        """Returns the weights of images whose adapter is said from outside.

        One that is left out is stood in for by the first that is not.

        Shape:
            adapters: (B,), below K. Output: (B, K), one 1 in a row, or none if all are left out.
        """
        stays = [number for number in range(len(self)) if number not in self.left_out]
        for number in sorted(self.left_out):
            adapters = adapters.masked_fill(adapters == number, stays[0] if stays else len(self))
        return (adapters[:, None] == torch.arange(len(self), device=adapters.device)).float()

    def _shares(self, portions: Tensor, mean_tokens: Tensor) -> Tensor:
        # One for all images, or one each.
        return self.router.shares(portions).expand(mean_tokens.shape[0], -1)

    def forward(
        self,
        tokens: Tensor,
        record: Callable[[SlotRecord], None] | None = None,
        chosen: Tensor | int | None = None,
    ) -> Output:
        """Returns the mixture of the adapters' outputs.

        Args:
            tokens: What enters the slot.
            record: Told what the router read and decided.
            chosen: The adapter of each image, (B,), or one of all; None: the router decides.

        Shape:
            tokens: (B, N, D). Output: (B, N, D), or two of them where the PEFT module adds to keys
            and values.
        """
        if isinstance(chosen, int) and record is None and not self.left_out:
            alone: Tensor | tuple[Tensor, ...] = self.adapters[chosen](tokens)
            return alone
        mean_tokens = tokens.mean(dim=1)
        if chosen is None:
            portions = self._portions(mean_tokens)
            weights = None if record is None else self._shares(portions, mean_tokens).detach()
            mixed = self.router.mix(list(self.adapters), tokens, portions)
        else:
            rows = torch.as_tensor(chosen, device=tokens.device).expand(tokens.shape[0])
            weights = self.told(rows).to(mean_tokens.dtype)
            mixed = mix_outputs(list(self.adapters), tokens, weights)
        if record is not None and weights is not None:
            record(SlotRecord(mean_tokens.detach(), weights))
        return mixed
