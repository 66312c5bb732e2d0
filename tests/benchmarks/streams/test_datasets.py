"""Streams of several data sets: what comes when, what is true of it, what a recipe says."""

from typing import Any

import numpy as np
import pytest

from cl_adapters.benchmarks.data.datasets import DataSets, join_datasets
from cl_adapters.benchmarks.streams.class_incremental import make_plan
from cl_adapters.benchmarks.streams.datasets import Cut, datasets_plan, numbered
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Active, Domain, Event, Growth, Scan
from cl_adapters.reports.detection import detection
from cl_adapters.reports.growth import read_history
from tests.benchmarks.datasets import in_memory

CUTS = [Cut(increment=2), Cut(increment=2), Cut(increment=1)]


@pytest.fixture(scope="module")
def source() -> DataSets:
    sizes = {"objects": 5, "signs": 4, "digits": 3}
    return join_datasets([in_memory(name, hue, n) for hue, (name, n) in enumerate(sizes.items())])


def brought(plan: StreamPlan) -> list[list[str]]:
    return [[plan.classes[position] for position in each] for each in plan.experiences]


def test_one_after_the_other(source: DataSets) -> None:
    plan = datasets_plan(source, CUTS, classes="natural")
    assert brought(plan) == [
        ["objects/0", "objects/1"],
        ["objects/2", "objects/3"],
        ["objects/4"],
        ["signs/0", "signs/1"],
        ["signs/2", "signs/3"],
        ["digits/0"],
        ["digits/1"],
        ["digits/2"],
    ]
    assert plan.order == tuple(range(12))
    assert numbered(plan) == [
        "objects 1", "objects 2", "objects 3", "signs 1", "signs 2", "digits 1", "digits 2",
        "digits 3",
    ]  # fmt: skip


def test_interleaved_until_a_data_set_has_no_more(source: DataSets) -> None:
    cuts = [*CUTS[:2], Cut(increment=1, num_experiences=2)]
    plan = datasets_plan(source, cuts, order="interleaved", classes="natural")
    assert brought(plan) == [
        ["objects/0", "objects/1"],
        ["signs/0", "signs/1"],
        ["digits/0"],
        ["objects/2", "objects/3"],
        ["signs/2", "signs/3"],
        ["digits/1"],
        ["objects/4"],
    ]
    assert "digits/2" not in plan.classes


def test_a_return_brings_other_classes_and_the_truth_says_so(source: DataSets) -> None:
    plan = datasets_plan(
        source, CUTS, order="objects, signs,digits,digits, objects", classes="natural"
    )
    assert brought(plan) == [
        ["objects/0", "objects/1"],
        ["signs/0", "signs/1"],
        ["digits/0"],
        ["digits/1"],
        ["objects/2", "objects/3"],
    ]
    assert [(each.name, each.changed, each.seen_before) for each in plan.domains] == [
        ("objects", False, False),
        ("signs", True, False),
        ("digits", True, False),
        ("digits", False, True),
        ("objects", True, True),
    ]
    assert numbered(plan) == ["objects 1", "signs", "digits 1", "digits 2", "objects 2"]
    assert plan.experience_of_class.tolist() == [0, 0, 1, 1, 2, 3, 4, 4]


def test_images_are_those_of_the_classes_and_others_are_no_part(source: DataSets) -> None:
    plan = datasets_plan(source, CUTS, order="signs,digits,objects,signs", seed=3)
    for images, parts in ((source.train, plan.train), (source.test, plan.test)):
        for names, rows in zip(brought(plan), parts, strict=True):
            found = {source.classes[target] for target in images.targets[rows].tolist()}
            assert found == set(names)
            every = [source.classes[target] in names for target in images.targets.tolist()]
            assert rows.tolist() == np.flatnonzero(every).tolist()
        positions = plan.positions(images)
        for target, position in zip(images.targets.tolist(), positions.tolist(), strict=True):
            name = source.classes[target]
            expected = plan.classes.index(name) if name in plan.classes else -1
            assert position == expected
    assert -1 in plan.positions(source.train)


@pytest.mark.parametrize("rule", ["seeded", "numpy1993"])
def test_a_data_set_has_the_class_order_that_it_has_alone(source: DataSets, rule: str) -> None:
    plan = datasets_plan(source, CUTS, classes=rule, seed=5)
    for part, cut in zip(source.parts, CUTS, strict=True):
        alone = make_plan(part, increment=cut.increment or 1, order=rule, seed=5)
        mine = [each for each in brought(plan) if each[0].startswith(f"{part.name}/")]
        assert mine == [[f"{part.name}/{name}" for name in each] for each in brought(alone)]


def test_without_an_increment_shares_are_alike(source: DataSets) -> None:
    cuts = [Cut(), Cut(num_experiences=1), Cut(class_order="2,0,1")]
    plan = datasets_plan(
        source, cuts, order="objects,signs,objects,digits,objects", classes="natural"
    )
    assert brought(plan) == [
        ["objects/0", "objects/1"],
        ["signs/0", "signs/1", "signs/2", "signs/3"],
        ["objects/2", "objects/3"],
        ["digits/2", "digits/0", "digits/1"],
        ["objects/4"],
    ]
    whole = datasets_plan(source, [Cut()] * 3)
    assert [len(each) for each in whole.experiences] == [5, 4, 3]


