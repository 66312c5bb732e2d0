import io
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.figures.curves import accuracy_figure, forgetting_figure
from cl_adapters.reports.figures.experiences import experience_figure
from cl_adapters.reports.figures.files import embed, figure_style
from cl_adapters.reports.figures.matrix import matrix_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from tests.reports.conftest import MakeRun


def _group(tmp_path: Path) -> Group:
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


def test_curves_show_the_numbers_and_bands_need_two_seeds(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in (0, 1, 2):
        make_run("lae", seed, decay=0.02)
    make_run("finetune", 0, decay=0.25)
    group = _group(tmp_path)
    with figure_style():
        (axes,) = accuracy_figure(group).axes
    lines = axes.get_lines()
    assert lines[0].get_xdata() == pytest.approx([2, 4, 6, 8])
    expected = np.mean([run.seen for run in group.rows[0].runs], axis=0)
    assert lines[0].get_ydata() == pytest.approx(expected)
    assert len(axes.collections) == 1
    assert [text.get_text() for text in axes.texts] == ["lae", "finetune, 1 of 3 seeds"]


def test_many_methods_can_be_told_apart_without_colour(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(12):
        make_run("m", options={"rank": number}, sizes=(1,) * 12, per_class=4)
    group = _group(tmp_path)
    with figure_style():
        (axes,) = forgetting_figure(group).axes
        (panels,) = experience_figure(group).axes
        (heat,) = matrix_figure(group, group.rows[0]).axes
    lines = axes.get_lines()
    looks = {(line.get_marker(), str(vars(line)["_dash_pattern"])) for line in lines}
    assert len(looks) == 12
    # Variants of one method: its colour, and markers filled in other ways.
    assert len({to_hex(line.get_color()) for line in lines}) == 1
    assert len({(line.get_marker(), line.get_fillstyle()) for line in lines}) == 12
    # Two collections a method: its grid, and a curve an experience with a point each time.
    curves = [len(each.get_paths()) for each in panels.collections if each.get_zorder() == 2]
    assert curves == [12, 1] * 12
    assert not heat.texts  # numbers only fit up to ten experiences


def test_many_intervals_are_thin_whiskers_of_the_right_length(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for number in range(5):
        for seed in (0, 1, 2):
            make_run(f"m{number}", seed, decay=0.03 * number)
    group = _group(tmp_path)
    with figure_style():
        (axes,) = accuracy_figure(group).axes
    assert len(axes.collections) == 5
    for row, whiskers in zip(group.rows, axes.collections, strict=True):
        assert whiskers.get_linewidth()[0] <= 1
        for t, path in enumerate(whiskers.get_paths()):
            values = [run.seen[t] for run in row.runs]
            mean, half = np.mean(values), 4.302653 * np.std(values, ddof=1) / 3**0.5
            (x, low), (_, high) = path.vertices.tolist()
            assert abs(x - row.progress[t]) < 0.25  # of 2 from one experience to the next
            assert [low, high] == pytest.approx(np.clip([mean - half, mean + half], 0, 100))


def test_heat_map_carries_its_numbers_on_a_shared_scale(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    group = _group(tmp_path)
    with figure_style():
        (heat,) = matrix_figure(group, group.rows[0]).axes
    assert len(heat.texts) == 10
    assert heat.images[0].get_clim() == (0, 100)
    assert heat.texts[0].get_text() == f"{group.rows[0].runs[0].matrix[0, 0]:.0f}"


def test_a_method_keeps_its_colour_when_others_overtake_it(
    make_run: MakeRun, tmp_path: Path
) -> None:
    def colours() -> dict[str, str]:
        group = _group(tmp_path)
        with figure_style():
            (axes,) = accuracy_figure(group).axes
        pairs = zip(group.rows, axes.get_lines(), strict=True)
        return {row.label: to_hex(line.get_color()) for row, line in pairs}

    make_run("a", decay=0.02)
    make_run("b", decay=0.2)
    before = colours()
    make_run("a", decay=0.3)
    assert colours() == before


def test_embedded_drawings_do_not_share_ids() -> None:
    svg = '<?xml?>\n<svg width="1"><g id="a" clip-path="url(#b)"/><use xlink:href="#b"/></svg>'
    element = embed(svg, "p")
    assert 'id="p-a"' in element
    assert "url(#p-b)" in element
    assert 'href="#p-b"' in element
    assert not element.startswith("<?xml")


def test_experiences_that_bring_no_new_class_are_counted_themselves(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run(sizes=(1, 1, 1), per_class=6)
    record = RunRecord.read(folder)
    record.experiences = [[0, 1, 2]] * 3  # the same classes in three domains
    record.write(folder)
    group = _group(tmp_path)
    with figure_style():
        (axes,) = accuracy_figure(group).axes
        (panel,) = experience_figure(group).axes
    assert axes.get_xlabel() == "Number of experiences learned"
    assert axes.get_lines()[0].get_xdata() == pytest.approx([1, 2, 3])
    texts = {text.get_text(): text.get_position() for text in reversed(panel.texts)}
    curve = panel.collections[1].get_paths()[0].vertices
    assert curve[:, 0] == pytest.approx([texts[number][0] for number in "123"])
    assert "Number of experiences learned" in texts
    # The place of a value lies between the labels of the scale, which count from below.
    share = (texts["0"][1] - curve[:, 1]) / (texts["0"][1] - texts["100"][1])
    assert 100 * share == pytest.approx(group.rows[0].runs[0].matrix[:, 0])


@pytest.mark.parametrize("name", ["#000000", 'id="q"', "url(#a)", 'href="#b"', "#4c72b0"])
def test_text_of_a_record_is_drawn_as_it_is(name: str) -> None:
    with figure_style():
        figure = plt.figure()
        figure.text(0.1, 0.1, name)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        plt.close(figure)
    drawn = embed(buffer.getvalue(), "p")
    texts = ["".join(each.itertext()) for each in ElementTree.fromstring(drawn).iter()]
    assert name in texts, drawn[-600:]
