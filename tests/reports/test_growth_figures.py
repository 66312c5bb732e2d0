from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.parameters import parameters_figure
from cl_adapters.reports.figures.parts import MOST_SEEDS
from cl_adapters.reports.figures.router import router_figure
from cl_adapters.reports.figures.timeline import timeline_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.growth import History, read_history
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.sections.growth import GrowthSection
from tests.reports.conftest import MakeRun
from tests.reports.growing import COST, write_growth
from tests.reports.lines import append_event, append_events

DOMAINS = ("plain", "rotation", "rotation", "plain", "gaussian noise", "rotation")


def _load(tmp_path: Path) -> tuple[Group, dict[str, list[History]]]:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    histories = {
        row.label: [read_history(run.events, len(run.record.experiences)) for run in row.runs]
        for row in group.rows
    }
    return group, histories


def _grow(
    make_run: MakeRun, domains: Sequence[str] = DOMAINS, seeds: int = 1, **options: Any
) -> None:
    for seed in range(seeds):
        folder = make_run("sema", seed, sizes=(1,) * len(domains), per_class=4)
        write_growth(folder, domains, seed=seed, **options)


def _timeline(tmp_path: Path) -> tuple[Figure, list[History]]:
    group, histories = _load(tmp_path)
    with figure_style():
        figure = timeline_figure(group, group.rows[0], histories["sema"])
        figure.draw_without_rendering()
    return figure, histories["sema"]


def _marked(axes: Axes, state: str) -> set[tuple[float, float]]:
    return {
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_label() == f"_{state}"
        for x, y in np.atleast_2d(line.get_xydata())
    }


def _panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if str(axes.get_label()).startswith("seed ")]


