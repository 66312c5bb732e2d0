"""Each purpose of each experience draws from a source of its own."""

import torch

from cl_adapters.strategies.core.seeding import purpose_generator

FIRST = ("order", "weights", "dropout", "prototypes", "alignment", "held out")


def seeds(purposes: list[str]) -> list[int]:
    return [
        purpose_generator(seed, experience, purpose).initial_seed()
        for seed in range(3)
        for experience in range(4)
        for purpose in purposes
    ]


def test_purposes_with_the_same_letters_draw_apart() -> None:
    blocks = [f"{what} {number}" for what in ("adapter", "scan") for number in range(48)]
    found = seeds([*FIRST, *blocks, "noise ab", "noise ba"])
    assert len(set(found)) == len(found)
    twins = [purpose_generator(0, 1, f"adapter {block}") for block in (12, 21)]
    first, second = (torch.rand(4, generator=each) for each in twins)
    assert not torch.equal(first, second)


def test_the_first_purposes_keep_the_seeds_of_published_numbers() -> None:
    for purpose in FIRST:
        expected = 3 * 1_000_000_007 + 2 * 7919 + sum(purpose.encode()) * 1_000_003
        assert purpose_generator(3, 2, purpose).initial_seed() == expected


def test_a_purpose_draws_the_same_each_time() -> None:
    one, two = (torch.rand(3, generator=purpose_generator(7, 1, "scan 3")) for _ in range(2))
    assert torch.equal(one, two)
