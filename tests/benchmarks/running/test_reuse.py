"""Runs that differ only in evaluation: trained once, and the same predictions as if trained twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_adapters.benchmarks.data.sources import ImageSource, array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.reuse import find_trained
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.strategies.core.strategy import AdapterStrategy
from tests.marks import by_default


@pytest.fixture(scope="module")
def source() -> ImageSource:
    generator = np.random.default_rng(0)

    def images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(6), per_class)
        pixels = generator.integers(0, 200, (len(targets), 12, 12, 3), dtype=np.uint8)
        pixels[..., 0] += (9 * targets).astype(np.uint8)[:, None, None]
        return pixels, targets

    return array_source("noise", images(6), images(4))


def run(
    source: ImageSource, out: Path, *, restart: bool = False, of: str = "mos", **options: Any
) -> Path:
    if of == "mos":
        options = {"alignment_epochs": 2, **options}
    config = RunConfig.parse(
        {
            "strategy": of,
            "backbone": "test_vit",
            "weights": "random",
            "image_size": 32,
            "options": {"epochs": 1, "batch_size": 8, **options},
        }
    )
    return runner.run(prepare(config, source=source), out, restart=restart)


def kinds(folder: Path) -> list[tuple[str, int]]:
    return [(event.event, event.experience) for event in read_events(folder)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Experiences that were trained from now on."""
    trained: list[int] = []
    before: Callable[..., Any] = AdapterStrategy.train

    def train(strategy: AdapterStrategy, experience: Any, **arguments: Any) -> Any:
        trained.append(experience.current_experience)
        return before(strategy, experience, **arguments)

    monkeypatch.setattr(AdapterStrategy, "train", train)
    return trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"retrieval": False},
        {"ensemble": False, "rounds": 1},
        {"of": "ease", "mapped": False},
        {"of": "ease", "alpha": 0.5, "scale": 3.0},
        {"of": "ease", "reweight": False},
    ],
)
def test_a_run_that_only_evaluates_otherwise_equals_one_that_trained(
    source: ImageSource, tmp_path: Path, counted: list[int], change: dict[str, Any]
) -> None:
    alone = run(source, tmp_path / "alone", **change)
    run(source, tmp_path / "shared", of=change.get("of", "mos"))
    counted.clear()
    shared = run(source, tmp_path / "shared", **change)
    assert counted == []
    pd.testing.assert_frame_equal(read_predictions(shared), read_predictions(alone))
    assert [each for each in kinds(shared) if each[0] != "reused"] == kinds(alone)
    donor = [event.run for event in read_events(shared) if event.event == "reused"]
    assert len(donor) == 3
    assert (shared.parent / donor[0]).is_dir()
    phases = [event for event in read_events(shared) if event.event == "phase"]
    assert all(event.seconds > 0 for event in phases)


@pytest.mark.parametrize(
    "change",
    by_default(
        [{"lr": 0.01}, {"merge": "none", "retrieval": False}, {"alignment": False}],
        [{"merge": "none", "retrieval": False}],
    ),
)
def test_a_run_that_learns_otherwise_trains(
    source: ImageSource, tmp_path: Path, counted: list[int], change: dict[str, Any]
) -> None:
    run(source, tmp_path)
    counted.clear()
    run(source, tmp_path, **change)
    assert counted == [0, 1, 2]


def test_where_evaluation_changes_the_model_nothing_is_shared(
    source: ImageSource, tmp_path: Path, counted: list[int]
) -> None:
    run(source, tmp_path, merge_in_evaluation=True)
    counted.clear()
    run(source, tmp_path, merge_in_evaluation=True, retrieval=False)
    assert counted == [0, 1, 2]


@pytest.mark.slow
def test_a_restart_trains_and_a_lost_checkpoint_is_trained_again(
    source: ImageSource, tmp_path: Path, counted: list[int]
) -> None:
    run(source, tmp_path)
    folder = run(source, tmp_path, retrieval=False)
    before = read_predictions(folder)
    counted.clear()
    run(source, tmp_path, retrieval=False, restart=True)
    assert counted == [0, 1, 2]
    for path in folder.parent.glob("*/checkpoints/experience-0001/learned.safetensors"):
        path.write_bytes(b"no")
    counted.clear()
    again = run(source, tmp_path, rounds=1)  # asks one adapter, as without retrieval
    assert counted == [1]
    pd.testing.assert_frame_equal(read_predictions(again), before)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": {"data": "changed on disk"}},
        {"classes": ["b", "a"]},
        {"versions": {"torch": "2"}},
        {"state": "failed"},
        {"config": {"threads": 2, "options": {"lr": 0.1, "rounds": 4}}},
        {"config": {"threads": 1, "options": {"lr": 0.2, "rounds": 4}}},
    ],
)
def test_training_is_taken_from_a_run_that_differs_in_evaluation_alone(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    same: dict[str, Any] = {
        "strategy": "mos", "stream": "digits", "seed": 0, "fingerprint": {"data": "ab"},
        "classes": ["a", "b"], "experiences": [[0], [1]], "versions": {"torch": "1"},
    }  # fmt: skip
    options = {"lr": 0.1, "rounds": 4}
    planned = RunRecord(**same, config={"threads": 1, "options": {**options, "rounds": 1}})
    other = {"config": {"threads": 1, "options": options}, "state": "finished", **same}
    place = tmp_path / "seed0-0123abcd"
    RunRecord(**other).write(place)
    assert find_trained(tmp_path / "new", planned, {"rounds"}) == place
    assert find_trained(tmp_path / "new", planned, ()) is None
    RunRecord(**{**other, **change}).write(place)
    assert find_trained(tmp_path / "new", planned, {"rounds"}) is None
