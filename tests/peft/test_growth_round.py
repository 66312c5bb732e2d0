"""Which adapter an experience belongs to: the one that most of its images chose, in the last scan."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.peft.growth import Budget
from cl_adapters.peft.growth_round import BlockSize, GrowthRound


def sizes() -> Mapping[int, BlockSize]:
    return {3: BlockSize(2, 10), 5: BlockSize(1, 10)}


def opened() -> GrowthRound:
    return GrowthRound([3, 5], "per_block", Budget(), sizes)


windows = st.lists(st.tuples(st.sampled_from([3, 5]), st.integers(0, 3), st.integers(1, 40)))


@given(windows)
def test_images_vote_not_windows(votes: list[tuple[int, int, int]]) -> None:
    growth = opened()
    growth.begin_scan()
    for block, adapter, images in votes:
        growth.vote(block, adapter, images, changed=False)
    for block in (3, 5):
        counted = {
            adapter: sum(images for at, chosen, images in votes if (at, chosen) == (block, adapter))
            for at, adapter, _ in votes
            if at == block
        }
        found = growth.recognised(block)
        if counted:
            assert found is not None
            assert counted[found] == max(counted.values())
        else:
            assert found is None


def test_a_new_scan_begins_without_votes_and_a_change_is_remembered() -> None:
    growth = opened()
    growth.begin_scan()
    growth.vote(3, 0, 100, changed=True)
    growth.begin_scan()
    growth.vote(3, 1, 1, changed=False)
    assert growth.recognised(3) == 1
    assert growth.changed == {3: True, 5: False}


def test_blocks_that_grow_together_share_what_is_left_and_one_alone_has_it_all() -> None:
    # Growth has cost 10 of 25 parameters, so one more adapter fits: with the next block none.
    for policy, expected in (("per_block", [3, 5]), ("whole_network", [3])):
        growth = GrowthRound([3, 5], policy, Budget(parameters=25), sizes)  # type: ignore[arg-type]
        assert growth.affordable() == expected
    assert GrowthRound([3, 5], "whole_network", Budget(parameters=30), sizes).affordable() == [3, 5]
