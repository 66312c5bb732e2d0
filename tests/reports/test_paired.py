"""Differences, intervals and ranks against scipy; baselines by name."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cl_adapters.errors import InputError
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.paired import (
    check_baseline,
    difference,
    find_baseline,
    mean_ranks,
    paired_rows,
)
from cl_adapters.reports.pareto import frontier
from cl_adapters.reports.report import write_report
from cl_adapters.reports.tables.paired import difference_table, rank_table, too_few_seeds
from tests.reports.conftest import MakeRun


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


def _values(group: Group, label: str, name: str) -> dict[int, float]:
    (row,) = (row for row in group.rows if row.label == label)
    return {run.record.seed: run.values[name] for run in row.runs}


@pytest.fixture
def group(make_run: MakeRun, tmp_path: Path) -> Group:
    for seed in range(4):
        make_run("simplecil", seed, decay=0.1)
        make_run("finetune", seed, decay=0.25)
        make_run("joint", seed, decay=0.0)
        if seed != 2:
            make_run("lae", seed, decay=0.08)
    return _group(tmp_path)


def test_differences_are_scipys_paired_interval(group: Group) -> None:
    baseline = find_baseline(group, None)
    assert baseline is not None
    assert baseline.label == "simplecil"
    rows = {row.label: row for row in paired_rows(group, baseline)}
    assert set(rows) == {"joint", "lae", "finetune"}
    for name in ("a_last_micro", "forgetting_from_best", "ece"):
        ones, twos = _values(group, "lae", name), _values(group, "simplecil", name)
        shared = [0, 1, 3]
        test = stats.ttest_rel([ones[s] for s in shared], [twos[s] for s in shared])
        low, high = test.confidence_interval(0.95)
        found = difference(rows["lae"], baseline, name)
        assert found.num_seeds == 3
        assert float(found.mean) == pytest.approx((low + high) / 2)
        assert float(found.half_width) == pytest.approx((high - low) / 2)


def test_difference_table_says_of_how_many_seeds_and_what_is_sure(group: Group) -> None:
    table = difference_table(group, find_baseline(group, "finetune"))
    assert table is not None
    lines = {line["label"]: line for line in table.lines()}
    assert lines["lae"]["seeds"] == "3 of 4"
    assert lines["joint"]["seeds"] == "4"
    (line,) = (each for each in csv.DictReader(io.StringIO(table.csv())) if each["method"] == "lae")
    mean, half = (float(line[f"a_last_micro_difference_{part}"]) for part in ("mean", "ci95"))
    assert mean > half > 0
    assert lines["lae"]["cells"][0].sign == "*"
    assert lines["lae"]["cells"][0].text.endswith(" *")
    assert not any(cell.is_best for line in lines.values() for cell in line["cells"])
    assert lines["lae"]["cells"][0].mean.startswith("+")


def test_ranks_are_scipys_over_the_seeds_that_all_have(group: Group) -> None:
    rows = [row for row in group.rows if not row.is_upper_bound]
    for name, sign in (("a_last_micro", -1), ("ece", 1), ("added_parameters", 1)):
        found = mean_ranks(rows, name, is_higher_better=sign < 0)
        values = [_values(group, row.label, name) for row in rows]
        expected = [stats.rankdata([sign * each[seed] for each in values]) for seed in (0, 1, 3)]
        assert found.tolist() == np.array(expected).tolist()
    table = rank_table(group)
    assert table is not None
    assert {row.label for row in table.rows} == {"lae", "simplecil", "finetune"}
    assert {line["seeds"] for line in table.lines()} == {"3 of 4"}


def test_methods_without_a_common_seed_have_no_ranks_and_no_pairs(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("lae", 0)
    make_run("simplecil", 1)
    group = _group(tmp_path)
    assert rank_table(group) is None
    assert difference_table(group, find_baseline(group, None)) is None


def test_one_seed_has_no_ranks_and_no_differences_and_the_page_says_why(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for name in ("lae", "simplecil", "mos"):
        make_run(name, 0, decay=0.1)
    group = _group(tmp_path)
    baseline = find_baseline(group, None)
    assert rank_table(group) is None
    assert difference_table(group, baseline) is None
    said = too_few_seeds(group, baseline)
    assert said.startswith("Not shown: differences seed by seed and ranks. That takes 2 seeds")
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    page = summary.html.read_text("utf-8")
    assert said in page
    assert 'id="ranks-1"' not in page
    assert 'id="differences-1"' not in page
    assert not [path for path in summary.files if path.stem.endswith(("-ranks", "-differences"))]
    for name in ("lae", "simplecil", "mos"):
        make_run(name, 1, decay=0.1)
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    page = summary.html.read_text("utf-8")
    assert "Not shown" not in page
    assert 'id="ranks-1"' in page
    assert 'id="differences-1"' in page


def test_a_method_with_one_pair_is_left_out_of_the_differences_by_name(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in (0, 1):
        make_run("simplecil", seed)
        make_run("lae", seed)
    make_run("mos", 1)
    group = _group(tmp_path)
    baseline = find_baseline(group, None)
    table = difference_table(group, baseline)
    assert table is not None
    assert [row.label for row in table.rows] == ["lae"]
    said = too_few_seeds(group, baseline)
    assert "Left out of the differences: mos." in said
    assert said.startswith("Not shown: ranks.")  # of the seeds that all have there is one
    (alone,) = group_runs(load_runs([tmp_path / "runs" / "digits" / "mos"]).finished)
    assert too_few_seeds(alone, None) == ""


def test_runs_of_another_protocol_are_no_partners(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("lae", seed, fingerprint={"weights": "one"})
        make_run("simplecil", seed, fingerprint={"weights": "two"})
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished, force=True)
    assert paired_rows(group, group.rows[0]) == []


def test_a_baseline_is_a_label_or_a_strategy_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", options={"peft": "lora"})
    make_run("lae", options={"peft": "prefix"})
    make_run("mos")
    group = _group(tmp_path)
    labels = {row.label for row in group.rows}
    for label in labels:
        found = find_baseline(group, label)
        assert found is not None
        assert found.label == label
    assert find_baseline(group, None) is group.rows[0]
    assert find_baseline(group, "sema") is None
    with pytest.raises(InputError, match="baseline must name one method, 'lae' fits"):
        find_baseline(group, "lae")
    with pytest.raises(InputError, match="unknown baseline 'moss'; did you mean 'mos'"):
        check_baseline([group], "moss")
    with pytest.raises(InputError, match="unknown baseline"):
        write_report([tmp_path / "runs"], tmp_path / "report", baseline="moss")
    assert not (tmp_path / "report").exists()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_frontier_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    costs, scores = [float(c) for c, _ in points], [float(s) for _, s in points]
    kept = set(frontier(costs, scores))
    for i, (cost, score) in enumerate(points):
        beaten = any((c < cost and s >= score) or (c <= cost and s > score) for c, s in points)
        assert (i in kept) != beaten
    assert [costs[i] for i in frontier(costs, scores)] == sorted(costs[i] for i in kept)


def test_the_frontier_leaves_out_the_unknown() -> None:
    assert frontier([float("nan"), 1.0, 2.0], [90.0, 50.0, float("nan")]) == [1]
