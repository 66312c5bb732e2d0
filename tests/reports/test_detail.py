"""Classes, confusions and calibration against pandas and scikit-learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.detail import measure_detail
from cl_adapters.reports.figures.calibration import calibration_curves
from cl_adapters.reports.figures.classes import class_curves, classes_figure
from cl_adapters.reports.figures.confusion import confusion_figure, confusion_of
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.phases import mean_phases
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.metrics import ece
from tests.reports.conftest import MakeRun, make_predictions


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


@pytest.fixture(params=[False, True], ids=["seen", "future"])
def frame(request: pytest.FixtureRequest) -> pd.DataFrame:
    return make_predictions([3, 1, 2, 4], 9, 0.2, seed=3, sees_future=request.param)


def test_counts_equal_pandas_and_scikit_learn(frame: pd.DataFrame) -> None:
    detail = measure_detail(frame, 10, {"train": 1.0})
    seen = frame[frame["target_experience"] <= frame["experience"]]
    right = (seen["target"] == seen["prediction"]).astype(float)
    expected = 100 * right.groupby([seen["experience"], seen["target"]]).mean().unstack()
    np.testing.assert_allclose(detail.class_curves, expected.to_numpy())
    last = seen[seen["experience"] == 3]
    matrix = np.zeros((10, 10), int)
    for target, guess, number in detail.confusion:
        matrix[target, guess] = number
    oracle = confusion_matrix(last["target"], last["prediction"], labels=range(10))
    assert matrix.tolist() == oracle.tolist()
    curves = calibration_curves(detail.bins)
    for t, rows in seen.groupby("experience"):
        is_right = (rows["target"] == rows["prediction"]).to_numpy()
        assert curves["accuracy"][t] == pytest.approx(100 * is_right.mean())
        assert curves["confidence"][t] == pytest.approx(100 * rows["confidence"].mean())
        assert curves["ece"][t] == pytest.approx(ece(rows["confidence"].to_numpy(), is_right))


def test_classes_are_found_by_name_whatever_their_place(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", 0, decay=0.2)
    other = make_run("lae", 1, decay=0.2)
    record = RunRecord.read(other)
    names = [f"class {position}" for position in range(8)]
    record.classes = names[::-1]
    record.write(other)
    group = _group(tmp_path)
    classes = class_curves(group.rows[0])
    assert [each.last for each in classes] == sorted(each.last for each in classes)
    frames = [read_predictions(run.folder) for run in group.rows[0].runs]
    for each in classes:
        position = int(each.name.removeprefix("class "))
        shares = [
            100 * (rows["prediction"] == rows["target"]).mean()
            for frame, place in zip(frames, (position, 7 - position), strict=True)
            for rows in [frame[(frame["experience"] == 3) & (frame["target"] == place)]]
        ]
        assert each.last == pytest.approx(sum(shares) / 2)
    # Orders differ: one seed alone is shown, and says so.
    assert confusion_of(group.rows[0]).seeds == (0,)


def test_confusion_is_the_sum_of_seeds_with_one_order(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("lae", seed)
    group = _group(tmp_path)
    found = confusion_of(group.rows[0])
    frames = [read_predictions(run.folder) for run in group.rows[0].runs]
    last = pd.concat([frame[frame["experience"] == 3] for frame in frames])
    oracle = confusion_matrix(last["target"], last["prediction"], labels=range(8), normalize="true")
    np.testing.assert_allclose(found.shares, 100 * oracle)
    assert found.seeds == (0, 1)
    assert found.starts == (2, 4, 6)


def test_figures_of_one_method_keep_inside_their_borders(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("a method with a rather long name", seed, sizes=(9,) * 4, per_class=4)
    make_run("b", sizes=(1,))
    make_run("c", sizes=(40, 30, 30), per_class=2)
    for group in group_runs(load_runs([tmp_path / "runs"]).finished):
        with figure_style():
            row = group.rows[0]
            for figure in (
                confusion_figure(group, row, confusion_of(row)),
                classes_figure(group, row),
            ):
                figure.draw_without_rendering()
                outer = figure.get_tightbbox()
                width, height = figure.get_size_inches()
                assert outer.x0 >= -0.01
                assert outer.y0 >= -0.01
                assert outer.x1 <= width + 0.01
                assert outer.y1 <= height + 0.01


def test_phases_are_summed_and_averaged(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("lae", seed)
    events = tmp_path / "runs/digits/lae"
    (folder, *_) = sorted(path.parent for path in events.rglob("events.jsonl"))
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event":"phase","experience":3,"seconds":3,"name":"merge","images":1}\n')
    assert mean_phases(_group(tmp_path).rows[0]) == pytest.approx(
        {"train": 6.0, "freeze": 2.0, "evaluation": 2.0, "merge": 1.5}
    )
