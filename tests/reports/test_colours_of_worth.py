"""Nothing is painted as good that is worse: tables and heat maps against a list made by hand."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cl_adapters.reports.definitions import COLUMNS, DETECTION_COLUMNS, Column
from cl_adapters.reports.figures.cells import CELL_COLOURS, WRONG_COLOURS
from cl_adapters.reports.figures.confusion import confusion_figure, confusion_of
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.matrix import matrix_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.growth import History
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.sections.growth import read_histories
from cl_adapters.reports.seeds import mean_interval
from cl_adapters.reports.tables import growth as growth_tables
from cl_adapters.reports.tables.comparison import comparison_table
from cl_adapters.reports.tables.growth import DetectionTable
from cl_adapters.reports.tables.markup import best_of
from cl_adapters.reports.tables.paired import rank_table
from cl_adapters.reports.tables.retrieval import RETRIEVAL_MEASURES
from cl_adapters.reports.tables.scores import ScoreTable
from tests.reports.conftest import MakeRun
from tests.reports.growing import write_growth

# By what a reader wants, not by what the code says.
WANTED_HIGH = {
    "a_last_micro", "a_last_task_mean", "a_avg_micro", "a_avg_task_mean", "bwt",
    "fwt_without_baseline", "changes_found", "reuse_on_recurrence", "right_adapter",
    "right_first_adapter", "saved",
}  # fmt: skip
WANTED_LOW = {
    "forgetting_from_best", "forgetting_from_best_before", "forgetting_from_first", "ece", "nll",
    "added_parameters", "train_seconds", "evaluation_seconds", "passes_per_image",
    "peak_mebibytes", "kept_mebibytes", "changes_missed", "false_alarms", "delay_windows", "delay_images", "spoiled",
}  # fmt: skip
EVERY = (*COLUMNS, *DETECTION_COLUMNS, *RETRIEVAL_MEASURES)


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


@pytest.mark.parametrize("column", EVERY, ids=[column.name for column in EVERY])
def test_the_better_of_two_is_painted_also_below_zero(column: Column) -> None:
    for low, high in ((1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0), (0.0, 1e-9)):
        marks = best_of(column, [mean_interval(np.array([v])) for v in (low, high)], [True, True])
        if column.name in WANTED_HIGH:
            assert marks == [False, True]
        elif column.name in WANTED_LOW:
            assert marks == [True, False]
        else:
            assert marks == [False, False]


@pytest.fixture
def group(make_run: MakeRun, tmp_path: Path) -> Group:
    for seed in (0, 1, 2):
        make_run("lae", seed, decay=0.02)
        make_run("finetune", seed, decay=0.25)
    return _group(tmp_path)


def _painted(table: ScoreTable, name: str) -> dict[str, bool]:
    (column,) = (each for each in table.columns if each.name == name)
    labels = [row.label for row in table.rows]
    return dict(zip(labels, (cell.is_best for cell in table.cells(column)), strict=True))


def test_who_forgets_more_is_never_painted(group: Group) -> None:
    table, ranks = comparison_table(group), rank_table(group)
    assert ranks is not None
    for name in ("forgetting_from_best", "forgetting_from_first", "bwt", "a_last_micro", "nll"):
        assert _painted(table, name) == {"lae": True, "finetune": False}
    for name in ("forgetting_from_best", "a_last_micro"):
        assert _painted(ranks, name) == {"lae": True, "finetune": False}


def _light(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    return colours[:, :3] @ np.array([0.2126, 0.7152, 0.0722])


def test_more_accuracy_is_lighter(group: Group) -> None:
    light = _light(CELL_COLOURS(np.linspace(0, 1, 21)))
    assert (np.diff(light) > 0).all()
    with figure_style():
        (heat,) = matrix_figure(group, group.rows[0]).axes
    cells, scale = heat.images
    assert cells.cmap is scale.cmap is CELL_COLOURS
    # The scale has the most above, as its labels have.
    assert np.asarray(scale.get_array()).ravel()[[0, -1]].tolist() == [100, 0]


def test_errors_go_to_another_colour_than_what_is_right(group: Group) -> None:
    (row,) = (row for row in group.rows if row.label == "finetune")
    confusion = confusion_of(row)
    with figure_style():
        (heat,) = confusion_figure(group, row, confusion).axes
    images = {image.get_gid(): image for image in heat.images}
    right = np.ma.filled(images["confusion-cells"].get_array(), np.nan)
    wrong = np.ma.filled(images["confusion-cells-wrong"].get_array(), np.nan)
    size = len(confusion.names)
    for i in range(size):
        for j in range(size):
            shown, other = (right, wrong) if i == j else (wrong, right)
            assert shown[i, j] == confusion.shares[i, j]
            assert np.isnan(other[i, j])
    assert images["confusion-cells"].cmap is CELL_COLOURS
    assert images["confusion-cells-wrong"].cmap is WRONG_COLOURS
    # Much that is wrong is red and dark beside much that is right; none of both is the same.
    (good, bad), (none, nothing) = (
        [np.array([cmap(share)]) for cmap in (CELL_COLOURS, WRONG_COLOURS)] for share in (1.0, 0.0)
    )
    assert _light(good)[0] > 2 * _light(bad)[0]
    assert bad[0, 0] > 2 * bad[0, 1]
    assert none == pytest.approx(nothing, abs=0.005)


def test_a_detector_that_never_fires_is_not_painted_for_its_silence(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sema", "careful", "silent"):
        write_growth(make_run(name, sizes=(1,) * 4, per_class=4), ("a", "b", "a", "c"), seed=0)
    loaded = load_runs([tmp_path / "runs"])
    by_folder = read_histories(loaded)
    (group,) = group_runs(loaded.finished)
    histories = {row.label: [by_folder[run.folder] for run in row.runs] for row in group.rows}
    alarms = {"sema": 2, "careful": 1, "silent": 0}
    names = {id(history): label for label, (history,) in histories.items()}

    def found(history: History) -> dict[str, float]:
        name = names[id(history)]
        values = dict.fromkeys((column.name for column in DETECTION_COLUMNS), 1.0)
        return values | {"changes_found": float(name != "silent"), "false_alarms": alarms[name]}

    monkeypatch.setattr(growth_tables, "detection", found)
    table = DetectionTable(group, histories).scores
    painted = {"sema": False, "careful": True, "silent": False}
    assert _painted(table, "false_alarms") == painted
