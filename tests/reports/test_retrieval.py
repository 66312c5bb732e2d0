"""What a run chose, against plain loops; damaged records."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cl_adapters.errors import InputError
from cl_adapters.records.tables import (
    read_predictions,
    write_predictions,
    write_retrieval,
)
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.retrieval import (
    choice_figure,
    correction_figure,
)
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from cl_adapters.reports.retrieval import (
    confusion,
    measure_retrieval,
    rounds_used,
    shares,
)
from cl_adapters.reports.sections.retrieval import read_retrievals
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event
from tests.reports.retrieving import (
    choose,
    drift_matrix,
    hand,
    load_section,
    measured,
    retrieval_frame,
    write_retrieving,
)


def test_hand_made_rows_give_the_shares_worked_out_by_hand() -> None:
    found = {name: values.tolist() for name, values in shares(hand(), 2).items()}
    assert all(math.isnan(values[0]) for values in found.values())  # nothing after the first
    assert {name: values[1] for name, values in found.items()} == pytest.approx(
        {
            "right_adapter": 100 * 4 / 6,
            "right_first_adapter": 100 * 3 / 6,
            "corrected": 100 * 3 / 6,
            "saved": 100 * 2 / 6,
            "spoiled": 100 * 1 / 6,
            "rounds": (1 + 2 + 2 + 3 + 1 + 2) / 6,
        }
    )
    # Where experience 1 continued what experience 0 brought, adapter 0 is right for both.
    one = shares(hand(), 2, [0, 0])["right_adapter"][1]
    assert one == pytest.approx(100 * (hand().query("experience == 1")["adapter"] == 0).mean())
    assert confusion(hand(), 2).tolist() == [[50.0, 50.0], [0.0, 100.0]]
    rounds = rounds_used(hand(), 2)
    assert np.isnan(rounds[0]).all()
    assert rounds[1].tolist() == pytest.approx([100 * 2 / 6, 100 * 3 / 6, 100 * 1 / 6])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_agree_with_plain_loops(make_run: MakeRun, tmp_path: Path, seed: int) -> None:
    frame = write_retrieving(make_run("mos", seed, sizes=(2, 3, 1)), seed=seed, wrong_first=0.5)
    found = measured(tmp_path)
    for t in range(3):
        rows = [row for row in frame.itertuples() if row.experience == t]
        counts = dict.fromkeys(found.shares, 0)
        lengths = [0] * found.rounds.shape[1]
        for row in rows:
            counts["right_adapter"] += row.adapter == row.target_experience
            counts["right_first_adapter"] += row.visited[0] == row.target_experience
            counts["corrected"] += row.visited[0] != row.visited[-1]
            counts["saved"] += row.prediction == row.target != row.uncorrected
            counts["spoiled"] += row.uncorrected == row.target != row.prediction
            counts["rounds"] += len(row.visited)
            lengths[len(row.visited) - 1] += 1
        for name, values in found.shares.items():
            unit = 1 if name == "rounds" else 100
            assert values[t] == pytest.approx(unit * counts[name] / len(rows)), name
        assert found.rounds[t].tolist() == pytest.approx([100 * n / len(rows) for n in lengths])
    for i in range(3):
        mine = [
            row for row in frame.itertuples() if (row.experience, row.target_experience) == (2, i)
        ]
        for k in range(3):
            share = 100 * sum(row.adapter == k for row in mine) / len(mine)
            assert found.confusion[i, k] == pytest.approx(share)
    assert found.drift is not None
    assert found.drift.tolist() == drift_matrix(3)


def test_images_of_experiences_to_come_take_no_part(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("mos", sizes=(1, 1, 1), sees_future=True)
    frame = write_retrieving(folder)
    seen = frame[frame["target_experience"] <= frame["experience"]]
    assert len(seen) < len(frame)
    found = measured(tmp_path)
    assert found.shares["right_first_adapter"].tolist() == pytest.approx(
        [
            100 * np.mean([row.visited[0] == row.target_experience for row in rows.itertuples()])
            for _, rows in seen.groupby("experience")
        ]
    )


def test_an_experience_that_was_not_evaluated_is_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("mos", sizes=(1, 1, 1))
    predictions = read_predictions(folder)
    write_predictions(folder, predictions[predictions["experience"] != 1])
    write_retrieving(folder)
    found = measured(tmp_path)
    for values in found.shares.values():
        assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(found.rounds).all(axis=1).tolist() == [False, True, False]
    write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    text = (tmp_path / "report" / "tables" / "digits-retrieval-runs.csv").read_text()
    line = next(line for line in csv.DictReader(io.StringIO(text)) if line["experience"] == "1")
    assert line["saved"] == line["rounds"] == ""


def test_one_experience_and_no_corrections(make_run: MakeRun, tmp_path: Path) -> None:
    choose(make_run, 1, wrong_first=0.9)
    found = measured(tmp_path)
    assert found.confusion.tolist() == found.rounds.tolist() == [[100.0]]
    assert found.shares["rounds"].tolist() == [1.0]
    assert found.shares["corrected"].tolist() == [0.0]
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert "digits-retrieval-01-mos.svg" in {path.name for path in summary.files}


def test_a_run_that_never_corrects_is_all_kept(make_run: MakeRun, tmp_path: Path) -> None:
    choose(make_run, 3, wrong_first=0.0)
    found = measured(tmp_path)
    assert found.rounds.tolist() == [[100.0]] * 3
    for name in ("corrected", "saved", "spoiled"):
        assert found.shares[name].tolist() == [0.0] * 3
    assert found.shares["right_first_adapter"].tolist() == found.shares["right_adapter"].tolist()


def test_seeds_may_differ_in_the_most_adapters_asked(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run("mos", 0), wrong_first=0.0)
    write_retrieving(make_run("mos", 1), wrong_first=0.9, max_rounds=7)
    group, section = load_section(tmp_path)
    few, many = section.retrievals["mos"]
    assert few.rounds.shape[1] == 1
    assert many.rounds.shape[1] == 7
    with figure_style():
        for draw in (choice_figure, correction_figure):
            draw(group, section.rows[0], [few, many]).draw_without_rendering()
    lines = list(csv.DictReader(io.StringIO(section.files()["digits-retrieval-rounds.csv"])))
    for seed in "01":
        for t in "0123":
            mine = [line for line in lines if (line["seed"], line["experience"]) == (seed, t)]
            assert sum(float(line["share"]) for line in mine) == pytest.approx(100, abs=1e-4)


def test_a_seed_without_records_is_left_out_and_not_its_method(
    make_run: MakeRun, tmp_path: Path
) -> None:
    choose(make_run, seeds=2)
    make_run("mos", 2, sizes=(1,) * 4)
    make_run("lae", 0, sizes=(1,) * 4)
    _, section = load_section(tmp_path)
    assert [(row.label, row.seeds) for row in section.rows] == [("mos", [0, 1])]
    (line,) = csv.DictReader(io.StringIO(section.files()["digits-retrieval.csv"]))
    assert (line["num_seeds"], line["seeds"]) == ("2", "0 1")


Change = Callable[[pd.DataFrame], pd.DataFrame]
DAMAGES: list[tuple[Change, str]] = [
    (lambda frame: frame.assign(adapter=(frame["adapter"] + 1) % 2), "adapter must be the last"),
    (lambda frame: frame.assign(visited=[[]] * len(frame)), "visited must list at least one"),
    (lambda frame: frame.assign(visited=None), "visited must list at least one"),
    (lambda frame: frame.assign(visited=[[-1, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(visited=[[1, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(visited=[[None, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(adapter=9), r"adapter must lie in \[0, 4\)"),
    (lambda frame: frame.assign(uncorrected=8), r"uncorrected must lie in \[0, 8\)"),
    (lambda frame: frame.assign(target_experience=-1), "target_experience must lie in"),
    (lambda frame: frame.assign(uncorrected=None), "uncorrected must hold whole numbers only"),
    (lambda frame: pd.concat([frame, frame.iloc[:1]]), "a sample must stand once"),
    (lambda frame: frame[frame["experience"] < 3], "must be those of predictions.parquet"),
    (lambda frame: frame.assign(prediction=frame["target"]), "must be those of predictions"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGES)
def test_a_damaged_table_is_refused(
    make_run: MakeRun, tmp_path: Path, change: Change, message: str
) -> None:
    folder = make_run("mos")
    write_retrieval(folder, change(retrieval_frame(read_predictions(folder))))
    (run,) = load_runs([tmp_path / "runs"]).finished
    with pytest.raises(InputError, match=message):
        measure_retrieval(run)


def reason_with_drift(runs: Path, experience: int, distances: object) -> str:
    """Adds a drift event to the only run and returns why it is broken then."""
    (run,) = load_runs([runs]).finished
    append_event(run.folder, "drift", experience, 0, distances=distances)
    loaded = load_runs([runs])
    assert read_retrievals(loaded) == {}
    (broken,) = loaded.broken
    return broken.reason


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ([[0.0]], "must be a square of 4 rows"),
        ([[0.0, 1.0]] * 4, "must be a square, a row and a column an adapter"),
        ([[0.0, 1.0, -0.5, 1.0]] * 4, "must not be negative"),
        ([[0.0, 1.0, -math.inf, 1.0]] * 4, "must not be negative"),
        ([["0", 1.0, 1.0, 1.0]] * 4, "distances.0.0"),
        (None, "distances of a drift event"),
    ],
)
def test_a_damaged_drift_is_refused(
    make_run: MakeRun, tmp_path: Path, distances: object, message: str
) -> None:
    choose(make_run, step=None)
    assert message in reason_with_drift(tmp_path / "runs", 3, distances)


@pytest.mark.parametrize(("experience", "size"), [(3, 4), (4, 5)])
def test_a_drift_stands_once_and_within_the_run(
    make_run: MakeRun, tmp_path: Path, experience: int, size: int
) -> None:
    choose(make_run)
    reason = reason_with_drift(tmp_path / "runs", experience, drift_matrix(size))
    assert "must stand once per experience in [0, 4)" in reason
    assert reason.endswith(f"got experience {experience}")
