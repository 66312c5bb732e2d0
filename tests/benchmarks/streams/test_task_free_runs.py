"""Task-free runs with every method, reports, and real data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.benchmarks.streams.watch import BoundaryDetector, Watch
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.boundaries import score_boundaries
from cl_adapters.shift import DETECTORS
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.streams.flows import MARK, at

BACKBONE = {"backbone": "test_vit", "weights": "random", "image_size": 32}
# Small methods, and a stream of which a detector can know 20 images.
QUICK = {
    "sema": {"epochs": 1, "detector": "mahalanobis", "detect_batch_size": 20},
    "mos": {"epochs": 1, "alignment_epochs": 2},
    "lae": {"epochs": 1, "freeze_epochs": 0},
    "simplecil": {},
}
WATCH = {"task_free": "mahalanobis", "reference": 20, "window": 20}


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


@pytest.mark.slow
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
    events = [event for event in read_events(folder) if event.event == "segment"]
    assert [event.experience for event in events] == [0, 1, 2, 3]
    assert [event.delay for event in events] == [None, 20, 20, 20]
    assert [event.announced for event in events] == [None, 60, 100, 140]
    assert [event.changes for event in events] == [[], [40], [80], [120]]


@pytest.mark.parametrize(
    "strategy", ["lae", *(pytest.param(each, marks=pytest.mark.slow) for each in ("sema", "mos"))]
)
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
    assert [event for event in read_events(folder) if event.event == "segment"] == [
        event for event in read_events(straight) if event.event == "segment"
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
    events = [event for event in read_events(free) if event.event == "segment"]
    assert [(event.start, event.changes, event.origins) for event in events] == [
        (0, [], [[0, 40], [1, 40]]), (80, [80], [[2, 40], [3, 40]]),
    ]  # fmt: skip
    domains = [event for event in read_events(free) if event.event == "domain"]
    assert [(event.domain, event.changed) for event in domains] == [
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
    values["precision"] = "fp32"  # a processor without bfloat16 would take many times as long
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
