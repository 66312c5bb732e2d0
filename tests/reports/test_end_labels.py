"""Names of curves at their ends: inside of the figure, none over another, none over a curve."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cl_adapters.reports.figures.curves import accuracy_figure, forgetting_figure
from cl_adapters.reports.figures.end_labels import spread
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from tests.marks import by_default
from tests.reports.conftest import MakeRun


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


def _names(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if str(text.get_gid()).endswith("-end-name")]


def _check(figure: Figure, count: int) -> None:
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in _names(figure)]
    assert len(boxes) == count
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    inside = Bbox.from_bounds(0, 0, *(figure.get_size_inches() * figure.dpi))
    for box in boxes:
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1
        assert box.x0 > axes.get_window_extent().x1  # beside all curves


@pytest.mark.parametrize(
    ("count", "label"),
    by_default(
        [(1, "m"), (2, "lae"), (14, "m"), (40, "x"), (5, "a long plug-in's name")],
        [(1, "m"), (14, "m"), (5, "a long plug-in's name")],
    ),
)
def test_names_lie_inside_and_never_over_each_other(
    make_run: MakeRun, tmp_path: Path, count: int, label: str
) -> None:
    # Level curves: all names would stand in one place.
    for number in range(count):
        make_run(f"{label} {number}", decay=0.0, per_class=4)
    group = _group(tmp_path)
    with figure_style():
        _check(accuracy_figure(group), count)
        _check(forgetting_figure(group), count)


def test_each_name_is_that_of_the_curve_at_its_height(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(6):
        make_run(f"m{number}", decay=0.05 * number, per_class=20)
    group = _group(tmp_path)
    with figure_style():
        figure = accuracy_figure(group)
    heights = {text.get_text(): text.get_position()[1] for text in _names(figure)}
    ends = {row.label: float(row.interval("seen").mean[-1]) for row in group.rows}
    assert sorted(heights, key=heights.__getitem__) == sorted(ends, key=ends.__getitem__)


def test_the_number_of_seeds_is_said_once(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run("lae", seed)
        make_run("mos", seed)
    with figure_style():
        figure = accuracy_figure(_group(tmp_path))
        make_run("sema", 1)
        other = accuracy_figure(_group(tmp_path))
    assert {text.get_text() for text in _names(figure)} == {"lae", "mos"}
    said = figure.axes[0].get_title(loc="left")
    assert said == "mean over 3 seeds, 95 % interval as a band"
    assert {text.get_text() for text in _names(other)} == {"lae", "mos", "sema, 1 of 3 seeds"}
    assert other.axes[0].get_title(loc="left").startswith("mean over 3 seeds unless said otherwise")
    assert not figure.legends


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12),
    st.floats(0.001, 0.3),
)
def test_spread_keeps_order_gaps_and_borders(wanted: list[float], gap: float) -> None:
    places = spread(np.array(wanted), gap)
    least = min(gap, 1 / max(len(wanted) - 1, 1))
    assert np.all(places > -1e-9)
    assert np.all(places < 1 + 1e-9)
    for (one, at), (other, there) in combinations(zip(wanted, places, strict=True), 2):
        assert abs(at - there) > least - 1e-9
        assert one == other or (one < other) == (at < there)


@given(st.lists(st.floats(0.3, 0.7, allow_subnormal=False), min_size=2, max_size=4))
def test_spread_moves_no_more_than_it_must(wanted: list[float]) -> None:
    # Against many random places that keep the gap: none lies nearer.
    places = spread(np.array(wanted), 0.05)
    cost = float(np.sum((places - wanted) ** 2))
    generator = np.random.default_rng(0)
    order = np.argsort(places)
    for _ in range(200):
        other = np.sort(generator.uniform(0.1, 0.9, len(wanted)))
        other = np.maximum.accumulate(other - 0.05 * np.arange(len(wanted)))
        other = other + 0.05 * np.arange(len(wanted))
        tried = np.empty(len(wanted))
        tried[order] = other
        assert float(np.sum((tried - wanted) ** 2)) > cost - 1e-9
