"""Shift streams: the deal, the schedule and its truth."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.sources import ImageSource, digits_source
from cl_adapters.benchmarks.streams.changes import KINDS, KindOfChange
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.benchmarks.streams.plans import ExperienceDomain
from cl_adapters.benchmarks.streams.shifts import (
    CLEAN,
    Schedule,
    deal,
    shift_plan,
    stratified_sample,
)
from cl_adapters.images.transforms import Preprocess
from tests.benchmarks.streams.striped import make_source

PREPROCESS = Preprocess(image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return make_source([12, 8, 10])


@settings(max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_a_deal_is_disjoint_whole_and_stratified(counts: list[int], data: st.DataObject) -> None:
    images = make_source(counts).train
    parts = deal(images, data.draw(st.integers(1, min(counts))), data.draw(st.integers(0, 9)))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(images)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        shares = [int((images.targets[part] == label).sum()) for part in parts]
        assert min(shares) >= 1
        assert max(shares) - min(shares) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


def test_a_deal_follows_the_seed(source: ImageSource) -> None:
    one, again, two = (deal(source.train, 3, seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, two, strict=True))


@settings(max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_a_sample_keeps_every_class_and_its_share(counts: list[int], data: st.DataObject) -> None:
    images = make_source(counts).test
    most = data.draw(st.integers(len(counts), len(images)))
    chosen = stratified_sample(images, most)
    assert len(chosen) == len(set(chosen.tolist())) == most
    found = np.bincount(images.targets[chosen], minlength=len(counts))
    totals = np.bincount(images.targets)
    assert (found >= 1).all()
    # One of each class for sure, and the others in proportion.
    expected = 1 + (totals - 1) * (most - len(counts)) / max(totals.sum() - len(counts), 1)
    assert np.abs(found - expected).max() <= 1 + 1e-9


def facts(domains: tuple[ExperienceDomain, ...]) -> list[tuple[str, bool, bool, float]]:
    return [(each.name, each.changed, each.seen_before, each.severity) for each in domains]


@pytest.mark.parametrize("seed", range(20))
def test_digits_shift_has_six_changes_of_which_two_return(seed: int) -> None:
    domains = Schedule().domains(seed)
    names = [domain.name for domain in domains]
    assert len(names) == 14
    assert names[0] == CLEAN
    changes = [t for t in range(1, 14) if names[t] != names[t - 1]]
    assert changes == [2, 4, 6, 8, 10, 12]
    returns = [t for t in changes if names[t] in names[: t - 1]]
    assert returns == [6, 12]
    assert len(set(names)) == 5
    assert set(names) - {CLEAN} < set(KINDS)
    for t, domain in enumerate(domains):
        assert domain.changed == (t in changes)
        assert domain.seen_before == (names[t] in names[:t])
        assert domain.severity == (0 if names[t] == CLEAN else 1)
        expected = None if names[t] == CLEAN else KindOfChange(names[t], 1.0, seed)
        assert domain.change == expected


@given(st.data())
def test_every_schedule_has_the_changes_it_states(data: st.DataObject) -> None:
    num_experiences = data.draw(st.integers(1, 30))
    changes = data.draw(st.integers(0, num_experiences - 1))
    least = max(changes - len(KINDS), 0)
    recurring = data.draw(st.integers(min(least, max(changes - 1, 0)), max(changes - 1, 0)))
    schedule = Schedule(num_experiences=num_experiences, changes=changes, recurring=recurring)
    names = [domain.name for domain in schedule.domains(data.draw(st.integers(0, 99)))]
    starts = [t for t in range(1, num_experiences) if names[t] != names[t - 1]]
    assert len(names) == num_experiences
    assert len(starts) == changes
    assert sum(names[t] in names[:t] for t in starts) == recurring
    lengths = [b - a for a, b in pairwise([0, *starts, num_experiences])]
    assert max(lengths) - min(lengths) <= 1


def test_seeds_choose_the_domains_but_not_where_they_change() -> None:
    plans = [shift_plan(digits_source(), seed=seed) for seed in (0, 0, 1)]
    assert facts(plans[0].domains) == facts(plans[1].domains)
    assert facts(plans[0].domains) != facts(plans[2].domains)
    assert len({str([d.name for d in Schedule().domains(seed)]) for seed in range(20)}) > 15
    assert plans[0].describe()["changed"] == [t in (2, 4, 6, 8, 10, 12) for t in range(14)]
    for key in ("changed", "scenario", "shifts", "class_order", "experiences", "test_images"):
        assert plans[0].describe()[key] == plans[2].describe()[key]


def test_a_gradual_change_lets_the_share_grow_over_the_stay() -> None:
    schedule = Schedule(
        num_experiences=9, changes=2, recurring=1, shifts=["inversion"], transition="gradual"
    )
    domains = schedule.domains(seed=3)
    third = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert [domain.share for domain in domains] == [1, 1, 1, *third, 1, *third, 1]
    assert [t for t, domain in enumerate(domains) if domain.changed] == [3, 6]
    images = digits_source().test
    shares = []
    for domain in domains:
        change = domain.change or (lambda pixels: pixels)
        pairs = [(change(images.read(i)), images.read(i)) for i in range(len(images))]
        assert all((new == old).all() or (new == 255 - old).all() for new, old in pairs)
        shares.append(np.mean([(new == 255 - old).all() for new, old in pairs]))
    assert shares == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0], abs=0.06)
    assert [each.truth().get("share") for each in domains[2:6]] == [None, 0.333333, 0.666667, None]


def test_all_seeds_are_one_protocol() -> None:
    source = digits_source()
    first, *others = (shift_plan(source, seed=seed).describe() for seed in range(12))
    assert all(other == first for other in others)
    # Not for want of difference: some of these seeds return to `clean`, which is never changed.
    returns = {Schedule().domains(seed)[12].name == CLEAN for seed in range(12)}
    assert returns == {True, False}


def test_severity_zero_is_the_control_without_changes() -> None:
    domains = Schedule(severity=0).domains(0)
    assert {(each.name, each.changed, each.change) for each in domains} == {(CLEAN, False, None)}


def test_benchmarks_show_the_changes_and_keep_the_test_images() -> None:
    """The truth is read off the pixels that Avalanche's streams yield."""
    source = digits_source()
    plan = shift_plan(source, test_images=40, seed=1)
    benchmark = make_benchmark(source, plan, PREPROCESS)
    seen: list[torch.Tensor] = []
    for t, experience in enumerate(benchmark.test_stream):
        assert experience.classes_in_this_experience == set(range(10))
        assert list(experience.dataset.targets) == [
            plan.order.index(source.test.targets[index]) for index in plan.test[0]
        ]
        images = torch.stack([experience.dataset[place][0] for place in range(40)])
        truth = plan.domains[t]
        assert truth.changed == (t > 0 and not torch.equal(images, seen[-1]))
        assert truth.seen_before == any(torch.equal(images, each) for each in seen)
        seen.append(images)
    for t, experience in enumerate(benchmark.train_stream):
        change = plan.domains[t].change or (lambda pixels: pixels)
        for place in (0, len(experience.dataset) - 1):
            image, target, _ = experience.dataset[place]
            row = plan.train[t][place]
            assert torch.equal(image, PREPROCESS.evaluate(change(source.train.read(row))))
            assert target == plan.order.index(source.train.targets[row])


