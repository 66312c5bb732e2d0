import csv
import io
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cl_adapters.records.tables import read_predictions, write_predictions
from cl_adapters.reports.definitions import COLUMNS, Column, format_number
from cl_adapters.reports.groups import Group
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.recipes import recipe_text
from cl_adapters.reports.seeds import mean_interval
from cl_adapters.reports.summary import sentences
from cl_adapters.reports.tables.comparison import (
    comparison_table,
    shown_columns,
    table_files,
)
from cl_adapters.reports.tables.latex import latex_table
from cl_adapters.reports.tables.markup import Cell, best_of, csv_text
from tests.reports.conftest import MakeRun, only_group

BY_NAME = {column.name: column for column in COLUMNS}


def cells(group: Group, column: Column) -> list[Cell]:
    return comparison_table(group).cells(column)


def test_every_measured_value_has_a_column(group: Group) -> None:
    assert set(group.rows[0].runs[0].values) == set(BY_NAME)
    assert len(BY_NAME) == len(COLUMNS)


def test_best_is_bold_and_the_upper_bound_never_is(group: Group) -> None:
    labels = [row.label for row in group.rows]
    assert labels == ["joint", "lae", "finetune"]
    assert [cell.is_best for cell in cells(group, BY_NAME["a_last_micro"])] == [False, True, False]
    assert [cell.is_best for cell in cells(group, BY_NAME["bwt"])] == [False, True, False]
    # All methods are level: none is best.
    assert not any(cell.is_best for cell in cells(group, BY_NAME["train_seconds"]))


def test_forward_transfer_is_absent_unless_recorded(
    group: Group, make_run: MakeRun, tmp_path: Path
) -> None:
    assert "fwt_without_baseline" not in {column.name for column in shown_columns(group)}
    make_run("lae", 7, sees_future=True)
    assert "fwt_without_baseline" in {column.name for column in shown_columns(only_group(tmp_path))}


def test_comparison_csv_equals_means_over_the_runs_csv(group: Group) -> None:
    files = table_files(group)
    comparison = list(csv.DictReader(io.StringIO(files["digits-comparison.csv"])))
    runs = list(csv.DictReader(io.StringIO(files["digits-runs.csv"])))
    for line in comparison:
        mine = [float(run["a_avg_micro"]) for run in runs if run["method"] == line["method"]]
        assert float(line["a_avg_micro_mean"]) == pytest.approx(sum(mine) / 3, abs=1e-5)
        half = 4.302653 * np.std(mine, ddof=1) / 3**0.5
        assert float(line["a_avg_micro_ci95"]) == pytest.approx(half, abs=1e-4)
        assert line["seeds"] == "0 1 2"


def test_curves_and_matrix_hold_every_point(group: Group) -> None:
    files = table_files(group)
    curves = list(csv.DictReader(io.StringIO(files["digits-curves.csv"])))
    assert [line["classes_seen"] for line in curves[:4]] == ["2", "4", "6", "8"]
    assert curves[0]["forgetting_from_best_mean"] == ""
    matrix = list(csv.DictReader(io.StringIO(files["digits-matrix.csv"])))
    assert len(matrix) == 9 * 10
    classes = list(csv.DictReader(io.StringIO(files["digits-classes.csv"])))
    assert len(classes) == 9 * 8
    assert classes[0]["class"] == "class 0"


def test_names_are_escaped_for_markdown_and_latex(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a|b_$x<i>&\\", folder=tmp_path / "runs" / "x")
    group = only_group(tmp_path)
    assert r"a\|b\_\$x\<i\>&\\" in comparison_table(group).sheet().markdown()
    assert (
        r"a\textbar{}b\_$\mathdollar$x\textless{}i\textgreater{}\&\textbackslash{}"
        in latex_table(comparison_table(group).sheet())
    )
    lines = [
        line
        for line in comparison_table(group).sheet().markdown().splitlines()
        if line.startswith("|")
    ]
    counts = {line.replace(r"\|", "").count("|") for line in lines}
    assert len(counts) == 1


def test_one_experience_shows_an_en_dash_for_forgetting(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(sizes=(4,))
    group = only_group(tmp_path)
    (cell,) = cells(group, BY_NAME["forgetting_from_best"])
    assert cell.text == "\u2013"
    assert "--" in latex_table(comparison_table(group).sheet())


def test_recipe_repeats_the_config(make_run: MakeRun) -> None:
    config = {
        "strategy": 'l"a\\e',
        "data": None,
        "increment": 10,
        "rate": 1e-5,
        "class_order": [3, 1],
        "quiet": True,
        "options": {"peft": "lora", "odd key": 0.5, "none": None},
        "empty": {},
        "seed": 3,
    }
    (run,) = load_runs([make_run(config=config)]).finished
    text = recipe_text([run.record])
    expected = {key: value for key, value in config.items() if value is not None}
    expected["options"] = {"peft": "lora", "odd key": 0.5}
    assert tomllib.loads(text) == expected


def test_summary_says_who_leads_and_how_surely(group: Group) -> None:
    first, second, cost, third = sentences(group)
    assert first.startswith("lae leads on A_last (micro) with ")
    assert first.endswith("their 95 % intervals do not overlap.")
    assert second.startswith("lae forgets least")
    assert cost.startswith("lae (")
    assert cost.endswith("is both the most accurate and the quickest to train.")
    assert third.startswith("joint, the upper bound")


def test_a_method_that_learned_nothing_is_not_praised_for_forgetting_nothing(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("good", 0, decay=0.05)
    make_run("fair", 0, decay=0.06)
    assert not any("little to forget" in each for each in sentences(only_group(tmp_path)))
    place = make_run("chance", 0)
    write_predictions(place, read_predictions(place).assign(prediction=0))
    said = sentences(only_group(tmp_path))
    assert said[1].startswith("chance forgets least")
    assert said[2].startswith("chance has little to forget: it ends at 12.5 %, the best at ")


def test_summary_is_honest_about_overlap_and_single_seeds(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", 0, decay=0.05)
    assert "nothing to compare" in sentences(only_group(tmp_path))[0]
    make_run("b", 0, decay=0.06)
    assert "single seed" in sentences(only_group(tmp_path))[0]
    make_run("c", 0, decay=0.05)
    assert sentences(only_group(tmp_path))[0].startswith("a and c are level on A_last (micro), ")
    make_run("a", 1, decay=0.06)
    make_run("b", 1, decay=0.05)
    assert "not settled" in sentences(only_group(tmp_path))[0]


def test_numbers_for_people() -> None:
    assert format_number(-0.001, 2) == "0.00"
    assert format_number(-3.0, 1) == "\u22123.0"
    assert format_number(float("inf"), 1) == "\u221e"
    assert format_number(1_234_567, 0) == "1\u202f234\u202f567"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_a_spreadsheet_would_compute_stays_text(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text(["class", "value"], [[name, -1.5]]), newline=""))
    assert row == {"class": f"'{name}".replace("\r", " "), "value": "-1.5"}


@pytest.mark.parametrize(("better", "best"), [("higher", 3.0), ("lower", 1.0), ("neither", None)])
def test_the_best_lies_where_a_column_improves(better: str, best: float | None) -> None:
    column = replace(BY_NAME["ece"], better=better)
    means = [2.0, 1.0, math.nan, 3.0, 0.5, 9.0]
    rivals = [True] * 4 + [False] * 2
    intervals = [mean_interval(np.array([mean])) for mean in means]
    found = best_of(column, intervals, rivals)
    assert found == [mean == best for mean in means]
