"""Votes of two experts: shares against plain loops, and what a damaged event does."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.votes import votes_figure
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from cl_adapters.reports.sections.votes import VotesSection, read_all_votes
from cl_adapters.reports.votes import read_votes
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event


def write_votes(folder: Path, seed: int = 0, **changes: Any) -> dict[int, dict[str, list[int]]]:
    """Appends votes of four experiences, the first of which asks one expert alone."""
    generator, written = np.random.default_rng(seed), {}
    for t in range(1, 4):
        images = [24] * (t + 1)
        differ = generator.integers(4, 20, t + 1)
        online = generator.integers(0, differ // 2 + 1)
        offline = generator.integers(0, differ - online + 1)
        columns = {"images": images, "differ": differ.tolist(), "online_right": online.tolist()}
        columns |= {"offline_right": offline.tolist(), "vote_right": (online // 2).tolist()}
        written[t] = columns
        values = {"experiences": list(range(t + 1)), **columns, **changes}
        append_event(folder, "votes", t, 0, **values)
    return written


def test_shares_equal_plain_loops(make_run: MakeRun, tmp_path: Path) -> None:
    written = write_votes(make_run("lae"))
    (run,) = load_runs([tmp_path / "runs"]).finished
    votes = read_votes(run)
    assert votes is not None
    assert np.isnan(votes.over_time["differ"][0])
    for t, columns in written.items():
        total = sum(columns["images"])
        for name in ("differ", "online_right", "offline_right", "vote_right"):
            assert votes.over_time[name][t] == pytest.approx(100 * sum(columns[name]) / total)
        neither = sum(columns["differ"]) - sum(columns["online_right"] + columns["offline_right"])
        assert votes.over_time["neither_right"][t] == pytest.approx(100 * neither / total)
    for i in range(4):
        assert votes.by_experience["differ"][i] == pytest.approx(100 * written[3]["differ"][i] / 24)


def test_votes_are_shown_of_runs_that_recorded_them_and_of_no_other(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in (0, 1):
        write_votes(make_run("lae", seed), seed)
    make_run("lae", 2)  # from before votes were recorded
    make_run("mos")
    loaded = load_runs([tmp_path / "runs"])
    by_folder = read_all_votes(loaded)
    (group,) = group_runs(loaded.finished)
    section = VotesSection(group, by_folder)
    ((_, row),) = section.rows
    assert row.seeds == [0, 1]
    lines = list(csv.DictReader(io.StringIO(section.files()["digits-votes.csv"])))
    assert len(lines) == 2 * 2 * 4
    with figure_style():
        left, right = votes_figure(group, row, list(by_folder.values())).axes
    expected = np.mean([votes.over_time["differ"][1:] for votes in by_folder.values()], axis=0)
    assert left.get_lines()[0].get_ydata() == pytest.approx(expected)
    assert len(right.patches) == 3 * 4
    assert "2 of 3 seeds" in left.figure.texts[0].get_text()
    page = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"]).html.read_text()
    assert "Votes of lae" in page
    assert "Votes of mos" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"differ": [1]}, "one number a test experience"),
        ({"images": [0, 0, 0, 0]}, "one number a test experience"),
        ({"vote_right": "many"}, "vote_right of a votes event"),
        ({"experiences": [7]}, "one number a test experience"),
    ],
)
def test_damaged_votes_are_named(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_votes(make_run("lae"), **changes)
    (run,) = load_runs([tmp_path / "runs"]).broken
    assert message in run.reason


def test_more_right_than_differ_is_damage(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("lae")
    columns = {"differ": [2], "online_right": [2], "offline_right": [1], "vote_right": [0]}
    append_event(folder, "votes", 3, 0, experiences=[0], images=[9], **columns)
    (run,) = load_runs([tmp_path / "runs"]).broken
    assert "no more images must be right than differ" in run.reason
