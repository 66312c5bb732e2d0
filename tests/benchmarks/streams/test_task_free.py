"""Task-free streams: plans from boundaries, features, runs with every method, reports, real data."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.features import ImageFeatureExtractor, MemoryFeatureCache
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.data.transforms import Preprocess
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
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
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.boundaries import score_boundaries
from cl_adapters.shift import DETECTORS
from cl_adapters.shift.boundaries import Boundary
from cl_adapters.vit.pretrained import load_backbone
from tests.benchmarks.conftest import InterruptedAt

BACKBONE = {"backbone": "test_vit", "weights": "random", "image_size": 32}
# Small methods, and a stream of which a detector can know 20 images.
QUICK = {
    "sema": {"epochs": 1, "detector": "mahalanobis", "detect_batch_size": 20},
    "mos": {"epochs": 1, "alignment_epochs": 2},
    "lae": {"epochs": 1, "freeze_epochs": 0},
    "simplecil": {},
}
WATCH = {"task_free": "mahalanobis", "reference": 20, "window": 20}
MARK = "task_free"


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


def at(starts: Sequence[int]) -> list[Boundary]:
    return [Boundary(start=each, announced=each + 1, score=2.0, threshold=1.0) for each in starts]


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


def config(strategy: str = "lae", **changes: Any) -> RunConfig:
    values = {
        "strategy": strategy,
        "increment": 1,
        "class_order": "natural",
        "options": QUICK[strategy],
    }
    given = {**values, **BACKBONE, **WATCH, **changes}
    return RunConfig.parse({key: value for key, value in given.items() if value is not None})


def run(source: ImageSource, out: Path, strategy: str = "lae", **changes: Any) -> Path:
    return runner.run(prepare(config(strategy, **changes), source=source), out)


@pytest.mark.parametrize("strategy", ["sema", "mos", "lae"])
def test_a_method_runs_without_boundaries_and_ends_on_the_told_test_images(
    source: ImageSource, tmp_path: Path, strategy: str
) -> None:
    prepared = prepare(config(strategy), source=source)
    assert prepared.plan.hidden is not None
    starts = [truth["start"] for truth in prepared.plan.hidden.truth]
    assert starts == [0, 40, 80, 120], "the stripes are easy to tell apart"
    folder = runner.run(prepared, tmp_path)
    assert folder.parent == tmp_path / "stripes-task_free" / strategy
    record = RunRecord.read(folder)
    assert record.state == "finished"
    assert record.fingerprint[MARK]["detector"] == "mahalanobis"
    told = prepare(config(strategy, task_free=None, reference=None, window=None), source=source)
    rest = {key: value for key, value in record.fingerprint.items() if key != MARK}
    assert rest == told.record.fingerprint
    expected = read_predictions(runner.run(told, tmp_path))
    pd.testing.assert_frame_equal(read_predictions(folder), expected, check_exact=True)
    events = [event for event in read_events(folder) if event["event"] == "segment"]
    assert [event["experience"] for event in events] == [0, 1, 2, 3]
    assert [event["delay"] for event in events] == [None, 20, 20, 20]
    assert [event["announced"] for event in events] == [None, 60, 100, 140]
    assert [event["changes"] for event in events] == [[], [40], [80], [120]]


@pytest.mark.parametrize("strategy", ["sema", "mos", "lae"])
def test_wrong_boundaries_are_lived_with_and_a_killed_run_resumes(
    source: ImageSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_at: InterruptedAt,
    strategy: str,
) -> None:
    """A false alarm, a boundary too early and one too late; killed after the segment without news."""
    boundaries = at([20, 50, 70, 140])
    monkeypatch.setattr(BoundaryDetector, "boundaries", lambda *_, **__: boundaries)
    straight = run(source, tmp_path / "straight", strategy, increment=2)
    expected = read_predictions(straight)
    assert expected.groupby("experience").size().tolist() == [10, 10, 10, 20, 20]
    last = expected[expected["experience"] == 4]
    assert sorted(last["sample"]) == list(range(20)), "every test image, once"
    with interrupted_at(2):
        run(source, tmp_path / "killed", strategy, increment=2)
    folder = run(source, tmp_path / "killed", strategy, increment=2)
    pd.testing.assert_frame_equal(read_predictions(folder), expected, check_exact=True)
    assert [event for event in read_events(folder) if event["event"] == "segment"] == [
        event for event in read_events(straight) if event["event"] == "segment"
    ]


def test_a_run_does_not_go_on_with_other_segments(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundaryDetector, "boundaries", lambda *_, **__: at([40, 80]))
    folder = run(source, tmp_path, "simplecil")
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.write(folder)
    monkeypatch.setattr(BoundaryDetector, "boundaries", lambda *_, **__: at([41, 80]))
    with pytest.raises(InputError, match="segment 0 now differs; use --restart"):
        run(source, tmp_path, "simplecil")


def test_a_shift_stream_is_tested_in_every_domain_as_often_as_told(
    source: ImageSource, tmp_path: Path
) -> None:
    shift = {"increment": None, "scenario": "shift", "num_experiences": 4, "changes": 1, "recurring": 0,
             "shifts": "inversion", "seed": 1}  # fmt: skip
    values = {key: value for key, value in config("simplecil").model_dump().items() if key in
              {"strategy", "class_order", *BACKBONE, *WATCH}}  # fmt: skip
    values |= {key: value for key, value in shift.items() if value is not None}
    free = runner.run(prepare(RunConfig.parse(values), source=source), tmp_path)
    told_values = {key: value for key, value in values.items() if key not in WATCH}
    told = runner.run(prepare(RunConfig.parse(told_values), source=source), tmp_path)
    assert free.parent.parent.name == "stripes-shift-task_free"
    events = [event for event in read_events(free) if event["event"] == "segment"]
    assert [(event["start"], event["changes"], event["origins"]) for event in events] == [
        (0, [], [[0, 40], [1, 40]]), (80, [80], [[2, 40], [3, 40]]),
    ]  # fmt: skip
    domains = [event for event in read_events(free) if event["event"] == "domain"]
    assert [(event["domain"], event["changed"]) for event in domains] == [
        ("clean", False), ("inversion", True),
    ]  # fmt: skip
    mine, theirs = (read_predictions(folder) for folder in (free, told))
    ends = [each[each["experience"] == each["experience"].max()] for each in (mine, theirs)]
    assert [len(each) for each in ends] == [80, 80]
    assert sorted(ends[0]["sample"]) == list(range(80)), "20 images in 4 experiences"
    # What was tested in which experience of the truth, recovered from the numbers.
    experience, image = np.divmod(ends[0]["sample"].to_numpy(), 20)
    truth = ends[1].set_index(["target_experience", "sample"])["target"]
    assert (
        truth.loc[list(zip(experience, image, strict=True))].tolist() == ends[0]["target"].tolist()
    )


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


def test_every_detector_of_ours_can_watch() -> None:
    needed = max(kind.min_samples for kind in DETECTORS.values())
    with pytest.raises(
        InputError, match="recipe key `window`: Input should be greater than or equal to 20"
    ):
        config(window=needed - 1)
    with pytest.raises(InputError, match="recipe key `reference`: .* to 20"):
        config(reference=needed - 1)
    for name in DETECTORS:
        assert Watch(detector=name, false_alarm=0.0005).finder(4) is not None
        RunConfig.parse({"strategy": "lae", MARK: name})


def test_bad_recipes_end_in_one_sentence(source: ImageSource) -> None:
    with pytest.raises(InputError, match="key `window` must go with key `task_free`, got 40 alone"):
        RunConfig.parse({"strategy": "lae", "window": 40})
    with pytest.raises(InputError, match="unknown detector 'mahalanobi'.*mahalanobis"):
        prepare(config(task_free="mahalanobi"), source=source)
    with pytest.raises(InputError, match="must hold the reference and a window, 40 images, got 39"):
        prepare(config(max_images=39), source=source)
    plain = RunConfig.parse({"strategy": "lae"}).model_dump()
    assert not {MARK, "window", "reference", "patience", "false_alarm", "max_images"} & set(plain)


DATA = Path("../shared/data/gtsrb_64.parquet")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the traffic signs are not beside the checkout")
def test_new_traffic_signs_are_announced() -> None:
    """GTSRB, 8 + 5 x 7 classes at 96 px: every boundary found, at most one announced in vain."""
    values = {**read_recipe(Path("benchmarks/recipes/gtsrb.toml")), "strategy": "simplecil"}
    prepared = prepare(RunConfig.parse({**values, MARK: "mmd"}))
    assert prepared.plan.hidden is not None
    truth = prepared.plan.hidden.truth
    changes = [change for each in truth for change in each["changes"]]  # type: ignore[attr-defined]
    scores = score_boundaries(
        changes, [each["announced"] for each in truth[1:]], sum(map(len, prepared.plan.train))
    )  # type: ignore[arg-type]
    assert scores["found"] == scores["changes"] == 5
    assert scores["false_alarms"] <= 1
    assert scores["delay"] <= 200, "of some 700 images an experience"
