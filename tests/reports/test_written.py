"""What a report says of a run is what plain loops find in the files that the run itself wrote."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.reports.load import Run, load_runs
from tests.benchmarks.killable import config, stripes

TESTED = 12  # images a class
# Faint enough that some images are mistaken.
SOURCE = stripes(train=12, test=TESTED, noise=200, row=30)


def run_mos(out: Path, **options: bool) -> Path:
    recipe = config("mos", options={"alignment": False, **options})
    return runner.run(prepare(recipe, source=SOURCE), out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MOS over three experiences, whose last adapter is asked again where it disagrees."""
    return run_mos(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def read(folder: Path) -> Run:
    (found,) = load_runs([folder]).finished
    return found


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, float]]:
    return pd.read_parquet(folder / "predictions.parquet").to_dict("records")


@pytest.fixture(scope="module")
def events(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_accuracies_are_those_of_the_rows(read: Run, rows: list[dict[str, float]]) -> None:
    accuracies = []
    for experience in range(3):
        right = wrong = 0
        for row in rows:
            if row["experience"] == experience and row["target_experience"] <= experience:
                right += row["prediction"] == row["target"]
                wrong += row["prediction"] != row["target"]
        assert (right + wrong) == TESTED * 2 * (experience + 1)
        accuracies.append(100 * right / (right + wrong))
    assert read.values["a_last_micro"] == pytest.approx(accuracies[-1])
    assert read.values["a_avg_micro"] == pytest.approx(sum(accuracies) / 3)
    assert accuracies[-1] != pytest.approx(sum(accuracies) / 3), (
        "else the two could not be told apart"
    )


def test_calibration_error_is_that_of_the_last_rows(
    read: Run, rows: list[dict[str, float]]
) -> None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        if row["experience"] == 2:
            place = min(math.ceil(15 * row["confidence"]) - 1, 14)
            bins.setdefault(place, []).append(
                (row["confidence"], row["prediction"] == row["target"])
            )
    total = sum(len(each) for each in bins.values())
    expected = sum(
        abs(sum(sure for sure, _ in each) - sum(right for _, right in each))
        for each in bins.values()
    )
    assert read.values["ece"] == pytest.approx(100 * expected / total)


def test_costs_are_those_of_the_events(read: Run, events: list[dict[str, float]]) -> None:
    memory = [each["peak_bytes"] for each in events if each["event"] == "memory"]
    assert len(memory) == 3
    assert read.values["peak_mebibytes"] == pytest.approx(max(memory) / 2**20)
    for name, event in (("train_seconds", "phase"), ("evaluation_seconds", "evaluation")):
        seconds = [each["seconds"] for each in events if each["event"] == event]
        assert read.values[name] == pytest.approx(sum(seconds))
    kept = read.folder / "checkpoints" / "experience-0002" / "learned.safetensors"
    assert read.values["kept_mebibytes"] == pytest.approx(len(kept.read_bytes()) / 2**20)
    passes = [each["passes"] for each in events if each["event"] == "evaluation"]
    assert read.values["passes_per_image"] == pytest.approx(passes[-1])


def test_uncorrected_answers_are_those_of_a_run_that_corrects_nothing(
    folder: Path, tmp_path: Path
) -> None:
    plain = run_mos(tmp_path, retrieval=False)
    expected = pd.read_parquet(plain / "predictions.parquet")["prediction"]
    retrieval = pd.read_parquet(folder / "retrieval.parquet")
    assert retrieval["uncorrected"].tolist() == expected.tolist()
    corrected = pd.read_parquet(folder / "predictions.parquet")["prediction"]
    assert corrected.tolist() != expected.tolist(), "else the two could not be told apart"


def test_a_runs_seconds_hold_those_of_all_its_experiences(
    read: Run, events: list[dict[str, float]]
) -> None:
    by_experience = [0.0] * 3
    for each in events:
        if each["event"] in {"phase", "evaluation"}:
            by_experience[int(each["experience"])] += each["seconds"]
    assert all(by_experience)
    assert read.record.seconds >= sum(by_experience)
