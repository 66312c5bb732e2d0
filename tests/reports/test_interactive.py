"""What the page's script gets: places and values of every point, ids that exist in the drawing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cl_adapters.errors import InputError
from cl_adapters.reports.figures.curves import accuracy_figure, curve_chart
from cl_adapters.reports.figures.files import check_formats, embed, figure_style, save_figure
from cl_adapters.reports.figures.interactive import chart_data
from cl_adapters.reports.figures.pareto import pareto_chart, pareto_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun


@pytest.fixture
def group(make_run: MakeRun, tmp_path: Path) -> Group:
    for seed in (0, 1):
        make_run("lae", seed, decay=0.05)
    make_run("finetune", decay=0.25)
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


def test_points_lie_where_the_drawing_has_them(group: Group, tmp_path: Path) -> None:
    with figure_style():
        figure = accuracy_figure(group)
        svg = save_figure(figure, tmp_path / "accuracy", ("svg",))
        data = json.loads(chart_data(curve_chart(group, "seen"), figure, "p")["json"])
    page = embed(svg, "p")
    for curve, row in zip(data["curves"], group.rows, strict=True):
        ids = re.findall(rf'id="({re.escape(curve["id"])}[^"]*)"', page)
        # A line, a band if there is one, and three parts at its end.
        assert len(ids) == (5 if len(row.seeds) > 1 else 4)
        # The line's own path in the SVG goes through the points that the script knows.
        path = re.search(rf'id="{curve["id"]}line".*? d="([^"]*)"', page, flags=re.DOTALL)
        assert path is not None
        places = np.array([float(n) for n in re.findall(r"[\d.]+", path[1])]).reshape(-1, 2)
        known = np.array([point[1:3] for point in curve["points"]])
        np.testing.assert_allclose(known, places, atol=0.06)
        mean = np.mean([run.seen for run in row.runs], axis=0)
        assert [float(p[4].split(" ±")[0]) for p in curve["points"]] == pytest.approx(
            mean, abs=0.006
        )
        assert [p[3] for p in curve["points"]] == [
            f"{2 * n} classes seen (experience {n}: class {2 * n - 2}, class {2 * n - 1})"
            for n in (1, 2, 3, 4)
        ]


def test_pareto_points_carry_cost_and_accuracy(make_run: MakeRun, tmp_path: Path) -> None:
    for number, name in enumerate(("lae", "simplecil")):
        folder = make_run(name, decay=0.1 * number)
        with (folder / "events.jsonl").open("a") as file:
            seconds = 100 * number
            file.write(f'{{"event":"phase","experience":3,"seconds":{seconds},"name":"x"}}\n')
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    with figure_style():
        figure = pareto_figure(group)
        svg = save_figure(figure, tmp_path / "pareto", ("svg",))
        data = json.loads(chart_data(pareto_chart(group), figure, "p")["json"])
    assert data["by"] == "point"
    for curve, row in zip(data["curves"], group.rows, strict=True):
        (point,) = curve["points"]  # evaluation and parameters cost all the same
        assert point[3] == f"Training {row.runs[0].values['train_seconds']:.1f} s"
        assert f'id="{curve["id"]}' in embed(svg, "p")


def test_drawings_take_the_colours_of_the_page_and_keep_inks_on_cells() -> None:
    svg = (
        '<?xml?>\n<svg width="10pt" height="20pt" viewBox="0 0 10 20"><path style="fill: #ffffff"/>'
        '<text style="fill: #fefefe"/><path style="stroke: #0072b2"/></svg>'
    )
    element = embed(svg, "p")
    assert 'style="fill: var(--card)"' in element
    assert "#fefefe" in element
    assert "#0072b2" in element
    assert "10pt" not in element
    assert 'viewBox="0 0 10 20"' in element


@pytest.mark.slow
def test_formats_are_chosen_and_checked(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(sizes=(2,))
    usual = write_report([tmp_path / "runs"], tmp_path / "usual")
    for name in ("accuracy", "-matrix-"):
        kinds = {path.suffix for path in usual.files if name in path.name}
        assert kinds == {".svg", ".png", ".pdf"}
    all_kinds = write_report([tmp_path / "runs"], tmp_path / "all", formats=["pdf"])
    assert {p.suffix for p in all_kinds.files if "-matrix-" in p.name} == {".svg", ".pdf"}
    for path in all_kinds.files:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
    with pytest.raises(InputError, match="unknown figure format 'pgn'; did you mean 'png'"):
        check_formats(["pgn"])
