"""Runs and reports over shift streams."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import Progress
from cl_adapters.benchmarks.streams.shifts import (
    CLEAN,
    Schedule,
)
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.streams.striped import make_source
from tests.cli.test_cli import call
from tests.marks import by_default

BACKBONE = {"backbone": "test_vit", "weights": "random", "image_size": 32}
SHORT = {"num_experiences": 4, "changes": 2, "recurring": 1}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return make_source([12, 8, 10])


def config(**changes: Any) -> RunConfig:
    strategy = changes.get("strategy", "simplecil")
    options: dict[str, Any] = {} if strategy == "simplecil" else {"epochs": 2, "batch_size": 8}
    if strategy == "lae":
        options["freeze_epochs"] = 1
    values = {"strategy": strategy, "scenario": "shift", "options": options, **BACKBONE, **SHORT}
    return RunConfig.parse({**values, **changes})


class Count(Progress):
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, title: str, total: int) -> None:
        self.total = total

    def advance(self, text: str, images: int) -> None:
        self.done += images


@pytest.mark.parametrize(
    "strategy", by_default(["lae", "simplecil", "finetune", "joint"], ["simplecil"])
)
def test_strategies_run_and_resume_without_new_classes(
    source: ImageSource, tmp_path: Path, interrupted_at: InterruptedAt, strategy: str
) -> None:
    progress = Count()
    prepared = prepare(config(strategy=strategy), source=source)
    folder = runner.run(prepared, tmp_path / "straight", progress=progress)
    assert prepared.strategy.classes_by_experience == [(0, 1, 2)] * 4
    # 30 train images, 15 test images after each of four experiences for each one so far.
    assert progress.total == (1 if strategy == "simplecil" else 2) * 30 + 15 * (1 + 2 + 3 + 4)
    assert progress.done == progress.total or strategy == "joint", "joint repeats older images"
    with interrupted_at(2):
        runner.run(prepare(config(strategy=strategy), source=source), tmp_path / "killed")
    again = runner.run(prepare(config(strategy=strategy), source=source), tmp_path / "killed")
    pd.testing.assert_frame_equal(
        read_predictions(again), read_predictions(folder), check_exact=True
    )
    kinds = [event.event for event in read_events(again)]
    assert kinds.count("domain") == 4


def test_records_hold_the_truth_and_one_protocol_for_all_seeds(
    source: ImageSource, tmp_path: Path
) -> None:
    folders = [runner.run(prepare(config(seed=seed), source=source), tmp_path) for seed in (0, 1)]
    records = [RunRecord.read(folder) for folder in folders]
    assert folders[0].parent == tmp_path / "rows-shift" / "simplecil"
    assert records[0].stream == "rows-shift"
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].fingerprint["changed"] == [False, False, True, True]
    assert records[0].experiences == [[0, 1, 2]] * 4
    (events,) = ([e.as_line() for e in read_events(f) if e.event == "domain"] for f in folders[:1])
    names = [domain.name for domain in Schedule(**SHORT).domains(0)]
    assert names[:2] == [CLEAN, CLEAN]
    assert names[3] == CLEAN
    assert events == [
        {
            "event": "domain", "experience": t, "seconds": 0, "domain": names[t],
            "changed": t in (2, 3), "seen_before": t in (1, 3),
            "severity": float(names[t] != CLEAN),
        }
        for t in range(4)
    ]  # fmt: skip
    RunConfig.parse(records[0].config)  # the recipe that repeats the run
    assert records[0].config["scenario"] == "shift"
    assert "increment" not in records[0].config


def test_reports_measure_runs_whose_classes_return(source: ImageSource, tmp_path: Path) -> None:
    """The accuracies by plain loops over the predictions."""
    folder = runner.run(prepare(config(), source=source), tmp_path)
    (run,) = load_runs([tmp_path]).finished
    rows = read_predictions(folder).to_dict("records")
    matrix = np.full((4, 4), np.nan)
    for t in range(4):
        for i in range(t + 1):
            cell = [r for r in rows if (r["experience"], r["target_experience"]) == (t, i)]
            assert sorted(row["sample"] for row in cell) == list(range(15))
            matrix[t, i] = 100 * sum(r["target"] == r["prediction"] for r in cell) / 15
    np.testing.assert_allclose(run.matrix, matrix)
    averages = [np.nanmean(matrix[t]) for t in range(4)]
    assert run.values["a_last_micro"] == pytest.approx(averages[3])
    assert run.values["a_avg_micro"] == pytest.approx(np.mean(averages))
    drops = [max(matrix[i:, i]) - matrix[3, i] for i in range(3)]
    assert run.values["forgetting_from_best"] == pytest.approx(np.mean(drops))
    assert not math.isnan(run.values["ece"])
    for label in range(3):
        mine = [r for r in rows if r["experience"] == 3 and r["target"] == label]
        share = sum(r["prediction"] == label for r in mine) / len(mine)
        assert run.classes[label] == pytest.approx(100 * share)
    (group,) = group_runs([run])
    assert group.rows[0].classes_seen == [3, 3, 3, 3]
    assert group.rows[0].progress == [1, 2, 3, 4]
    assert group.progress_heading == "Number of experiences learned"


@pytest.mark.slow
def test_digits_shift_from_command_to_report(tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text("test_images = 30\n")
    code, text = call(
        "run", "--strategy", "simplecil", "--stream", "digits-shift", "--recipe", str(recipe),
        "--shifts", "rotation,inversion,contrast,colour", "--backbone", "test_vit",
        "--weights", "random", "--image-size", "32", "--out", str(tmp_path / "runs"), "--quiet",
    )  # fmt: skip
    assert code == 0, text
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    assert folder.parent == tmp_path / "runs" / "digits-shift" / "simplecil"
    domains = [event for event in read_events(folder) if event.event == "domain"]
    assert sum(event.changed for event in domains) == 6
    assert sum(event.changed and event.seen_before for event in domains) == 2
    code, text = call("report", str(tmp_path / "runs"), "--out", str(tmp_path / "report"))
    assert code == 0, text
    assert "digits-shift" in text
    (matrix,) = (tmp_path / "report").rglob("digits-shift-matrix.csv")
    with matrix.open() as file:
        assert sum(1 for _ in file) == 1 + 14 * 15 / 2
    code, text = call("list", "streams")
    assert "digits-shift" in text
    assert "--scenario domain" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shifts": "blur,rotate"}, "unknown kind of shift 'rotate'; did you mean 'rotation'"),
        ({"shifts": "blur,blur"}, "shifts must hold each kind once, got 'blur' twice"),
        (
            {"shifts": "blur", "changes": 3},
            "shifts must name a kind for each new domain, changes - recurring = 2, got 1",
        ),
        ({"severity": 1.5}, r"severity must lie in \[0, 1\], got 1.5"),
        ({"transition": "slow"}, "recipe key `transition`: .*'gradual', got 'slow'"),
        ({"num_experiences": 0}, "num_experiences must be at least 1, got 0"),
        ({"changes": 4}, "changes must be from 0 to num_experiences - 1, 3, got 4"),
        ({"recurring": 2}, "recurring must be from 0 to changes - 1, 1, got 2"),
        (
            {"num_experiences": 9},
            "num_experiences must be at most the number of train images of every class, 8 of '1'",
        ),
        ({"test_images": 2}, "test_images must be at least the number of classes, 3, got 2"),
        ({"scenario": "shifts"}, "recipe key `scenario`: .*'shift'.*got 'shifts'"),
        ({"increment": 2}, "recipe key `increment` must go with scenario 'class', got 'shift'"),
        ({"scenario": "class"}, "recipe key `num_experiences` must go with scenario 'shift'"),
        (
            {"scenario": "class", "stream": "digits-shift"},
            "scenario of stream 'digits-shift' must be 'shift', got 'class'",
        ),
    ],
)
def test_bad_shift_recipes_end_in_one_sentence(
    source: ImageSource, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(config(**changes), source=source)


def test_a_name_with_shift_is_the_source_with_the_scenario() -> None:
    short = RunConfig.parse({"strategy": "lae", "stream": "digits-shift"})
    assert (short.stream, short.scenario) == ("digits", "shift")
    assert short == RunConfig.parse({"strategy": "lae", "stream": "digits", "scenario": "shift"})


def test_recipes_without_a_scenario_are_recorded_as_they_were() -> None:
    recorded = RunConfig.parse({"strategy": "lae", "increment": 5}).model_dump(mode="json")
    assert recorded["increment"] == 5
    assert not {"scenario", "domain_order", "shifts", "severity", "changes"} & set(recorded)
