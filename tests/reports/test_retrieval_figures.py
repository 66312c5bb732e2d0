"""The figures of how adapters were chosen."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.parts import MOST_SEEDS
from cl_adapters.reports.figures.retrieval import (
    choice_figure,
    correction_figure,
)
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from tests.marks import by_default
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event
from tests.reports.retrieving import choose, drift_matrix, load_section, write_retrieving


def _heat_maps(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if str(axes.get_gid()).startswith("choice-")]


def _maps(figure: Figure) -> list[list[list[float]]]:
    return [np.array(axes.images[0].get_array()).tolist() for axes in _heat_maps(figure)]


def test_a_distance_that_is_no_number_is_missing_and_left_white(
    make_run: MakeRun, tmp_path: Path
) -> None:
    choose(make_run, 2, step=None)
    folder = load_runs([tmp_path / "runs"]).finished[0].folder
    append_event(folder, "drift", 1, 0, distances=[[0.0, math.nan], [math.inf, None]])
    group, section = load_section(tmp_path)
    drift = section.retrievals["mos"][0].drift
    assert drift is not None
    assert np.isnan(drift).tolist() == [[False, True], [True, True]]
    with figure_style():
        figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
        figure.draw_without_rendering()
    assert [text.get_text() for text in _heat_maps(figure)[1].texts] == ["0"]
    lines = list(csv.DictReader(io.StringIO(section.files()["digits-retrieval-adapters.csv"])))
    assert [line["distance"] for line in lines] == ["0.0", "", "", ""]


def test_all_distances_unknown_still_make_a_figure(make_run: MakeRun, tmp_path: Path) -> None:
    choose(make_run, 2, step=None)
    folder = load_runs([tmp_path / "runs"]).finished[0].folder
    append_event(folder, "drift", 1, 0, distances=[[None, None], [None, None]])
    assert write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"]).num_finished == 1


def test_figure_shows_answers_beside_distances_a_line_a_seed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    choose(make_run, seeds=MOST_SEEDS + 1)
    group, section = load_section(tmp_path)
    runs = section.retrievals["mos"]
    with figure_style():
        figure = choice_figure(group, section.rows[0], runs)
        figure.draw_without_rendering()
    shown = runs[:MOST_SEEDS]
    assert _maps(figure) == [run.confusion.tolist() for run in shown] + [drift_matrix(4)] * 3
    axes = _heat_maps(figure)
    assert axes[0].images[0].get_clim() == (0, 100)
    assert axes[3].images[0].get_clim() == (0, np.max(drift_matrix(4)))
    assert axes[2].get_xlabel() == "Adapter that answered"
    assert axes[2].get_ylabel() == "Experience of\nthe test image"
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == [f"{value:.0f}" for value in shown[0].confusion.ravel()]
    names = {text.get_text() for text in figure.texts}
    assert {"seed 0", "seed 1", "seed 2"} <= names
    assert "seed 3" not in names


@pytest.mark.parametrize(
    ("step", "label", "text"),
    [
        (0.25, "Relative distance", "0.25"),
        (25.0, "Relative distance", "25.0"),
        (2.5e-6, "Relative distance / 10⁻⁶", "2.5"),
        (0.0, "Relative distance", "0"),
    ],
)
def test_distances_of_any_size_can_be_read(
    make_run: MakeRun, tmp_path: Path, step: float, label: str, text: str
) -> None:
    choose(make_run, 2, step=step)
    group, section = load_section(tmp_path)
    with figure_style():
        figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
    assert figure.axes[-1].get_ylabel() == label
    drawn = _heat_maps(figure)[1]
    assert [each.get_text() for each in drawn.texts][1] == text


def test_correction_is_the_mean_over_seeds_with_its_interval(
    make_run: MakeRun, tmp_path: Path
) -> None:
    choose(make_run, seeds=2)
    group, section = load_section(tmp_path)
    runs = section.retrievals["mos"]
    with figure_style():
        upper, lower = correction_figure(group, section.rows[0], runs).axes
    lines = dict(
        zip(
            ("right_adapter", "right_first_adapter", "saved", "spoiled"),
            upper.get_lines(),
            strict=True,
        )
    )
    lines["rounds"] = lower.get_lines()[0]
    for name, line in lines.items():
        mean = (runs[0].shares[name] + runs[1].shares[name]) / 2
        assert line.get_ydata() == pytest.approx(mean)
        assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert len(upper.collections) == 4
    # Two seeds: mean ± 12.706 · half of what they differ by.
    at = 3
    ends = lower.collections[0].get_paths()[0].vertices
    high = max(y for x, y in ends.tolist() if x == at + 1)
    pair = [run.shares["rounds"][at] for run in runs]
    assert high == pytest.approx(sum(pair) / 2 + 12.7062 * abs(pair[0] - pair[1]) / 2, rel=1e-4)


MORE_SIZES = [pytest.param(*each, marks=pytest.mark.slow) for each in ((4, 2, 0.1), (10, 1, 1e-6))]


@pytest.mark.parametrize(
    ("size", "seeds", "step"), [(1, 1, 0.2), (2, 3, None), *MORE_SIZES, (20, 3, 0.4)]
)
@pytest.mark.parametrize("is_long", by_default([False, True], [True]))
def test_nothing_is_clipped_or_drawn_over(
    make_run: MakeRun, tmp_path: Path, size: int, seeds: int, step: float | None, is_long: bool
) -> None:
    strategy = "mos (statistics=low_rank, merge_strength=0.1, rounds=4)" if is_long else "mos"
    for seed in range(seeds):
        folder = make_run(strategy, seed, sizes=(1,) * size, per_class=4)
        write_retrieving(folder, seed=seed, step=step)
    group, section = load_section(tmp_path)
    (row,) = section.rows
    with figure_style():
        for draw in (choice_figure, correction_figure):
            figure = draw(group, row, section.retrievals[row.label])
            figure.draw_without_rendering()
            outer = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert outer.x0 >= -0.01
            assert outer.y0 >= -0.01
            assert outer.x1 <= width + 0.01
            assert outer.y1 <= height + 0.01
            boxes = [axes.get_tightbbox() for axes in figure.axes]
            assert not any(
                one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k]
            )


def test_numbers_stand_in_cells_up_to_ten_experiences(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run("mos", stream="ten", sizes=(1,) * 10, per_class=2))
    write_retrieving(make_run("mos", stream="eleven", sizes=(1,) * 11, per_class=2))
    loaded = load_runs([tmp_path / "runs"])
    retrievals = read_retrievals(loaded)
    found = {}
    for group in group_runs(loaded.finished):
        section = RetrievalSection(group, retrievals)
        with figure_style():
            figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
        found[group.stream] = len(figure.axes[0].texts)
    assert found == {"ten": 100, "eleven": 0}