def _texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def _keys(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_timeline_marks_every_growth_in_its_place(make_run: MakeRun, tmp_path: Path) -> None:
    _grow(make_run, seeds=3, miss=0.4)
    figure, histories = _timeline(tmp_path)
    panels = _panels(figure)
    for seed, (axes, history) in enumerate(zip(panels, histories, strict=True)):
        lines = ["change seen", "block 9", "block 10", "block 11"]
        labels = {text.get_text(): text.get_position()[1] for text in axes.texts}
        assert [labels[name] for name in lines] == [0, 1, 2, 3]
        assert f"seed {seed}" in labels
        # Each cell carries the number of its adapter, counted from 1.
        for (t, block), (adapter, _) in history.active.items():
            assert (t, block - 8) in _marked(axes, str(adapter + 1))
        assert history.growths
        assert _marked(axes, "grown") == {(t, block - 8) for t, block in history.growths}
        assert _marked(axes, "left") == {
            (t, 0) for t in range(6) for block in (9, 10, 11) if history.active[t, block][1]
        }
        (changes,) = (each for each in axes.collections if each.get_label() == "_change")
        places = {float(x) for path in changes.get_paths() for x, _ in path.vertices}
        assert places == {0.5, 2.5, 3.5, 4.5}
    assert {"1", "6", "Experience"} <= set(_texts(panels[-1]))
    assert "grew; number: adapter used" in _keys(figure)
    assert _texts(figure.axes[-1]) == ["≤ 0", "0.5", "1", "1.5", "≥ 2", "Score / threshold"]


def test_a_domain_that_comes_back_has_the_same_tint_and_its_name(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _grow(make_run, seeds=2)
    figure, _ = _timeline(tmp_path)
    first, second = _panels(figure)
    tints = [patch.get_facecolor() for patch in first.patches]
    names = ["plain", "rotation", "plain", "gaussian noise", "rotation"]
    assert len(tints) == len(names)  # two experiences in a row of one domain are one patch
    assert tints[0] == tints[2]
    assert tints[1] == tints[4]
    assert len(set(tints)) == 3
    assert [each for each in _texts(first) if each in DOMAINS] == names
    assert not set(_texts(second)) & set(DOMAINS)  # named once: they are the same


@pytest.mark.parametrize(
    ("domains", "options"),
    [
        (DOMAINS, {"grows": False}),
        (("plain",), {}),
        (tuple(f"a long domain {number % 13}" for number in range(20)), {}),
        (DOMAINS, {"blocks": (11,)}),
        pytest.param(
            tuple("abcdefghijkl"), {"blocks": range(12), "miss": 0.0}, marks=pytest.mark.slow
        ),
    ],
)
def test_nothing_is_clipped_or_drawn_over(
    make_run: MakeRun, tmp_path: Path, domains: Sequence[str], options: dict[str, Any]
) -> None:
    _grow(make_run, domains, seeds=2, **options)
    group, histories = _load(tmp_path)
    with figure_style():
        for draw in (timeline_figure, router_figure):
            figure = draw(group, group.rows[0], histories["sema"])
            figure.draw_without_rendering()
            outer = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert outer.x0 >= -0.01
            assert outer.y0 >= -0.01
            assert outer.x1 <= width + 0.01
            assert outer.y1 <= height + 0.01
            boxes = [axes.get_window_extent() for axes in figure.axes]
            assert not any(
                one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k]
            )


def test_unknown_truth_and_no_growth_leave_an_honest_timeline(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run("sema", sizes=(1, 1), per_class=4)
    for t in range(2):
        append_event(folder, "active", t, 0, block=5, adapter=0, changed=False)
    figure, _ = _timeline(tmp_path)
    (panel,) = _panels(figure)
    assert not panel.patches
    assert len(figure.axes) == 1  # nothing was scanned: no colour bar
    assert _keys(figure) == {"first adapter", "not scanned"}


def test_firing_without_growth_is_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    _grow(make_run, grows=False, miss=0.0)
    figure, _ = _timeline(tmp_path)
    (panel,) = _panels(figure)
    assert not _marked(panel, "grown")
    # Only the first adapter is there, so that all but `plain` is strange for good.
    assert _marked(panel, "refused") == {(t, line) for t in (1, 2, 4, 5) for line in (1, 2, 3)}
    assert "all detectors fired, yet not grown" in _keys(figure)


def test_many_seeds_are_limited(make_run: MakeRun, tmp_path: Path) -> None:
    _grow(make_run, ("a", "b"), seeds=MOST_SEEDS + 2, blocks=(4,))
    figure, histories = _timeline(tmp_path)
    assert len(_panels(figure)) == MOST_SEEDS
    group, _ = _load(tmp_path)
    with figure_style():
        router = router_figure(group, group.rows[0], histories)
        alone = router_figure(group, group.rows[0], histories, 1)
        (panel,) = _panels(timeline_figure(group, group.rows[0], histories, 1))
    assert _seeds(router) == [f"seed {seed}\nTest experience" for seed in range(MOST_SEEDS)]
    assert _seeds(alone) == ["seed 0\nTest experience"]
    assert panel.get_label() == "seed 0"


def _seeds(router: Figure) -> list[str]:
    return [text for text in _texts(router.axes[0]) if text.startswith("seed")]


def test_router_shows_the_last_weights_between_nothing_and_one(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run("sema", sizes=(1, 1), per_class=4)
    weights = {9: [[0.25, 0.75], [1.0, 0.0]], 10: [[1.0], [1.0]]}
    append_events(
        folder,
        [
            {"event": "router", "experience": 1, "seconds": 0, "block": block, "weights": rows}
            for block, rows in weights.items()
        ],
    )
    group, histories = _load(tmp_path)
    with figure_style():
        figure = router_figure(group, group.rows[0], histories["sema"])
    (canvas,) = figure.axes
    nine, ten, scale = canvas.images
    assert np.array(nine.get_array()).tolist() == weights[9]
    assert np.array(ten.get_array()).tolist() == weights[10]
    assert nine.get_clim() == ten.get_clim() == scale.get_clim() == (0, 1)
    # The scale has 1 above, and so have its labels; inches count from above.
    assert np.array(scale.get_array()).ravel()[[0, -1]].tolist() == [1, 0]
    levels = {text.get_text(): text.get_position()[1] for text in canvas.texts}
    assert levels["0.75"] < levels["0.5"] < levels["0.25"]
    left, right, bottom, top = nine.get_extent()
    assert (right - left) / 2 == pytest.approx(ten.get_extent()[1] - ten.get_extent()[0], abs=0.3)
    assert bottom > top
    assert {"block 9", "block 10", "Mean weight", "2"} <= set(_texts(canvas))


def test_what_grows_as_a_whole_is_called_sets_and_paths(make_run: MakeRun, tmp_path: Path) -> None:
    _grow(make_run, blocks=(0,))
    figure, histories = _timeline(tmp_path)
    assert {"grew; number: set used", "first set"} <= _keys(figure)
    assert not any("adapter" in text for text in _keys(figure))
    (group, _), runs = _load(tmp_path), load_runs([tmp_path / "runs"]).finished
    by_folder = {run.folder: history for run, history in zip(runs, histories, strict=True)}
    with figure_style():
        drawn = {each.kind: each for each in GrowthSection(group, by_folder).figures()}
    (router,) = drawn["router"].figure.axes
    assert {"network", "Share of images"} <= set(_texts(router))
    assert any(text.startswith("Path (ring") for text in _texts(router))
    assert "takes each path" in drawn["router"].text
    assert "one set of adapters an experience" in drawn["parameters"].text
    for each in drawn.values():
        assert "block" not in each.text


def test_parameters_stand_beside_linear_growth(make_run: MakeRun, tmp_path: Path) -> None:
    _grow(make_run, miss=0.0)
    plain = make_run("lae", sizes=(1,) * 6, per_class=4)
    append_events(
        plain,
        [
            {"event": "parameters", "experience": t, "seconds": 0, "added": 4_000, "trainable": 1}
            for t in range(6)
        ],
    )
    group, histories = _load(tmp_path)
    with figure_style():
        (axes,) = parameters_figure(group, histories).axes
    curves = {str(line.get_label()): line for line in axes.get_lines()}
    assert curves["lae"].get_ydata() == pytest.approx([4_000] * 6)
    # Three blocks grow with `rotation` at 1 and `gaussian noise` at 4; the head adds 200 each time.
    grown = np.array([0, 3, 3, 3, 6, 6]) * COST
    head = 5_000 + 200 * np.arange(6)
    assert curves["sema"].get_ydata() == pytest.approx(head + grown)
    (linear,) = (line for line in axes.get_lines() if line.get_label() == "_linear")
    assert linear.get_ydata() == pytest.approx(head + 3 * COST * np.arange(6))
    texts = {text.get_text() for text in axes.figure.legends[0].get_texts()}
    assert texts == {"sema", "lae", "linear growth"}
