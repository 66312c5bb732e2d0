"""What a report makes for a paper: a table that a column holds, and figures as wide as one."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cl_adapters.errors import InputError
from cl_adapters.reports.definitions import COLUMNS
from cl_adapters.reports.figures import paper as paper_figures
from cl_adapters.reports.groups import Group
from cl_adapters.reports.paper import PAPER_COLUMNS, Paper, paper_columns
from cl_adapters.reports.report import write_report
from cl_adapters.reports.tables.comparison import comparison_table
from cl_adapters.reports.tables.latex import COLUMN_POINTS, escape_latex, width_in_points
from cl_adapters.reports.tables.paper import HEADINGS, paper_table
from tests.reports.conftest import MakeRun, only_group
from tests.reports.latex import plain, read_table

EVIL = [
    "[x] a_b & 50 %", "*", "a--b ?` ''", r"\input{x}", '$x^2$ "q"', "{}~#|<i>", "Ünïcode ß", "100%",
]  # fmt: skip
LATEX = next(filter(None, map(shutil.which, ("pdflatex", "tectonic"))), None)


def _hostile(make_run: MakeRun, tmp_path: Path) -> Group:
    for number, name in enumerate(EVIL):
        for seed in (0, 1):
            folder = tmp_path / "runs" / f"{number}-{seed}"
            make_run(name, seed, folder=folder, stream="100 % {_&#}", decay=0.02 * number)
    return only_group(tmp_path)


def test_every_column_has_a_short_heading_of_its_own() -> None:
    assert set(HEADINGS) == {column.name for column in COLUMNS}
    assert len(set(HEADINGS.values())) == len(HEADINGS)


def test_the_table_is_that_of_the_comparison_in_fewer_columns(group: Group) -> None:
    files = paper_table(group, PAPER_COLUMNS).files()
    assert set(files) == {f"digits-paper.{kind}" for kind in ("csv", "md", "tex")}
    (lines, whole) = (
        list(csv.DictReader(io.StringIO(text)))
        for text in (
            files["digits-paper.csv"],
            comparison_table(group).files()["digits-comparison.csv"],
        )
    )
    assert [line["method"] for line in lines] == ["joint", "lae", "finetune"]
    for line, other in zip(lines, whole, strict=True):
        assert line.items() <= other.items()
    assert "| Method | A_last ↑ | A_avg ↑ | Forgetting ↓ |" in files["digits-paper.md"]


def test_latex_says_what_the_csv_says(group: Group) -> None:
    names = ["forgetting_from_best", "a_last_micro", "added_parameters", "nll"]
    files = paper_table(group, names).files()
    said, (headings, *rows) = read_table(files["digits-paper.tex"])
    assert said["label"] == "tab:digits-paper"
    assert said["caption"].startswith("digits: mean over 3 seeds ± half the 95 % interval")
    assert "Forgetting, A_last in percent" in said["caption"]
    assert headings == ["Method", "Forgetting ↓", "A_last ↑", "Parameters ↓", "NLL ↓"]
    lines = list(csv.DictReader(io.StringIO(files["digits-paper.csv"])))
    for row, line in zip(rows, lines, strict=True):
        assert row[0] == line["method"]
        mean, half = row[2].rstrip("*").split(" ± ")
        assert float(mean) == pytest.approx(float(line["a_last_micro_mean"]), abs=0.005)
        assert float(half) == pytest.approx(float(line["a_last_micro_ci95"]), abs=0.005)
    # The best, the upper bound aside; what all have alike is nobody's.
    assert [[cell.endswith("*") for cell in row] for row in rows] == [
        [False] * 5, [False, True, True, False, True], [False] * 5,
    ]  # fmt: skip


def test_the_usual_table_fits_a_column_and_a_wide_one_takes_both(group: Group) -> None:
    table = paper_table(group, PAPER_COLUMNS)
    assert width_in_points(table.sheet()) <= COLUMN_POINTS
    assert read_table(table.files()["digits-paper.tex"])[0]["kind"] == "table"
    many = paper_table(group, list(HEADINGS)[:6]).files()["digits-paper.tex"]
    assert read_table(many)[0]["kind"] == "table*"
    assert "more than a page" not in many
    whole = comparison_table(group).files()["digits-comparison.tex"]
    assert "more than a page: `report --columns` takes fewer" in whole


def test_seeds_have_a_column_where_methods_differ(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", 0)
    text = paper_table(only_group(tmp_path), PAPER_COLUMNS).files()["digits-paper.tex"]
    said, (headings, _) = read_table(text)
    assert (said["caption"], headings[1]) == (
        "digits: one seed; all in percent; best in bold.",
        "A_last ↑",
    )
    make_run("lae", 1)
    make_run("mos", 0)
    text = paper_table(only_group(tmp_path), PAPER_COLUMNS).files()["digits-paper.tex"]
    assert [row[1] for row in read_table(text)[1]] in (
        ["Seeds", "2", "1 of 2"],
        ["Seeds", "1 of 2", "2"],
    )


def test_hostile_names_stay_names(make_run: MakeRun, tmp_path: Path) -> None:
    group = _hostile(make_run, tmp_path)
    files = paper_table(group, PAPER_COLUMNS).files() | comparison_table(group).files()
    for name in (name for name in files if name.endswith(".tex")):
        said, rows = read_table(files[name])
        assert said["caption"].startswith("100 % {_&#}: ")
        assert [row[0].replace('"', "''") for row in rows[1:]] == [
            row.label.replace('"', "''") for row in group.rows
        ]
    assert plain(escape_latex("--")) == "--"


def test_letters_that_pdflatex_lacks_are_announced(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae")
    assert (
        "xelatex"
        not in paper_table(only_group(tmp_path), PAPER_COLUMNS).files()["digits-paper.tex"]
    )
    make_run("日本", folder=tmp_path / "runs" / "x")
    assert (
        "% Holds letters that pdflatex may not know"
        in (paper_table(only_group(tmp_path), PAPER_COLUMNS).files()["digits-paper.tex"])
    )


@pytest.mark.slow
@pytest.mark.skipif(LATEX is None, reason="needs pdflatex or tectonic, none on this machine")
def test_tables_compile_in_two_columns(make_run: MakeRun, tmp_path: Path) -> None:
    group = _hostile(make_run, tmp_path)
    files = paper_table(group, PAPER_COLUMNS).files() | comparison_table(group).files()
    body = "".join(text for name, text in files.items() if name.endswith(".tex"))
    (tmp_path / "a.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{body}\\end{{document}}\n"
    )
    options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in str(LATEX) else []
    done = subprocess.run(
        [str(LATEX), *options, "a.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "a.pdf").stat().st_size > 1000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    save = paper_figures.save_figure

    def note(figure: Figure, stem: Path, formats: tuple[str, ...]) -> str:
        figures.append(figure)
        return save(figure, stem, formats)

    monkeypatch.setattr(paper_figures, "save_figure", note)
    return figures


def test_figures_are_a_column_wide_and_nothing_stands_out(
    make_run: MakeRun, tmp_path: Path, drawn: list[Figure]
) -> None:
    for seed in (0, 1):
        make_run("lae", seed)
        make_run("finetune", seed, decay=0.3, parameters={"backbone": 300_000, "added": 7})
        make_run("a method whose name is longer than any column of a paper is wide, nearly", seed)
    group = only_group(tmp_path)
    files = paper_figures.save_paper_figures(group, 3.25, tmp_path, ("svg", "pdf"))
    assert [path.name for path in files if path.suffix == ".svg"] == [
        f"digits-{name}-paper.svg" for name in ("accuracy", "forgetting", "pareto-added-parameters")
    ]
    for figure in drawn:
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        assert {text.get_fontsize() for text in texts} == {8.0}
        drawn_in = figure.get_tightbbox()
        assert drawn_in is not None
        assert drawn_in.x0 >= 0
        assert drawn_in.y0 >= 0
        assert drawn_in.x1 <= 3.25
        assert drawn_in.y1 <= figure.get_figheight()
    for path in files:
        if path.suffix == ".svg":
            text = path.read_text()
            assert 'width="234pt"' in text
            assert ">lae</text>" in text  # all have two seeds, so that a legend need not say it
            assert {float(size) for size in re.findall(r"font: ([\d.]+)px", text)} <= {8.0}
        else:
            data = path.read_bytes()
            assert b"/FontFile2" in data, "letters are text in an embedded TrueType font"
            assert b"/Type3" not in data


@pytest.mark.slow
def test_a_report_for_a_paper(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", 0)
    make_run("finetune", 0, decay=0.3)
    paper = Paper(columns=paper_columns(["a_last", "ece"]), column_width=2.5)
    pages = [
        write_report([tmp_path / "runs"], tmp_path / name, formats=["pdf"], paper=paper)
        for name in ("one", "two")
    ]
    assert [path.name for path in pages[0].files] == [path.name for path in pages[1].files]
    for one, two in zip(pages[0].files, pages[1].files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    names = {path.name for path in pages[0].files}
    assert {"digits-accuracy-paper.pdf", "digits-accuracy-paper.svg", "digits-paper.tex"} <= names
    page = pages[0].html.read_text()
    assert "A table of a_last_micro, ece: " in page
    assert "2.5 inches wide" in page
    assert 'href="figures/digits-accuracy-paper.pdf"' in page
    assert r"\caption{digits: one seed; all in percent; best in bold.}" in page
    # Elsewhere nothing changes.
    usual = write_report([tmp_path / "runs"], tmp_path / "usual", formats=["pdf"])
    assert {path.name for path in usual.files} == {
        name for name in names if "-paper.pdf" not in name and "-paper.svg" not in name
    }
    for path in usual.files:
        if path.parent.name == "figures":
            assert path.read_bytes() == (tmp_path / "one" / "figures" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a_lst"], "unknown column 'a_lst'; did you mean 'a_last' or 'a_last_micro'"),
        (["ece", "forgeting"], "unknown column 'forgeting'; did you mean 'forgetting'"),
        (["xyz"], "unknown column 'xyz'. Known: a_avg_micro, a_avg_task_mean"),
        (
            ["a_last", "a_last_micro"],
            "`columns` must name each column once, got 'a_last_micro' twice",
        ),
        ([], "`columns` must name at least one column, got none"),
    ],
)
def test_wrong_columns_end_in_a_sentence(names: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        paper_columns(names)


@pytest.mark.parametrize("width", [0.0, -3.0, 1.4, 21.0, float("nan"), float("inf")])
def test_a_width_is_one_of_paper(width: float) -> None:
    with pytest.raises(InputError, match=r"`column_width` must be from 1\.5 to 20 inches, got "):
        Paper(column_width=width)
