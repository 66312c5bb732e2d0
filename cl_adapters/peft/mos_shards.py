"""MoS, mixture of shards: LoRA whose factors are put together from pools that all blocks share.

Reference: Sheng Wang, Liheng Chen, Pengan Chen, Jingwei Dong, Boyang Xue, Jiyue Jiang, Lingpeng
Kong, Chuan Wu, "MoS: Unleashing Parameter Efficiency of Low-Rank Adaptation with Mixture of
Shards", ICLR 2025, arXiv:2410.00938. Published for language models. It has nothing to do with the
method `mos` (Model Surgery).

What differs from the authors' code: updates go to keys and values; the factor alpha / R is 1; the
drawn scales of rows, which theirs leaves at 1, are left out; places are drawn from the module's
generator and are part of its state.

Parameters of all L blocks together, D width of the stream, E the rank of a LoRA that has as many:
4 L D E; 24,576 a block at D = 768 and E = 8.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive

__all__ = ["Pools", "Sharded", "drawn_places", "mixtures_of_shards"]

_FACTORS: Final = ("key_down", "key_up", "value_down", "value_up")


def drawn_places(
    blocks: int, equivalent: int, rank: int, shards: int, private: int, generator: torch.Generator
) -> Tensor:
    """Returns which shards of a pool each block's vectors consist of.

    A pool holds `blocks * equivalent * shards` shards, those that all may draw first, then each
    block's own. A block draws without replacement, and adds its own at the end.

    Shape:
        Output: (blocks, rank, shards).

    Raises:
        InputError: If the pool has too few shards for the rank.
    """
    for name, value in (("rank", rank), ("shards", shards), ("equivalent rank", equivalent)):
        check_positive(name, value)
    public = (equivalent - private) * blocks
    if not 0 <= private <= equivalent or not 0 <= rank - private <= public:
        raise InputError(
            f"`rank` must lie in [{private}, {max(public, 0) + private}] and `private` in "
            f"[0, {equivalent}] with {blocks} blocks of rank {equivalent}, got {rank} and {private}"
        )
    found = []
    for block in range(blocks):
        drawn = torch.randperm(public * shards, generator=generator)[: (rank - private) * shards]
        first = (public + block * private) * shards
        own = torch.arange(first, first + private * shards)
        found.append(torch.cat((drawn, own)).view(rank, shards))
    return torch.stack(found)


class Pools(nn.Module):
    """What the blocks share: a pool of shards for each of four factors, and where shards go.

    The shards of A start as the rows of a LoRA, Kaiming-uniform, those of B at zero.

    Args:
        embed_dim: D; `shards` must divide it.
        equivalent: E, rank of a LoRA that has as many parameters.
        blocks: L.
        rank: R, of each block's update.
        shards: Of which a vector consists.
        private: Vectors of each block that no other has.
        generator: Source of the shards, then of the places.

    Attributes:
        pools: (L E shards, D / shards), by factor.
        places: (4, L, R, shards).

    Raises:
        InputError: If a number does not fit the others.
    """

    def __init__(  # noqa: PLR0913 - options of the published code
        self,
        embed_dim: int,
        equivalent: int,
        *,
        blocks: int,
        rank: int,
        shards: int,
        private: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("shards", shards)
        if embed_dim % shards:
            raise InputError(f"`shards` must divide the width, {embed_dim}, got {shards}")
        given = blocks, equivalent, rank, shards, private, generator
        shape = blocks * equivalent * shards, embed_dim // shards
        self.pools = nn.ParameterDict()
        for name in _FACTORS:
            self.pools[name] = pool = nn.Parameter(torch.zeros(shape))
            if name.endswith("down"):
                bound = embed_dim**-0.5
                nn.init.uniform_(pool, -bound, bound, generator=generator)
        self.register_buffer("places", torch.stack([drawn_places(*given) for _ in _FACTORS]))
        self.places: Tensor

    def factors(self, block: int) -> list[Tensor]:
        """Returns A and B' of keys, then of values, of a block: four times (R, D)."""
        pairs = zip(_FACTORS, self.places[:, block], strict=True)
        return [self.pools[name][places].flatten(1) for name, places in pairs]


class Sharded(nn.Module):
    """Updates B A u of keys and values of a block, from shards of the pools.

    For the slot `key_value`.

    Args:
        pools: What all blocks share; part of the state of the first block's module alone.
        block: Which of their blocks.
    """

    def __init__(self, pools: Pools, block: int) -> None:
        super().__init__()
        self.pools = pools if block == 0 else None
        self._pools = [pools]  # in a list, where torch does not look for parts of a module
        self.block = block

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values: from (B, N, D) two of that shape."""
        key_down, key_up, value_down, value_up = self._pools[0].factors(self.block)
        keys = functional.linear(inputs, key_down) @ key_up
        return keys, functional.linear(inputs, value_down) @ value_up


def mixtures_of_shards(
    embed_dim: int, equivalent: int, *, blocks: int, generator: torch.Generator
) -> list[nn.Module]:
    """Returns the modules of some blocks: twice the rank E, or E with one block, two shards each.

    Every fourth vector is a block's own. Other choices are those of `Pools`.
    """
    check_positive("rank", equivalent)
    private = equivalent // 4
    rank = min(2 * equivalent, private + (equivalent - private) * blocks)
    shards = 2 if embed_dim % 2 == 0 else 1
    given = {"blocks": blocks, "rank": rank, "shards": shards, "private": private}
    pools = Pools(embed_dim, equivalent, **given, generator=generator)
    return [Sharded(pools, block) for block in range(blocks)]
