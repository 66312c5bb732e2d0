"""Mixtures of shards against loops over shards, and against LoRA."""

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.mos_shards import Pools, Sharded, drawn_places, mixtures_of_shards


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pools(
    blocks: int, equivalent: int, rank: int, shards: int, private: int, dim: int = 8
) -> Pools:
    given = {"blocks": blocks, "rank": rank, "shards": shards, "private": private}
    made = Pools(dim, equivalent, **given, generator=seeded())
    for number, value in enumerate(made.parameters()):
        value.data.normal_(generator=seeded(number))
    return made


X = torch.randn(2, 5, 8, generator=seeded(9))


@torch.no_grad()
def test_by_hand() -> None:
    made = pools(2, 1, 2, 2, 0, dim=4)
    assert made.pools["key_down"].shape == (4, 2)
    made.places[0, 0] = torch.tensor([[2, 0], [3, 1]])
    s0, s1, s2, s3 = made.pools["key_down"].tolist()
    assert made.factors(0)[0].tolist() == [s2 + s0, s3 + s1]


@torch.no_grad()
def test_it_equals_a_loop_over_shards() -> None:
    made = pools(3, 2, 4, 2, 1)
    for block in range(3):
        found = Sharded(made, block)(X)
        for side, name in enumerate(("key", "value")):
            expected = torch.zeros(2, 5, 8)
            for k in range(4):
                down, up = (
                    torch.cat([made.pools[f"{name}_{part}"][place] for place in places[block, k]])
                    for part, places in (
                        ("down", made.places[2 * side]),
                        ("up", made.places[2 * side + 1]),
                    )
                )
                expected += (X @ down)[..., None] * up
            torch.testing.assert_close(found[side], expected)


def test_a_block_has_no_shard_twice_and_its_own_alone() -> None:
    places = drawn_places(4, 3, 7, 2, 1, seeded())
    assert places.shape == (4, 7, 2)
    for block in places:
        assert len(set(block.flatten().tolist())) == 14
    public = 2 * 4 * 2
    assert places[:, :-1].max() < public
    assert places[:, -1].tolist() == [[public + 2 * b, public + 2 * b + 1] for b in range(4)]


@torch.no_grad()
def test_with_private_vectors_alone_it_is_lora() -> None:
    made = pools(2, 3, 3, 1, 3)
    keys, values = Sharded(made, 1)(X)
    for name, found in (("key", keys), ("value", values)):
        down, up = (made.pools[f"{name}_{part}"][3:] for part in ("down", "up"))
        torch.testing.assert_close(found, X @ (up.T @ down).T)


def test_a_set_holds_its_pools_once() -> None:
    modules = nn.ModuleList(mixtures_of_shards(768, 8, blocks=12, generator=seeded()))
    assert sum(value.numel() for value in modules.parameters()) == 12 * 24_576
    assert next(iter(modules.state_dict())) == "0.pools.places"
    assert len(modules.state_dict()) == 5
    x = torch.randn(1, 2, 768, generator=seeded(1))
    assert not any(each.any() for each in modules[11](x))
    down = modules[0].pools.pools["key_down"]
    assert down.abs().max().item() == pytest.approx(768**-0.5, rel=0.01)


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="`shards` must divide the width, 8, got 3"):
        pools(2, 1, 2, 3, 0)
    with pytest.raises(InputError, match=r"`rank` must lie in \[1, 3\] and .* got 4 and 1"):
        drawn_places(2, 2, 4, 2, 1, seeded())
    with pytest.raises(
        InputError, match=r"`private` in \[0, 2\] with 2 blocks of rank 2, got 3 and 3"
    ):
        drawn_places(2, 2, 3, 2, 3, seeded())
    with pytest.raises(InputError, match="`rank` must be a positive integer, got 0"):
        mixtures_of_shards(8, 0, blocks=2, generator=seeded())
