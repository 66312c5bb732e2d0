"""Runs that go on with others: one curve with its seams, and no run counted twice."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.figures.calibration import calibration_figure
from cl_adapters.reports.figures.curves import accuracy_figure, forgetting_figure
from cl_adapters.reports.figures.experiences import experience_figure
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from cl_adapters.reports.runs import load_runs as open_runs
from tests.reports.conftest import MakeRun


def go_on_with(child: Path, parent: Path, experiences: int) -> None:
    """Notes in a run's record that it goes on with another one."""
    record, above = RunRecord.read(child), RunRecord.read(parent).parent
    data = (parent / "run.json").read_bytes()
    record.parent = {
        "path": str(parent),
        "sha256": hashlib.sha256(data).hexdigest(),
        "experiences": experiences,
        "samples": 0,
        **({"parent": above} if above else {}),
    }
    record.write(child)


@pytest.fixture
def chain(make_run: MakeRun, tmp_path: Path) -> list[Path]:
    """A run of two experiences, one of three that goes on with it, one of four with that."""
    folders = [
        make_run("lae", sizes=(2,) * number, folder=tmp_path / f"{number} experiences")
        for number in (2, 3, 4)
    ]
    go_on_with(folders[1], folders[0], 2)
    go_on_with(folders[2], folders[1], 3)
    return folders


def test_what_a_run_goes_on_with_is_part_of_it_and_no_run_of_its_own(chain: list[Path]) -> None:
    loaded = load_runs(chain)
    assert [run.folder for run in loaded.finished] == [chain[2].resolve()]
    notes = [note for note in loaded.notes() if "goes on" in note]
    first, second, last = (each.resolve() for each in chain)
    assert len(notes) == 1
    assert str(first) in notes[0]
    assert str(second) in notes[0]
    assert f"with which {last} goes on" in notes[0]
    assert set(notes) <= set(open_runs(chain).notes)


def test_a_run_stays_where_what_goes_on_with_it_is_not_finished(chain: list[Path]) -> None:
    record = RunRecord.read(chain[1])
    record.state = "running"
    record.write(chain[1])
    finished = [run.folder for run in load_runs(chain[:2]).finished]
    assert finished == [chain[0].resolve()]


def test_a_run_that_was_begun_again_since_is_another_one(chain: list[Path]) -> None:
    record = RunRecord.read(chain[0])
    record.seconds += 1
    record.write(chain[0])
    assert len(load_runs(chain[:2]).finished) == 2


def test_two_protocols_of_one_stream_are_told_apart_in_what_a_report_says(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folders = [make_run("lae", folder=tmp_path / name) for name in ("one", "two")]
    record = RunRecord.read(folders[1])
    record.fingerprint["stream"] = "another"
    record.write(folders[1])
    said = write_report(folders, tmp_path / "report", formats=["svg"])
    assert len(said.sentences) == 2
    for sentence, group in zip(
        said.sentences, group_runs(load_runs(folders).finished), strict=True
    ):
        assert sentence.startswith(f"{group.stream} @{next(iter(group.protocols))}: lae reaches")
    assert len(set(said.sentences)) == 2


def seams(figure: Figure) -> list[list[float]]:
    """The places of the lines in each axes that have some."""
    found = [
        [float(path.vertices[0, 0]) for path in each.get_paths()]
        for axes in figure.axes
        for each in axes.collections
        if isinstance(each, LineCollection) and each.get_gid() == "seams"
    ]
    return [each for each in found if each]


def group_of(folders: list[Path]) -> Group:
    (group,) = group_runs(load_runs(folders).finished)
    return group


def test_seams_lie_between_the_last_experience_before_and_the_next(chain: list[Path]) -> None:
    group = group_of(chain)
    with figure_style():
        curves = [accuracy_figure(group), forgetting_figure(group)]
        calibration = calibration_figure(group, group.rows[0])
        panels = experience_figure(group)
    for figure in curves:  # two classes an experience: 4 and 6 classes were known before
        assert seams(figure) == [[5.0, 7.0]]
        assert [each.get_text() for each in figure.axes[0].texts].count("continued") == 2
    assert seams(calibration) == [[2.5, 3.5]]
    assert np.diff(seams(panels)[0]).item() > 0


def test_a_run_that_began_by_itself_has_none(make_run: MakeRun) -> None:
    group = group_of([make_run("lae")])
    with figure_style():
        assert seams(accuracy_figure(group)) == []
        assert seams(experience_figure(group)) == []
