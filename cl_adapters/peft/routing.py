"""A slot that holds several adapters, mixed by a router (SEMA's expandable block).

With x the tokens that enter the slot, m their mean (class token included) and f_k adapter k,

    w = softmax(a_1(m), ..., a_K(m))          one weight per image, shared by its tokens
    S(x) = sum_k w_k f_k(x)

Four routers: `learned`, one linear column an adapter that is trained together with it and then
frozen (the paper); `learned_null`, the same with one column more, trained with the first adapter,
for none of them: a softmax over K + 1 whose last adds nothing; `discriminant`, columns in closed
form from the mean tokens that each adapter was trained on; `memory`, the adapter whose memory of
them is most similar, alone (`memories.py`). A learned first column has no gradient, since a softmax
over one is constant, and later columns see new data only; closed forms set all from all data.

`learned_null` is the choice of no adapter of Shizhe Diao and others, "Mixture-of-Domain-Adapters",
ACL 2023, whose gate also scales the frozen layer, so that it does not begin as the frozen network.

Reference: Huiyi Wang, Haodong Lu, Lina Yao, Dong Gong, "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning", CVPR 2025, arXiv:2403.18886.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, K adapters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.memories import SignMemories
from cl_adapters.peft.registry import PARALLEL, Peft
from cl_adapters.peft.site import Site

__all__ = ["CLOSED_ROUTERS", "ExpandableSlot", "RouterKind", "SlotRecord"]

RouterKind = Literal["learned", "learned_null", "discriminant", "memory"]
# Those that are told which images an adapter is for, in place of training.
CLOSED_ROUTERS: Final[frozenset[RouterKind]] = frozenset({"discriminant", "memory"})


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
        router: How the router's columns come about; None: others say which adapter an image has.
        peft: What the adapters are; any kind that takes tokens.
        site: Where the slot stands, for kinds that ask.

    Attributes:
        left_out: Adapters that no image may use, to see what they are worth; the router shares
            their weight among the others. Nothing of it is kept.
    """

    def __init__(
        self,
        embed_dim: int,
        width: int,
        *,
        router: RouterKind | None,
        peft: Peft = PARALLEL,
        site: Site | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.width, self.kind, self.peft = embed_dim, width, router, peft
        self.site = site
        self.left_out: frozenset[int] = frozenset()
        self.adapters = nn.ModuleList()
        self.columns = nn.ModuleList()  # of the learned router
        self.nothing = self._column(None) if router == "learned_null" else None
        self.discriminant = LinearDiscriminant(embed_dim) if router == "discriminant" else None
        self.memories = SignMemories(embed_dim) if router == "memory" else None

    def __len__(self) -> int:
        return len(self.adapters)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an adapter, which changes nothing yet, and its column of a learned router."""
        site = self.site
        place = None if site is None else ((lambda *_: site), site.block)
        self.adapters.append(self.peft.build(self.embed_dim, self.width, generator, place=place))
        if self.discriminant is not None:
            self.discriminant.add_classes([len(self.adapters) - 1])
        elif self.memories is not None:
            self.memories.add_adapter()
        elif self.kind is not None:
            self.columns.append(self._column(generator))

    def _column(self, generator: torch.Generator | None) -> nn.Linear:
        # Of zeros without a generator.
        column = nn.Linear(self.embed_dim, 1, device="meta").to_empty(device="cpu")
        bound = 0.0 if generator is None else 1 / math.sqrt(self.embed_dim)
        for value in (column.weight, column.bias):
            nn.init.uniform_(value, -bound, bound, generator=generator)
        return column

    def cost(self) -> int:
        """Returns the numbers that one more adapter with its learned column holds."""
        held = [*self.adapters[-1].state_dict().values(), *self.columns[-1:].parameters()]
        return sum(int(value.numel()) for value in held)

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns what is trained with the newest adapter: its weights and its learned column."""
        found = [*self.adapters[-1].parameters(), *self.columns[-1:].parameters()]
        if self.nothing is not None and len(self.adapters) == 1:
            found.extend(self.nothing.parameters())
        return found

    def update_router(self, mean_tokens: Tensor, adapter: int) -> None:
        """Tells a router in closed form what an adapter is for.

        Shape:
            mean_tokens: (B, D), of images that belong to the adapter.
        """
        if self.discriminant is not None:
            self.discriminant.add(mean_tokens, torch.full((len(mean_tokens),), adapter))
        elif self.memories is not None:
            self.memories.add(mean_tokens, adapter)

    def route(self, mean_tokens: Tensor) -> Tensor:
        """Returns the weight of each adapter.

        Shape:
            mean_tokens: (B, D). Output: (B, K), rows sum to 1, or to 0 if all are left out; to less
            than 1 where no adapter is a choice.
        """
        scores, count = self._scores(mean_tokens), len(self.adapters)
        if self.left_out:
            if len(self.left_out) == count:
                return torch.zeros_like(scores[:, :count])
            places = torch.tensor(sorted(self.left_out), device=scores.device)
            scores = scores.index_fill(1, places, float("-inf"))
        if self.memories is not None:
            return functional.one_hot(scores.argmax(dim=1), count).to(mean_tokens.dtype)
        return scores.softmax(dim=1)[:, :count]

    def _scores(self, mean_tokens: Tensor) -> Tensor:
        # (B, K), with one column more where no adapter is a choice.
        if self.kind in CLOSED_ROUTERS and len(self.adapters) == 1:
            return mean_tokens.new_zeros(mean_tokens.shape[0], 1)
        closed = self.memories if self.discriminant is None else self.discriminant
        if closed is not None:
            return cast("Tensor", closed(mean_tokens))
        # A first column alone gets gradients of zero, and so decays, as the authors' does.
        columns = [*self.columns, *([] if self.nothing is None else [self.nothing])]
        return torch.cat([column(mean_tokens) for column in columns], dim=1)

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

    def forward(
        self,
        tokens: Tensor,
        record: Callable[[SlotRecord], None] | None = None,
        chosen: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
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
            weights = self.route(mean_tokens)
        else:
            rows = torch.as_tensor(chosen, device=tokens.device).expand(tokens.shape[0])
            weights = self.told(rows).to(mean_tokens.dtype)
        if record is not None:
            record(SlotRecord(mean_tokens.detach(), weights.detach()))
        if self.peft is PARALLEL:
            return self._mixture(tokens, weights)
        return _weighted([each(tokens) for each in self.adapters], weights)

    def _mixture(self, tokens: Tensor, weights: Tensor) -> Tensor:
        # Frozen adapters apart from those in training, whose number does not grow: the weights of
        # the frozen get no gradient, so that adapter 20 costs little more to train than adapter 2.
        adapters = cast("list[Bottleneck]", list(self.adapters))
        trained = [index for index, each in enumerate(adapters) if each.up.requires_grad]
        frozen = [index for index in range(len(adapters)) if index not in trained]
        parts = [
            self._sum_of(
                [adapters[index] for index in group],
                tokens,
                torch.stack([weights[:, index] for index in group], dim=1),
            )
            for group in (frozen, trained)
            if group
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _sum_of(self, adapters: Sequence[Bottleneck], tokens: Tensor, weights: Tensor) -> Tensor:
        # All in two products: their middles side by side, each scaled by its weight.
        down = torch.cat([each.down for each in adapters])  # (K R, D)
        down_bias = torch.cat([each.down_bias for each in adapters])
        up = torch.cat([each.up for each in adapters], dim=1)  # (D, K R)
        up_bias = torch.stack([each.up_bias for each in adapters])  # (K, D)
        hidden = functional.relu(functional.linear(tokens, down, down_bias))  # (B, N, K R)
        shares = weights.to(hidden.dtype)
        hidden = hidden * shares.repeat_interleave(self.width, dim=1)[:, None]
        return functional.linear(hidden, up) + (shares @ up_bias.to(shares.dtype))[:, None]


def _weighted(outputs: Sequence[Any], weights: Tensor) -> Tensor | tuple[Tensor, ...]:
    # Each (B, N, D), or a pair of them; weights (B, K).
    if isinstance(outputs[0], tuple):
        parts = [_weighted(each, weights) for each in zip(*outputs, strict=True)]
        return tuple(cast("list[Tensor]", parts))
    shares = weights.to(outputs[0].dtype)[:, :, None, None]
    return torch.stack([shares[:, k] * each for k, each in enumerate(outputs)]).sum(dim=0)
