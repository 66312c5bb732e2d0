"""MiSS and Bat against their dense matrices and against loops over blocks."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.miss import Bat, MiSS, sum_of_chunks
from cl_adapters.peft.site import Site


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(dim: int, rank: int, repeats: int = 1) -> MiSS:
    module = MiSS(dim, rank, repeats=repeats, generator=seeded())
    with torch.no_grad():
        module.key.normal_(generator=seeded(1))
        module.value.normal_(generator=seeded(2))
    return module


@torch.no_grad()
def test_miss_by_hand() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4]]])
    assert sum_of_chunks(x, 2).tolist() == [[[4, 6]]]
    module = MiSS(4, 2, repeats=2, generator=seeded())
    module.value.copy_(torch.tensor([[1.0, 0], [2, 1]]))
    keys, values = module(x)
    assert values.tolist() == [[[16, 6, 16, 6]]]
    assert not keys.any()


@pytest.mark.parametrize(("dim", "rank", "repeats"), [(8, 4, 1), (8, 3, 1), (8, 3, 4), (7, 7, 7)])
def test_miss_is_its_small_matrix_repeated_and_cut(dim: int, rank: int, repeats: int) -> None:
    module = trained(dim, rank, repeats)
    x = torch.randn(2, 5, dim, generator=seeded(3))
    for side, found in zip(("key", "value"), module(x), strict=True):
        small = getattr(module, side)
        dense = torch.zeros(dim, dim)
        for out in range(dim):
            for into in range(dim):
                dense[out, into] = small[into % rank, out % (dim // repeats)]
        torch.testing.assert_close(found, x @ dense.T)
        torch.testing.assert_close(
            module.delta()[:dim] if side == "key" else module.delta()[dim:], dense
        )
        assert torch.linalg.matrix_rank(dense) <= rank


def test_whole_chunks_may_change_places() -> None:
    module = trained(12, 4)
    x = torch.randn(2, 5, 12, generator=seeded(3))
    moved = x.unflatten(2, (3, 4))[:, :, [2, 0, 1]].flatten(2)
    for one, two in zip(module(x), module(moved), strict=True):
        torch.testing.assert_close(one, two)


def bat(weight: torch.Tensor, rank: int) -> Bat:
    columns = weight.shape[1]
    site = Site("key_value", 0, columns, columns, weight)
    return Bat(columns, rank, generator=seeded(), sites={"key_value": site})


@torch.no_grad()
def test_bat_by_hand() -> None:
    module = bat(torch.tensor([[1.0, 2], [3, 4], [0, 0], [0, 0]]), 2)
    module.blocks[0].copy_(torch.tensor([[0.0, 1], [1, 0]]))
    assert (module.weight + module.delta())[:2].tolist() == [[3, 4], [8, 7]]
    assert not module.delta()[2:].any()


@pytest.mark.parametrize("rank", [4, 3])
@torch.no_grad()
def test_bat_mixes_each_block_of_the_frozen_weights(rank: int) -> None:
    weight = torch.randn(16, 8, generator=seeded(4))
    module = bat(weight, rank)
    x = torch.randn(2, 5, 8, generator=seeded(5))
    assert not any(each.any() for each in module(x))
    module.blocks.normal_(generator=seeded(6))
    expected = torch.zeros(16, 8)
    for out in range(16):
        for into in range(8):
            small, place = module.blocks[out // rank], into % rank
            first = into - place  # of the block's columns
            mixed = sum(
                weight[out, first + k] * small[k, place] for k in range(min(rank, 8 - first))
            )
            expected[out, into] = mixed + small[out % rank, place]
    torch.testing.assert_close(torch.cat(module(x), dim=2), x @ expected.T, rtol=1e-4, atol=1e-4)
    assert "weight" not in module.state_dict(), "the frozen weights are in no state"


def test_parameters_and_what_does_not_fit() -> None:
    counts = [MiSS(768, 16, repeats=each, generator=seeded()) for each in (1, 4)]
    assert [sum(v.numel() for v in each.parameters()) for each in counts] == [24_576, 6_144]
    assert bat(torch.zeros(1536, 768), 16).blocks.numel() == 24_576
    with pytest.raises(InputError, match="`rank` must be at most the width, 4, got 5"):
        MiSS(4, 5, generator=seeded())
    with pytest.raises(InputError, match="`repeats` must divide the width, 8, got 3"):
        MiSS(8, 2, repeats=3, generator=seeded())
    with pytest.raises(
        InputError, match="Bat must stand beside frozen weights, got a site without"
    ):
        Bat(4, 2, generator=seeded(), sites={"key_value": Site("key_value", 0, 4, 4, None)})