def test_the_plan_describes_what_is_equal_for_all_seeds(source: DataSets) -> None:
    cuts = [CUTS[0], Cut(increment=4, class_order="3,2,1,0"), Cut(class_order="natural")]
    one, two = (datasets_plan(source, cuts, seed=seed) for seed in (0, 1))
    assert one.classes != two.classes
    assert (
        one.describe()
        == two.describe()
        == {
            "class_order": "seeded",
            "experiences": [2, 2, 1, 4, 3],
            "scenario": "datasets",
            "datasets": ["objects"] * 3 + ["signs", "digits"],
            "class_orders": {"signs": [3, 2, 1, 0], "digits": "natural"},
        }
    )


@pytest.mark.parametrize(
    ("cut", "options", "message"),
    [
        ({"increment": 6}, {}, "increment of data set 'objects' must be .* classes, 5, got 6"),
        (
            {"increment": 2, "num_experiences": 4}, {},
            "experiences of data set 'objects' must be at most the 3 that its 5 classes make of 2",
        ),
        ({"num_experiences": 6}, {}, "at most the 5 that its 5 classes make of one class, got 6"),
        (
            {"num_experiences": 2}, {"order": "objects,signs,digits"},
            "num_experiences of data set 'objects' must be the 1 that dataset_order gives it, got 2",
        ),
        ({}, {"order": "objects,sings"}, "unknown data set in dataset_order 'sings'; did you mean"),
        ({}, {"order": "sequentail"}, "data set or dataset_order 'sequentail'; .*'sequential'"),
        ({}, {"order": "objects,signs"}, "name each data set at least once, 'digits' is missing"),
        ({}, {"order": ","}, "name each data set at least once, 'objects', 'signs', 'digits' are"),
        (
            {"increment": 5}, {"order": "objects,signs,digits,objects"},
            "must be at most the 1 that its 5 classes make of 5, got 2",
        ),
        ({}, {"classes": "2,0,1"}, "class order of several data sets must be one of natural"),
        ({"class_order": "0,1,2,3"}, {}, "data set 'objects': class order must .* '4' is missing"),
        ({"class_order": "0,1,2,3,cat"}, {}, "data set 'objects': unknown class in .* 'cat'"),
        ({}, {"seed": -1}, "seed must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_ends_in_one_sentence(
    source: DataSets, cut: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        datasets_plan(source, [Cut(**cut), *CUTS[1:]], **options)
    assert "\n" not in str(caught.value)


# --- scored against the truth -------------------------------------------------------------------


def _windows(experience: int, *scores: float) -> list[Event]:
    # One window in the one block; every threshold is 1.
    (best,) = [min(range(len(scores)), key=scores.__getitem__)]
    said = {"block": 9, "window": 0, "images": 50, "scores": list(scores), "adapter": best}
    said |= {"thresholds": [1.0] * len(scores), "fired": min(scores) > 1, "grown": False}
    return [Scan(experience=experience, seconds=0, **said)]


def _active(experience: int, adapter: int, *, changed: bool) -> Event:
    said = {"block": 9, "adapter": adapter, "changed": changed}
    return Active(experience=experience, seconds=0, **said)


def test_detectors_growth_and_reuse_are_scored_by_the_data_sets(source: DataSets) -> None:
    plan = datasets_plan(
        source, CUTS, order="objects,signs,digits,objects,objects,signs", classes="natural"
    )
    events: list[Event] = [
        Domain(experience=t, seconds=0, **each.truth()) for t, each in enumerate(plan.domains)
    ]
    events += [_active(0, 0, changed=False)]
    # Signs: found, and grown. Digits: missed. Objects again: found, and reused.
    events += [*_windows(1, 2.0), _active(1, 1, changed=True)]
    events += [Growth(experience=1, seconds=0, block=9, adapters=2, parameters=7)]
    events += [*_windows(2, 3.0, 0.5), _active(2, 1, changed=False)]
    events += [*_windows(3, 0.5, 4.0), _active(3, 0, changed=True)]
    # More objects: a false alarm. Signs again: found, but a third adapter grows.
    events += [*_windows(4, 1.5, 0.5), _active(4, 1, changed=True)]
    events += [*_windows(5, 2.0, 2.0), _active(5, 2, changed=True)]
    events += [Growth(experience=5, seconds=0, block=9, adapters=3, parameters=7)]
    assert detection(read_history(events, 6)) == {
        "changes": 4,  # signs, digits, objects, signs
        "changes_found": 3,
        "changes_missed": 1,
        "false_alarms": 1,
        "delay_windows": 1,
        "delay_images": 50,
        "adapters_grown_a_block": 2,
        "growing_experiences": 2,
        "oracle_adapters": 2,  # signs and digits
        "reuse_on_recurrence": 50,  # objects, not signs
    }
