"""Task-free streams: plans from boundaries, and what finds them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.features import ImageFeatureExtractor, MemoryFeatureCache
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.streams import watch
from cl_adapters.benchmarks.streams.class_incremental import make_plan
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.benchmarks.streams.repetition import repetition_plan
from cl_adapters.benchmarks.streams.shifts import Schedule, shift_plan
from cl_adapters.benchmarks.streams.task_free import (
    flow_images,
    flow_of,
    task_free_plan,
    true_changes,
)
from cl_adapters.benchmarks.streams.watch import BoundaryDetector, Watch, find_boundaries
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.images.transforms import Preprocess
from cl_adapters.shift.boundaries import Boundary
from cl_adapters.vit.pretrained import load_backbone
from tests.benchmarks.streams.flows import MARK, at


@pytest.fixture(scope="module")
def source() -> ImageSource:
    """Four classes told apart by a bright row, 40 train and 5 test images each."""
    generator = np.random.default_rng(0)

    def images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = generator.permutation(np.repeat(np.arange(4), per_class))
        pixels = generator.integers(0, 90, (len(targets), 12, 12, 3), dtype=np.uint8)
        for image, target in zip(pixels, targets, strict=True):
            image[3 * target : 3 * target + 3] += 150
        return pixels, targets

    return array_source("stripes", images(40), images(5))


def told_plans(source: ImageSource) -> dict[str, StreamPlan]:
    schedule = Schedule(num_experiences=5, changes=2, recurring=1)
    gradual = Schedule(num_experiences=4, changes=1, recurring=0, transition="gradual")
    return {
        "class": make_plan(source, increment=2, seed=3),
        "repetition": repetition_plan(source, num_experiences=3, repeat=0.6, seed=1),
        "shift": shift_plan(source, schedule, test_images=8, seed=2),
        "gradual": shift_plan(source, gradual, seed=2),
    }


def pixels_of(plan: StreamPlan, source: ImageSource, split: str, t: int) -> list[np.ndarray]:
    images = plan.part(source.train if split == "train" else source.test, split, t)  # type: ignore[arg-type]
    return [images.read(index) for index in range(len(images))]


@pytest.mark.parametrize("kind", ["class", "repetition", "shift", "gradual"])
def test_true_boundaries_give_the_told_stream(source: ImageSource, kind: str) -> None:
    plan = told_plans(source)[kind]
    starts = np.cumsum([len(part) for part in plan.train]).tolist()[:-1]
    found = task_free_plan(source, plan, at(starts), seed=5)
    assert found.experiences == plan.experiences
    for mine, theirs in ((found.train, plan.train), (found.test, plan.test)):
        assert [part.tolist() for part in mine] == [part.tolist() for part in theirs]
    assert [each.truth() for each in found.domains] == [each.truth() for each in plan.domains]
    for split in ("train", "test"):
        for t in range(len(plan.experiences)):
            pairs = zip(
                pixels_of(found, source, split, t), pixels_of(plan, source, split, t), strict=True
            )
            assert all((mine == theirs).all() for mine, theirs in pairs)
    told = plan.describe()
    described = found.describe()
    assert described.pop(MARK) == {}
    assert described == told


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["class", "repetition", "shift"]), st.data())
def test_segments_partition_the_stream_in_order(kind: str, data: st.DataObject) -> None:
    source = SHARED["source"]
    plan = SHARED["plans"][kind]
    seed = data.draw(st.integers(0, 5))
    total = sum(len(part) for part in plan.train)
    starts = sorted(data.draw(st.sets(st.integers(1, total - 1), max_size=8)))
    found = task_free_plan(source, plan, at(starts), seed=seed)
    flow = flow_of(plan, seed)
    assert sorted(flow.indices.tolist()) == sorted(np.concatenate(plan.train).tolist())
    assert (np.diff(flow.origins) >= 0).all()
    for segment, (low, high) in enumerate(pairwise([0, *starts, total])):
        inside = list(
            zip(flow.indices[low:high].tolist(), flow.origins[low:high].tolist(), strict=True)
        )
        assert found.hidden is not None
        mine = zip(found.train[segment].tolist(), found.hidden.train[segment].tolist(), strict=True)
        assert sorted(mine) == sorted(inside)
        assert (found.hidden.truth[segment]["start"], found.hidden.truth[segment]["images"]) == (
            low,
            high - low,
        )
    check_tests(source, plan, found, flow.origins, flow.indices, starts)


def check_tests(
    source: ImageSource,
    plan: StreamPlan,
    found: StreamPlan,
    origins: Any,
    indices: Any,
    starts: Any,
) -> None:
    """Each image the truth tests is tested once, where its class first came from its experience."""
    assert found.hidden is not None
    expected: dict[tuple[int, int], int] = {}
    for t, part in enumerate(plan.test):
        for index in part.tolist():
            label = source.test.targets[index]
            places = [
                place
                for place, (origin, image) in enumerate(zip(origins, indices, strict=True))
                if origin == t and source.train.targets[image] == label
            ]
            expected[t, index] = sum(start <= places[0] for start in starts)
    actual = {
        (int(t), int(index)): segment
        for segment, part in enumerate(found.test)
        for t, index in zip(found.hidden.test[segment], part, strict=True)
    }
    assert actual == expected
    numbers = [number for segment in range(len(found.test)) for number in found.samples(segment)]
    repeats = len({index for _, index in expected}) < len(expected)
    assert len(set(numbers)) == len(numbers)
    if not repeats:
        assert sorted(numbers) == sorted(index for _, index in expected)


SHARED: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _share(source: ImageSource) -> None:
    # Hypothesis wants no fixtures of function scope, and the plans take a moment.
    SHARED.update(source=source, plans=told_plans(source))


def test_changes_are_those_of_domain_or_classes(source: ImageSource) -> None:
    plans = told_plans(source)
    assert true_changes(plans["class"]) == [80]
    assert (
        true_changes(plans["shift"])
        == np.cumsum([len(part) for part in plans["shift"].train])[[1, 3]].tolist()
    )
    assert len(true_changes(plans["repetition"])) == 2


def test_facts_tell_the_announcement_and_the_truth(source: ImageSource) -> None:
    plan = told_plans(source)["class"]
    boundaries = [
        Boundary(start=40, announced=60, score=3.0, threshold=2.0),
        Boundary(start=70, announced=100, score=4.0, threshold=2.0),
        Boundary(start=120, announced=140),
    ]
    found = task_free_plan(source, plan, boundaries)
    assert found.hidden is not None
    keys = ("start", "images", "announced", "score", "threshold", "delay", "changes", "origins")
    assert [tuple(truth[key] for key in keys) for truth in found.hidden.truth] == [
        (0, 40, None, None, None, None, [], [[0, 40]]),
        (40, 30, 60, 3.0, 2.0, None, [], [[0, 30]]),
        (70, 50, 100, 4.0, 2.0, 20, [80], [[0, 10], [1, 40]]),
        (120, 40, 140, None, None, 60, [], [[1, 40]]),
    ]
    assert found.experiences[1] == ()
    assert len(found.test[1]) == 0, "it is the first to hold nothing"
    with pytest.raises(InputError, match="must ascend within the 160 images of the stream, got 50"):
        task_free_plan(source, plan, at([70, 50]))


def test_a_mixed_segment_has_the_domain_of_most_of_its_images(source: ImageSource) -> None:
    plan = told_plans(source)["shift"]  # stays of 2, 2 and 1 experiences of 32 images
    found = task_free_plan(source, plan, at([70, 110]), seed=1)
    names = [domain.name for domain in plan.domains]
    assert [domain.name for domain in found.domains] == [names[0], names[2], names[4]]
    assert [domain.changed for domain in found.domains] == [False, True, True]
    assert [round(domain.share, 3) for domain in found.domains] == [0.914, 1, 0.64]


@pytest.fixture(scope="module")
def extractor() -> ImageFeatureExtractor:
    backbone = load_backbone("test_vit", weights="random", image_size=32)
    preprocess = Preprocess(image_size=32, mean=backbone.mean, std=backbone.std)
    return ImageFeatureExtractor(
        backbone=backbone, preprocess=preprocess, device=torch.device("cpu"), precision="fp32"
    )


def test_features_are_the_backbones_and_the_same_in_any_company(
    source: ImageSource, extractor: ImageFeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = source.train.take(np.arange(70))
    cache = MemoryFeatureCache()
    features = cache.features(images, extractor)
    for index in (0, 69):
        with torch.no_grad():
            plain = extractor.backbone.model(
                extractor.preprocess.evaluate(images.read(index))[None]
            )[0]
        torch.testing.assert_close(features[index], plain)
    order = np.random.default_rng(1).permutation(70)
    again = MemoryFeatureCache().features(images.take(order[:3]), extractor)
    assert torch.equal(again, features[order[:3]])
    monkeypatch.setattr(
        ImageFeatureExtractor, "features", None
    )  # whoever asks again is not computed again
    assert torch.equal(cache.features(images.take(order), extractor), features[order])


def test_boundaries_of_a_stream_cut_short_are_those_of_the_whole(
    source: ImageSource, extractor: ImageFeatureExtractor
) -> None:
    """Only the past decides: over images, not only over features."""
    plan = make_plan(source, increment=1, order="natural")
    images = flow_images(source, plan, flow_of(plan))
    watch = Watch(detector="mahalanobis", reference=20, window=10)
    boundary_detector = BoundaryDetector()
    whole = boundary_detector.boundaries(images, extractor, watch)
    assert [each.start for each in whole] == [40, 80, 120]
    for count in (39, 49, 50, 51, 95, 130):
        part = boundary_detector.boundaries(images.take(np.arange(count)), extractor, watch)
        assert part == [each for each in whole if each.announced <= count]
    features = MemoryFeatureCache().features(images, extractor)
    assert find_boundaries(features, watch.finder(features.shape[1])) == whole


def test_one_seed_one_stream(source: ImageSource) -> None:
    plan = told_plans(source)["class"]
    one, again, two = (flow_of(plan, seed).indices.tolist() for seed in (0, 0, 1))
    assert one == again != two
    assert sorted(one) == sorted(two)


def test_an_empty_test_part_needs_no_dataset(source: ImageSource) -> None:
    plan = task_free_plan(source, told_plans(source)["class"], at([20]))
    preprocess = Preprocess(image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    benchmark = make_benchmark(source, plan, preprocess)
    assert [len(each.dataset) for each in benchmark.train_stream] == [20, 140]
    assert [len(each.dataset) for each in benchmark.test_stream] == [10, 10]


def test_the_detector_of_boundaries_is_found_under_its_earlier_name() -> None:
    with pytest.warns(EarlierNameWarning, match="`Announcer` is `BoundaryDetector` now"):
        assert watch.Announcer is BoundaryDetector
    with pytest.raises(AttributeError, match="has no attribute 'Announce'"):
        _ = watch.Announce


def test_a_delay_counts_from_the_last_change_before_the_announcement(source: ImageSource) -> None:
    plan = make_plan(source, increment=1, order="natural")  # 40 images of each of four classes
    found = [Boundary(start=50, announced=70), Boundary(start=90, announced=150)]
    hidden = task_free_plan(source, plan, found, seed=5).hidden
    assert hidden is not None
    assert [each["delay"] for each in hidden.truth] == [None, 70 - 40, 150 - 120]
    early = task_free_plan(source, plan, [Boundary(start=10, announced=30)], seed=5).hidden
    assert early is not None
    assert [each["delay"] for each in early.truth] == [None, None]  # nothing had changed
