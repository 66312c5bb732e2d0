"""Plans of scenarios: blurry, long-tailed, repetition, classes x domains."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source, digits_source
from cl_adapters.benchmarks.streams.blurry import blurry_plan, leak
from cl_adapters.benchmarks.streams.class_incremental import make_plan, split_classes
from cl_adapters.benchmarks.streams.domains import class_domain_plan, domain_plan, pair_up
from cl_adapters.benchmarks.streams.long_tailed import long_tailed_plan, profile, thin_out
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.benchmarks.streams.repetition import (
    deal_to_occurrences,
    occurrences,
    repetition_plan,
)
from cl_adapters.errors import InputError

Numbers = list[int]
SEEDS = st.integers(0, 99)


def make_source(targets: Numbers, domains: list[str] | None = None) -> ImageSource:
    """A source of different images; the test set has each (class, domain) of the train set once."""
    grey = np.arange(len(targets), dtype=np.uint8).repeat(4).reshape(-1, 2, 2)
    names = domains or [""] * len(targets)
    pairs = sorted(set(zip(targets, names, strict=True)))
    test = 255 - np.arange(len(pairs), dtype=np.uint8).repeat(4).reshape(-1, 2, 2)
    source = array_source("toys", (grey, targets), (test, [label for label, _ in pairs]))
    if domains is None:
        return source
    return replace(
        source,
        train=replace(source.train, domains=np.array(domains)),
        test=replace(source.test, domains=np.array([name for _, name in pairs])),
    )


@st.composite
def labels(draw: st.DrawFn, smallest: int = 1, classes: int = 6, most: int = 12) -> Numbers:
    """Classes 0 to C - 1 in any order, each with at least `smallest` images."""
    counts = draw(st.lists(st.integers(smallest, most), min_size=2, max_size=classes))
    return draw(st.permutations([label for label, n in enumerate(counts) for _ in range(n)]))


def assert_same(one: StreamPlan, other: StreamPlan) -> None:
    assert (one.order, one.experiences) == (other.order, other.experiences)
    for mine, theirs in ((one.train, other.train), (one.test, other.test)):
        assert [part.tolist() for part in mine] == [part.tolist() for part in theirs]


def assert_sound(source: ImageSource, plan: StreamPlan) -> None:
    """No image twice, none of an unknown class, nothing empty, all test images, label order."""
    for images, parts in ((source.train, plan.train), (source.test, plan.test)):
        assert len(parts) == len(plan.experiences)
        assert all(len(part) for part in parts)
        rows = np.concatenate(parts)
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) <= set(range(len(images)))
        assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(plan.test).tolist()) == list(range(len(source.test)))
    # The sets are different files of different images: what is trained on is never tested on.
    trained = {source.train.digests[row] for part in plan.train for row in part}
    assert trained.isdisjoint(source.test.digests[row] for part in plan.test for row in part)
    assert list(dict.fromkeys(p for each in plan.experiences for p in each)) == list(
        range(len(plan.order))
    )
    for t, part in enumerate(plan.test):
        positions = set(plan.positions(source.test)[part].tolist())
        assert positions == set(plan.experiences[t])


# --- blurry -------------------------------------------------------------------------------------


def test_blurry_by_hand() -> None:
    """Ten images of each of two classes, blur 0.2: two of each change places."""
    targets = [0] * 10 + [1] * 10
    source = make_source(targets)
    plan = blurry_plan(source, make_plan(source, increment=1, order="natural"), blur=0.2)
    counts = [
        [int((np.array(targets)[part] == label).sum()) for label in (0, 1)] for part in plan.train
    ]
    assert counts == [[8, 2], [2, 8]]
    assert plan.experiences == ((0,), (1,))
    assert [source.test.targets[part].tolist() for part in plan.test] == [[0], [1]]
    assert plan.describe() == {
        "class_order": "natural", "experiences": [1, 1],
        "scenario": "blurry", "blur": 0.2, "test_images": "with the class's experience",
    }  # fmt: skip


@given(labels(smallest=5), st.floats(0.2, 0.99), SEEDS)
def test_blurry_partitions_and_spreads_evenly(targets: Numbers, blur: float, seed: int) -> None:
    source = make_source(targets)
    base = make_plan(source, increment=1, seed=seed)
    plan = blurry_plan(source, base, blur=blur, seed=seed)
    assert_sound(source, plan)
    assert_same(plan, blurry_plan(source, base, blur=blur, seed=seed))
    assert sorted(np.concatenate(plan.train).tolist()) == list(range(len(targets)))
    assert plan.order == base.order
    for place, label in enumerate(plan.order):
        total = targets.count(label)
        shares = [sum(targets[row] == label for row in part) for part in plan.train]
        kept = shares.pop(place)
        assert kept >= 1
        assert total - kept == min(int(Fraction(blur) * total + Fraction(1, 10**9)), total - 1)
        assert max(shares) - min(shares) <= 1


def test_without_blur_the_stream_is_class_incremental() -> None:
    source = digits_source()
    plan = make_plan(source, increment=3, seed=4)
    assert_same(blurry_plan(source, plan, blur=0, seed=4), plan)


def test_a_class_never_leaks_as_a_whole() -> None:
    parts = leak(np.zeros(6, int), np.array([1]), 3, blur=1 - 1e-12)
    assert sorted(map(len, parts)) == [1, 2, 3]
    assert len(parts[1]) == 1


def test_the_leak_follows_the_seed_and_leaves_its_arguments_alone() -> None:
    class_to_task, targets = np.array([0, 1, 2]), np.repeat([0, 1, 2], 20)
    parts = [leak(targets, class_to_task, 3, blur=0.5, seed=seed) for seed in (0, 1, 0)]
    assert parts[0][0].tolist() != parts[1][0].tolist()
    assert parts[0][0].tolist() == parts[2][0].tolist()
    assert (targets.tolist(), class_to_task.tolist()) == ([0] * 20 + [1] * 20 + [2] * 20, [0, 1, 2])


# --- long-tailed --------------------------------------------------------------------------------


def test_the_profile_by_hand() -> None:
    """CIFAR-100-LT has 500 images of its first class and 5 of its last at imbalance 100."""
    counts = profile(500, 100, 100)
    assert (counts[0], counts[-1]) == (500, 5)
    assert counts.sum() == 10847, "as counted in the literature on CIFAR-100-LT"
    assert profile(5000, 10, 100).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert profile(7, 1, 50).tolist() == [7]


@given(st.integers(1, 300), st.integers(2, 20), st.integers(1, 200))
def test_the_profile_in_whole_numbers(head: int, num_classes: int, imbalance: int) -> None:
    """m = floor(n · i^(-k/(C-1))) is the largest m with m^(C-1) · i^k <= n^(C-1)."""
    for rank, count in enumerate(profile(head, num_classes, imbalance).tolist()):
        power, limit = num_classes - 1, head ** (num_classes - 1)
        assert count**power * imbalance**rank <= limit
        assert (count + 1) ** power * imbalance**rank > limit


@given(labels(), st.floats(1, 30), st.sampled_from(["ordered", "shuffled"]), SEEDS, st.data())
def test_a_long_tail_keeps_exactly_the_profile(
    targets: Numbers, imbalance: float, tail: Any, seed: int, data: st.DataObject
) -> None:
    source = make_source(targets)
    smallest = min(map(targets.count, targets))
    imbalance = min(imbalance, smallest)
    head = data.draw(st.none() | st.integers(int(np.ceil(imbalance)), smallest))
    base = make_plan(source, increment=data.draw(st.integers(1, max(targets) + 1)), seed=seed)
    options = {"imbalance": imbalance, "tail": tail, "head_images": head, "seed": seed}
    plan = long_tailed_plan(source, base, **options)
    assert_sound(source, plan)
    assert_same(plan, long_tailed_plan(source, base, **options))
    assert [part.tolist() for part in plan.test] == [part.tolist() for part in base.test]
    kept = [
        sum(targets[row] == label for part in plan.train for row in part) for label in plan.order
    ]
    expected = profile(head or smallest, len(kept), imbalance).tolist()
    assert (kept if tail == "ordered" else sorted(kept, reverse=True)) == expected
    for part, whole in zip(plan.train, base.train, strict=True):
        assert set(part.tolist()) <= set(whole.tolist())


def test_ranks_and_images_of_a_tail_follow_the_seed() -> None:
    source = digits_source()
    plans = [
        long_tailed_plan(
            source, make_plan(source, increment=2, order="natural"),
            imbalance=10, tail="shuffled", seed=seed,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    sizes = [np.bincount(source.train.targets[np.concatenate(plan.train)]) for plan in plans]
    assert sizes[0].tolist() != sizes[1].tolist()
    assert sorted(sizes[0].tolist()) == sorted(sizes[1].tolist())
    assert plans[0].describe() == plans[1].describe()
    counts = np.full(10, 5)
    chosen = [thin_out(source.train.targets, counts, seed=seed).tolist() for seed in (0, 1, 0)]
    assert chosen[0] == chosen[2] != chosen[1]


# --- repetition ---------------------------------------------------------------------------------


def test_repetition_by_hand() -> None:
    """All classes always return: class 0 is dealt to three experiences, 1 to two, 2 to one."""
    targets = [0] * 6 + [1] * 6 + [2] * 6
    source = make_source(targets)
    plan = repetition_plan(source, num_experiences=3, repeat=1.0, order="natural")
    counts = [np.bincount(source.train.targets[part], minlength=3).tolist() for part in plan.train]
    assert counts == [[2, 0, 0], [2, 3, 0], [2, 3, 6]]
    assert plan.experiences == ((0,), (1,), (2,))
    assert [source.test.targets[part].tolist() for part in plan.test] == [[0], [1], [2]]
    assert plan.describe() == {
        "class_order": "natural", "experiences": [1, 1, 1],
        "scenario": "repetition", "repeat": 1.0, "test_images": "with the class's first experience",
    }  # fmt: skip


@given(labels(smallest=6), st.floats(0, 1), SEEDS, st.data())
def test_returning_classes_share_out_their_images(
    targets: Numbers, repeat: float, seed: int, data: st.DataObject
) -> None:
    source = make_source(targets)
    count = data.draw(st.integers(1, max(targets) + 1))
    plan = repetition_plan(source, num_experiences=count, repeat=repeat, seed=seed)
    assert_sound(source, plan)
    assert_same(plan, repetition_plan(source, num_experiences=count, repeat=repeat, seed=seed))
    assert sorted(np.concatenate(plan.train).tolist()) == list(range(len(targets)))
    new = [len(each) for each in plan.experiences]
    assert max(new) - min(new) <= 1
    for place, label in enumerate(plan.order):
        shares = [sum(targets[row] == label for row in part) for part in plan.train]
        first = next(t for t, each in enumerate(plan.experiences) if place in each)
        assert shares[:first] == [0] * first
        assert shares[first] > 0
        present = [share for share in shares if share]
        assert max(present) - min(present) <= 1


def test_classes_return_as_often_as_asked() -> None:
    """Of 200 x 20 chances three tenths are taken: within five standard deviations."""
    firsts = np.zeros(200, dtype=np.int64)
    returns = occurrences(firsts, 21, repeat=0.3, seed=1)[:, 1:]
    assert abs(returns.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / returns.size)
    assert not occurrences(firsts, 21, repeat=0)[:, 1:].any()
    assert (returns != occurrences(firsts, 21, repeat=0.3, seed=2)[:, 1:]).any()


def test_the_deal_follows_the_seed() -> None:
    occurs = np.ones((1, 2), dtype=np.bool_)
    parts = [deal_to_occurrences(np.zeros(30, int), occurs, seed=seed)[0] for seed in (0, 1, 0)]
    assert parts[0].tolist() == parts[2].tolist() != parts[1].tolist()


# --- classes x domains --------------------------------------------------------------------------


def test_classes_and_domains_by_hand() -> None:
    targets, domains = [0, 1, 2, 0, 1, 2, 0], ["b", "b", "b", "a", "a", "a", "a"]
    source = make_source(targets, domains)
    plan = class_domain_plan(source, [(0, 1), (2,)], order="b,a", classes="2,0,1")
    assert [part.tolist() for part in plan.train] == [[0, 2], [1], [3, 5, 6], [4]]
    assert plan.experiences == ((0, 1), (2,), (0, 1), (2,))
    truth = [(each.name, each.changed, each.seen_before) for each in plan.domains]
    assert truth == [
        ("b", False, False),
        ("b", False, True),
        ("a", True, False),
        ("a", False, True),
    ]
    described = plan.describe()
    assert (described["scenario"], described["domain_order"]) == ("class_domain", ["b", "a"])
    assert plan.experience_of_class.tolist() == [0, 0, 1]


@given(labels(smallest=2), st.sampled_from(["natural", "seeded"]), SEEDS, st.data())
def test_every_pair_of_group_and_domain_comes_once(
    targets: Numbers, order: str, seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 2))
    turn = [targets[:index].count(label) for index, label in enumerate(targets)]
    domains = ["abc"[place % count] for place in turn]
    source = make_source(targets, domains)
    groups = split_classes(max(targets) + 1, data.draw(st.integers(1, max(targets) + 1)))
    plan = class_domain_plan(source, groups, order=order, seed=seed)
    assert_sound(source, plan)
    assert_same(plan, class_domain_plan(source, groups, order=order, seed=seed))
    assert sorted(np.concatenate(plan.train).tolist()) == list(range(len(targets)))
    assert plan.experiences == groups * count
    for t, part in enumerate(plan.train):
        assert {domains[row] for row in part} == {plan.domains[t].name}
    everything = domain_plan(source, order=order, seed=seed)
    for place, whole in enumerate(everything.train):
        mine = plan.train[place * len(groups) : (place + 1) * len(groups)]
        assert sorted(np.concatenate(mine).tolist()) == whole.tolist()


def test_pairs_of_a_group_without_images_are_empty() -> None:
    parts = pair_up(np.array([0, 1]), np.array(["a", "b"]), [[0], [1]], ["b", "a"])
    assert [part.tolist() for part in parts] == [[], [1], [0], []]


def test_classes_and_pairs_that_are_too_small_are_named() -> None:
    with pytest.raises(InputError, match="class '0' must have a train image for each of its 2"):
        repetition_plan(make_source([0, 1, 1]), num_experiences=2, repeat=1, order="natural")
    source = make_source([0, 1, 0], ["a", "a", "b"])
    with pytest.raises(
        InputError, match="domain 'b' must .* the group that class '1' begins, got 0"
    ):
        class_domain_plan(source, [(0,), (1,)], classes="natural")
    with pytest.raises(InputError, match="must have a text column 'domain', 'digits' has none"):
        class_domain_plan(digits_source(), split_classes(10, 5))
