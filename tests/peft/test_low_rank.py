"""Low-rank updates against plain products, each image token by itself."""

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.low_rank import LowRankBank, LowRankUpdate, rescaled_rows
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.reweighted import features_under, updated, with_weights

CHOICES = [["query"], ["key", "value"], ["value", "query"], ["query", "key", "value"]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=seeded(9))


@torch.no_grad()
def bank(projections: list[str], *, dim: int = 64, shares: bool = False) -> LowRankBank:
    """Two stored updates and one in training, in blocks 1 and 4, all of chance."""
    made = LowRankBank(dim, [1, 4], 3, projections, shares_down=shares)  # type: ignore[arg-type]
    for seed in range(3):
        made.renew(torch.randn(made.down.shape, generator=seeded(seed)) / 4)
        nn.init.normal_(made.up, std=0.2, generator=seeded(10 + seed))
        if seed < 2:
            made.freeze()
    return made


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("projections", CHOICES)
@torch.no_grad()
def test_what_is_added_equals_plain_loops(projections: list[str], shares: bool) -> None:
    made, factors = bank(projections, dim=4, shares=shares), torch.tensor([2.0, -1.0, 0.5])
    u = torch.randn(2, 5, 4, generator=seeded(3))
    added = made.total(factors).adapters().at("qkv", 4)
    assert added is not None
    expected = torch.zeros(2, 5, 12)
    updates = [(made.frozen_down[i, 1], made.frozen_up[i, 1]) for i in range(2)]
    updates.append((made.down[1], made.up[1]))
    for (down, up), factor in zip(updates, factors.tolist(), strict=True):
        for place, name in enumerate(projections):
            weight = up[place] @ down[0 if shares else place]
            start = 4 * ("query", "key", "value").index(name)
            for image in range(2):
                for token in range(5):
                    row = factor * (weight @ u[image, token])
                    expected[image, token, start : start + 4] += row
    torch.testing.assert_close(added(u, torch.zeros(2, 5, 12)), expected)


@pytest.mark.parametrize("projections", CHOICES)
@torch.no_grad()
def test_merged_and_unmerged_networks_agree(tiny_vit: AdaptedViT, projections: list[str]) -> None:
    made, before = bank(projections), {k: v.clone() for k, v in tiny_vit.state_dict().items()}
    total = made.total(torch.tensor([0.5, 1.0, 2.0]))
    apart = tiny_vit(images(), total.adapters())
    assert (apart - tiny_vit(images())).abs().max() > 0.01
    weights = updated(tiny_vit, total)
    assert len(weights) == 2
    torch.testing.assert_close(
        features_under(tiny_vit, weights, images()), apart, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(with_weights(tiny_vit, weights)(images()), apart, atol=1e-5, rtol=0)
    # The stored ones merged, that in training beside them: what training an experience runs.
    mixed = features_under(
        tiny_vit, updated(tiny_vit, made.stored()), images(), made.current().adapters()
    )
    expected = tiny_vit(images(), made.total().adapters())
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in tiny_vit.state_dict().items())


@torch.no_grad()
def test_a_new_update_adds_nothing_and_stored_ones_stay(tiny_vit: AdaptedViT) -> None:
    made = LowRankBank(64, [0, 5], 2, ["query", "value"])
    plain = tiny_vit(images())
    assert made.stored().down.shape == (2, 2, 0, 64)
    assert torch.equal(features_under(tiny_vit, updated(tiny_vit, made.stored()), images()), plain)
    made.renew(torch.randn(made.down.shape, generator=seeded()))
    assert torch.equal(tiny_vit(images(), made.current().adapters()), plain)
    nn.init.normal_(made.up, generator=seeded(1))
    learned = tiny_vit(images(), made.total().adapters())
    made.freeze()
    kept = made.frozen_down.clone(), made.frozen_up.clone()
    torch.testing.assert_close(tiny_vit(images(), made.total().adapters()), learned)
    made.renew(torch.zeros_like(made.down))
    made.up.fill_(7)
    made.freeze(torch.tensor([[0.5, 2.0], [1.0, 3.0]]))
    assert torch.equal(made.frozen_down[0], kept[0][0])
    assert torch.equal(made.frozen_up[0], kept[1][0])
    assert made.frozen_up[1, :, :, 0, 0].tolist() == [[3.5, 14.0], [7.0, 21.0]]
    assert len(made) == 2


def test_gradients_reach_the_update_in_training_and_the_factors_alone() -> None:
    made = bank(["query", "value"], dim=4)
    factors = torch.ones(3, requires_grad=True)
    added = made.total(factors).adapters().at("qkv", 1)
    assert added is not None
    added(torch.ones(1, 2, 4), torch.zeros(1, 2, 12)).square().sum().backward()
    assert factors.grad is not None
    assert bool((factors.grad != 0).all())
    assert made.down.grad is not None
    assert made.up.grad is not None
    assert made.up.grad[0].any()
    assert not made.up.grad[1].any()  # block 4 was not asked
    assert not made.frozen_up.requires_grad


def test_norms_are_those_of_the_two_factors() -> None:
    made = LowRankBank(2, [0], 1, ["query"])
    made.renew(torch.tensor([0.6, 0.8]).reshape(1, 1, 1, 2))
    made.up.data.copy_(torch.tensor([3.0, 4.0]).reshape(1, 1, 2, 1))
    assert made.norms().item() == pytest.approx(5)


def test_a_state_of_more_updates_is_taken_over() -> None:
    one, other = bank(["key"]), LowRankBank(64, [1, 4], 3, ["key"])
    other.load_state_dict(one.state_dict())
    assert len(other) == 2
    assert torch.equal(other.frozen_up, one.frozen_up)


def test_an_update_is_run_as_any_set_is() -> None:
    update = LowRankUpdate(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2, 1), [3], ["key"])
    adapters = update.adapters()
    assert isinstance(adapters, AdapterSet)
    assert (list(adapters), adapters.first_block) == ([("qkv", 3)], 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "`rank` must be a positive integer, got 0"),
        ({"blocks": []}, "at least one block, got none"),
        ({"projections": []}, r"`projections` must be some of query, key, value, got \[\]"),
        ({"projections": ["q"]}, r"`projections` must be some of query, key, value, got \['q'\]"),
    ],
)
def test_what_makes_no_update_is_refused(change: dict[str, object], message: str) -> None:
    given = {"embed_dim": 4, "blocks": [0], "rank": 1, "projections": ["key"], **change}
    with pytest.raises(InputError, match=message):
        LowRankBank(**given)  # type: ignore[arg-type]


def test_gradients_count_in_rows_as_these_were_long() -> None:
    # Checklist 13.6.1: row norms 5, 1 and 0, D = 3.
    previous = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    up = torch.randn(3, 2, generator=seeded()).requires_grad_()
    found = rescaled_rows(up, previous)
    assert torch.equal(found, up)
    (found * torch.tensor([1.0, 10.0])).sum().backward()
    assert up.grad is not None
    torch.testing.assert_close(up.grad, torch.tensor([[2.5, 25.0], [0.5, 5.0], [0.0, 0.0]]))
    up.grad = None
    rescaled_rows(up, torch.zeros(3, 2)).sum().backward()
    assert up.grad.tolist() == [[1, 1]] * 3