def test_changed_images_have_digests_of_their_own() -> None:
    source = digits_source()
    source.train.checksum()  # fills the cache that `take` hands on
    plan = shift_plan(source, seed=1)
    rows = plan.train[2][:3]
    digests = [plan.images(source.train, rows, t).digests for t in (0, 2, 3, 4)]
    assert digests[0] == source.train.take(rows).digests
    assert digests[1] == digests[2]
    assert len({digests[0], digests[1], digests[3]}) == 3
    assert plan.images(source.train, rows, 2).name(0) == source.train.name(int(rows[0]))


@pytest.mark.slow
def test_plain_avalanche_trains_on_a_shift_stream() -> None:
    source = digits_source()
    schedule = Schedule(num_experiences=3, changes=2, recurring=1, shifts=["inversion"])
    benchmark = make_benchmark(source, shift_plan(source, schedule), PREPROCESS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        strategy = Naive(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), 1e-2),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=32,
            train_epochs=4,
            eval_mb_size=450,
            evaluator=EvaluationPlugin(loggers=[TextLogger(io.StringIO())]),
        )
        correct = []
        for experience in benchmark.train_stream:
            strategy.train(experience)
            model.eval()
            hits = [
                np.mean([int(model(x[None]).argmax()) == y for x, y, _ in each.dataset])
                for each in benchmark.test_stream
            ]
            correct.append(hits)
    assert correct[0][0] > 0.85 > 0.3 > correct[0][1]
    assert correct[1][1] > 0.7
    assert all(hits[0] == hits[2] for hits in correct), "clean images are evaluated twice"
