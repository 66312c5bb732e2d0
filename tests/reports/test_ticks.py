"""Ticks stand where there are values, and say what an experience is."""

from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.reports.figures.curves import accuracy_figure
from cl_adapters.reports.figures.experiences import experience_figure
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.matrix import matrix_figure
from cl_adapters.reports.figures.ticks import data_ticks, set_experience_ticks
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from tests.reports.conftest import MakeRun

NAMES = ["home", "a zoo of many animals", "farm", "sea"]


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


@given(st.sets(st.integers(1, 200), min_size=1), st.integers(2, 15))
def test_ticks_are_places_of_data_and_hold_the_last(places: set[int], most: int) -> None:
    ticks = data_ticks(places, most)
    assert set(ticks) <= places
    assert ticks == sorted(set(ticks))
    assert ticks[-1] == max(places)
    assert len(ticks) <= most
    span = max(places) - min(places)
    assert all(b - a >= span / (most - 1) for a, b in pairwise(ticks))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_few_experiences_have_whole_ticks_each(
    make_run: MakeRun, tmp_path: Path, count: int
) -> None:
    make_run(sizes=(2,) * count)
    with figure_style():
        figure = accuracy_figure(_group(tmp_path))
        figure.draw_without_rendering()
    (axes,) = figure.axes
    places = [2 * number for number in range(1, count + 1)]
    assert axes.get_xticks().tolist() == places
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()] == [
        str(place) for place in places
    ]
    low, high = axes.get_xlim()
    assert low < places[0] <= places[-1] < high


def test_experiences_have_their_names(make_run: MakeRun, tmp_path: Path) -> None:
    fingerprint = {"data": "a", "experience_names": NAMES}
    for seed in (0, 1):
        make_run("lae", seed, fingerprint=fingerprint)
    group = _group(tmp_path)
    with figure_style():
        (curves,) = accuracy_figure(group).axes
        (panels,) = experience_figure(group).axes
        matrix = matrix_figure(group, group.rows[0])
        matrix.draw_without_rendering()
    below = [text.get_text() for text in curves.get_xticklabels()]
    assert below[0] == "2\nhome"
    assert below[1].startswith("4\na zoo of")
    assert below[1].endswith("…")
    beside = {text.get_text() for text in panels.texts}
    assert {"1: home", "2: a zoo of many…"} <= beside
    texts = [text.get_text() for text in matrix.texts]
    assert texts.count("1: home") == 2  # learned, and tested
    assert texts.count("2: a zoo of many…") == 2
    outer = matrix.get_tightbbox()
    assert outer.x0 >= -0.01
    assert outer.y0 >= -0.01


def test_names_without_room_are_left_out() -> None:
    with figure_style():
        figure = plt.figure()
        axes = figure.subplots()
        set_experience_ticks(axes, 12, ["the long name of a place"] * 12)
        texts = [text.get_text() for text in axes.get_xticklabels()]
        plt.close(figure)
    assert texts == [str(number) for number in range(1, 13)]
