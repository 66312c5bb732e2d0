"""Choosing prompts, against the worked numbers of the brief and plain loops."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.prompts import (
    RANGES,
    PrefixPool,
    chosen_by,
    cosines,
    nearest,
    paired,
    pull,
    voted,
)

KEYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
QUERY = torch.tensor([[3.0, 4.0]])


def test_l2p_1_the_nearest_keys_come_first_and_their_cosines_are_the_pull() -> None:
    similarity = cosines(QUERY, KEYS)
    assert similarity[0].tolist() == pytest.approx([0.6, 0.8, 0.98995], abs=1e-4)
    chosen = nearest(similarity, 2)
    assert chosen.tolist() == [[2, 1]]
    assert pull(similarity, chosen).item() == pytest.approx(1.78995, abs=1e-4)


def test_the_pull_moves_keys_and_no_query() -> None:
    keys, queries = KEYS.clone().requires_grad_(), QUERY.clone()
    similarity = cosines(queries, keys)
    torch.autograd.backward(pull(similarity, nearest(similarity, 2)))
    assert keys.grad is not None
    assert keys.grad.any(dim=1).tolist() == [False, True, True]


def test_l2p_2_all_images_get_what_most_of_them_have_chosen() -> None:
    choices = torch.tensor([[0, 1], [0, 2], [0, 2], [1, 2]])  # 3, 2 and 3 votes
    assert voted(choices, 3).tolist() == [[0, 2]] * 4
    # More votes come before smaller numbers, and these decide where votes are equal.
    assert voted(torch.tensor([[3, 1], [3, 2], [2, 3]]), 5).tolist() == [[3, 2]] * 3
    assert voted(torch.tensor([[2, 1]]), 4).tolist() == [[1, 2]]


def test_a_choice_by_image_asks_no_other_image() -> None:
    similarity = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    whole = chosen_by(similarity, 2, "image")
    for row in range(6):
        assert torch.equal(chosen_by(similarity[row : row + 1], 2, "image")[0], whole[row])
    by_batch = chosen_by(similarity, 2, "batch")
    assert (by_batch == by_batch[0]).all()
    assert not torch.equal(by_batch, whole)


def test_more_prompts_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match="may be chosen than there are, 3, got 4"):
        nearest(cosines(QUERY, KEYS), 4)


def names(rows: torch.Tensor) -> list[tuple[str, str]]:
    """Which key or value each image has, from numbers that say so: K3 is 3, V3 is 13."""
    said = [[f"{'KV'[int(each) // 10]}{int(each) % 10}" for each in row] for row in rows[..., 0, 0]]
    return [(first, second) for first, second in said]


@pytest.mark.parametrize(
    ("chosen", "port"),
    [
        ([3, 3, 3, 3], [("K3", "K3"), ("K3", "K3"), ("V3", "V3"), ("V3", "V3")]),
        ([0, 1, 2, 3], [("K0", "K1"), ("K2", "K3"), ("V0", "V1"), ("V2", "V3")]),
        ([2], [("K2", "V2")]),  # right for a batch of one alone
    ],
)
def test_dualprompt_2_the_port_mixes_up_prompts(
    chosen: list[int], port: list[tuple[str, str]]
) -> None:
    numbers = torch.tensor(chosen, dtype=torch.float)
    prompts = torch.stack([numbers, numbers + 10], dim=1)[..., None, None]  # (B, 2, 1, 1)
    assert names(paired(prompts, "port")) == port
    assert names(paired(prompts, "key_value")) == [(f"K{n}", f"V{n}") for n in chosen]


def test_each_image_and_block_gets_the_keys_and_values_of_its_own_entry() -> None:
    pool = PrefixPool([1, 4], 3, 2, "port")
    source = torch.Generator().manual_seed(0)
    for _ in range(3):
        pool.add(source)
    chosen = torch.tensor([2, 0, 2, 1])
    places = dict(pool.places(pool.chosen(chosen)))
    assert list(places) == [("prefix", 1), ("prefix", 4)]
    for row, block in enumerate((1, 4)):
        prefix = places["prefix", block]
        assert not prefix.renormalise
        keys, values = prefix()
        assert keys.shape == values.shape == (4, 3, 2)
        for image, entry in enumerate(chosen.tolist()):
            assert torch.equal(keys[image], pool.entries[entry][row, 0])
            assert torch.equal(values[image], pool.entries[entry][row, 1])
    alone = dict(pool.places(pool.entries[1]))["prefix", 4]()
    assert torch.equal(torch.stack(alone), pool.entries[1][1])


@pytest.mark.parametrize("init", ["jax", "port"])
def test_entries_begin_in_their_range_and_as_the_one_before(init: str) -> None:
    pool = PrefixPool([0], 40, 25, init)  # type: ignore[arg-type]
    source = torch.Generator().manual_seed(0)
    pool.add(source)
    pool.add(source)
    low, high = RANGES[init]  # type: ignore[index]
    first, second = (value.detach() for value in pool.entries)
    for value in (first, second):
        assert low <= float(value.min()) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < float(value.max()) <= high
    assert not torch.equal(first, second)
    pool.copy_from_last(1)
    assert torch.equal(first, second)
    before = first.clone()
    pool.copy_from_last(0)
    assert torch.equal(first, before)
    pool.train_only(1)
    assert [value.requires_grad for value in pool.entries] == [False, True]


def test_hide_2_an_entry_is_mixed_with_those_before_it() -> None:
    pool = PrefixPool([0], 1, 1, "jax")
    for value in (-1.0, 1.0, 2.0):
        pool.add(torch.Generator())
        pool.entries[-1].data.fill_(value)
    mixed = pool.mixed(2, 0.01)
    assert mixed.flatten().tolist() == pytest.approx([1.98, 1.98])  # 0.99 * 2 + 0.01 * mean(-1, 1)
    assert torch.equal(pool.mixed(0, 0.01), pool.entries[0])
    torch.autograd.backward(mixed.sum())
    assert pool.entries[2].grad is not None
    assert pool.entries[2].grad.flatten().tolist() == pytest.approx([0.99, 0.99])
    assert pool.entries[0].grad is None
