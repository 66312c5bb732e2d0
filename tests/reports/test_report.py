import csv
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import rcParams

from cl_adapters.errors import InputError
from cl_adapters.reports.definitions import DETECTION_COLUMNS
from cl_adapters.reports.report import MOST_IN_FULL, write_report
from tests.reports.conftest import MakeRun, run_maker
from tests.reports.growing import write_growth
from tests.reports.lines import append_event
from tests.reports.writing import Written, write_once


class _Page(HTMLParser):
    """Collects what a page loads, links to and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.loads += [values[name] for name in ("src", "xlink:href", "data") if name in values]
        self.loads += (
            [values["href"]] if tag in {"link", "use", "image"} and "href" in values else []
        )


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


_WATCHED: list[str] = []
_OPENED: list[str] = []


def _see(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCHED and event == "open":
        name, mode, _ = arguments
        if any(letter in str(mode) for letter in "wax") and str(name).startswith(_WATCHED[0]):
            _OPENED.append(Path(str(name)).name)


def write_runs(make_run: MakeRun) -> None:
    for seed in (0, 1):
        make_run("lae", seed, decay=0.05)
        make_run("finetune", seed, decay=0.25)


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    write_runs(make_run)
    return tmp_path / "runs"


def test_no_file_of_a_report_is_ever_seen_half_written(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sys.addaudithook(_see)  # stays for the process, and sees nothing after this test
    _WATCHED.append(str(out))
    try:
        summary = write_report([runs], out, formats=["svg", "png", "pdf"])
    finally:
        _WATCHED.clear()
    assert {Path(name).suffix for name in _OPENED} == {".tmp"}
    whole = {name[1:].rsplit(".", 2)[0] for name in _OPENED}  # `.name.process.tmp`
    assert whole == {path.name for path in summary.files}
    assert not list(out.rglob("*.tmp"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of what `runs` holds."""
    root = tmp_path_factory.mktemp("written")
    write_runs(run_maker(root))
    return write_once(root)


def test_page_stands_alone_and_all_its_links_lead_somewhere(written: Written) -> None:
    summary = written.summary
    page = _Page(summary.html.read_text())
    assert all(load.startswith(("#", "data:")) for load in page.loads)
    assert page.tags.count("script") == 1
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (summary.html.parent / link).exists(), link
    references = re.findall(r"url\(#([^)]+)\)", summary.html.read_text())
    assert references
    assert set(references) <= set(page.ids)


def test_summary_names_every_file_and_fits_a_terminal(written: Written) -> None:
    summary = written.summary
    assert {path for path in written.folder.rglob("*") if path.is_file()} == set(summary.files)
    assert [row[:3] for row in summary.table] == [
        ("Stream", "Method", "Seeds"),
        ("digits", "lae", "2"),
        ("digits", "finetune", "2"),
    ]
    assert len({len(row) for row in summary.table}) == 1
    assert summary.num_finished == 4
    (note,) = summary.notes
    assert note.startswith("4 of the runs hold no digests"), "these were written by hand"


def write_in_another_style(runs: Path, out: Path, formats: list[str] | None = None) -> None:
    rcParams["font.size"] = 30  # a user's style must not leak into the report
    try:
        write_report([runs], out, formats=formats)
    finally:
        rcParams["font.size"] = 10


def test_same_records_give_the_same_bytes(written: Written) -> None:
    root = written.folder.parent  # a page tells where its runs lie, as seen from it
    write_in_another_style(root / "runs", root / "again", ["svg"])
    assert _bytes(written.folder) == _bytes(root / "again")


@pytest.mark.slow
def test_figures_of_every_format_have_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", sizes=(2, 2))
    write_report([tmp_path / "runs"], tmp_path / "one")
    write_in_another_style(tmp_path / "runs", tmp_path / "two")
    one = _bytes(tmp_path / "one")
    assert {Path(name).suffix for name in one} >= {".svg", ".png", ".pdf"}
    assert one == _bytes(tmp_path / "two")


def test_drawing_leaves_the_global_style_alone(written: Written) -> None:
    assert written.before
    assert written.after == written.before


def test_hostile_names_are_harmless(make_run: MakeRun, tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    for number, name in enumerate([evil, "../../x", "_hidden", "a$b$^{", "日本\x07", "-->"]):
        place = tmp_path / "runs" / f"{number} <b>&#"
        make_run(name, folder=place, stream="<img src=x onerror=alert(1)>", decay=0.01 * number)
    make_run(evil, 5, folder=tmp_path / "runs" / "bad", state="failed", error=evil)
    summary = write_report([tmp_path / "runs"], tmp_path / "deep" / "report", formats=["svg"])
    text = summary.html.read_text()
    page = _Page(text)
    assert page.tags.count("script") == 1  # ours
    assert evil not in text
    assert "img" not in page.tags
    assert summary.num_finished == 6
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "deep"}
    for path in summary.files:
        assert re.fullmatch(r"[A-Za-z0-9.-]+", path.name)
        assert path.resolve().is_relative_to(tmp_path / "deep" / "report")
    for link in page.links:
        assert not link.startswith(("javascript", "//"))


def test_unfinished_and_broken_runs_are_shown(
    runs: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("sema", state="interrupted", experiences_done=2, error="no space left")
    (make_run("mos") / "predictions.parquet").write_bytes(b"x")
    summary = write_report([runs], tmp_path / "report", formats=["svg"])
    text = summary.html.read_text()
    assert "2 of 4" in text
    assert "no space left" in text
    assert "readable predictions" in text
    assert len(summary.notes) == 3
    assert summary.notes[0].startswith("6 of the runs hold no digests")
    assert not any({"sema", "mos"} & set(row) for row in summary.table)


def test_only_unfinished_runs_still_make_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(state="running")
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert "No run has finished" in summary.html.read_text()
    assert len(summary.table) == 1


def test_one_seed_one_experience_draws_no_forgetting(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(sizes=(4,))
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    names = {path.name for path in summary.files}
    assert "digits-accuracy.svg" in names
    assert "digits-forgetting.svg" not in names


def test_mixed_protocols_are_marked_everywhere(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(fingerprint={"weights": "one"})
    make_run("mos", fingerprint={"weights": "two"})
    apart = write_report([tmp_path / "runs"], tmp_path / "apart", formats=["svg"])
    assert "mixed protocols" not in apart.html.read_text()
    assert len({row[0] for row in apart.table[1:]}) == 2
    forced = write_report([tmp_path / "runs"], tmp_path / "forced", force=True, formats=["svg"])
    for path in forced.files:
        if path.parent.name == "figures" or "comparison" in path.name:
            assert "-mixed-" in path.name
        if path.suffix in {".svg", ".md", ".tex"} or path.name.endswith("comparison.csv"):
            assert "ixed protocols" in path.read_text(), path
    assert any("mixed protocols" in note for note in forced.notes)


def test_text_of_figures_can_be_searched(written: Written) -> None:
    text = (written.folder / "figures" / "digits-accuracy.svg").read_text()
    assert ">lae<" in text
    assert "mean over 2 seeds" in text
    assert "Number of classes seen" in text


def write_growing(make_run: MakeRun) -> None:
    domains = ("plain", "rotation", "plain", "blur", "rotation")
    for seed in (0, 1, 2):
        for detector in ("zscore", "mmd"):
            folder = make_run(
                "sema", seed, stream="shift", sizes=(1,) * 5, options={"detector": detector}
            )
            write_growth(folder, domains, seed=seed, miss=0.0 if detector == "mmd" else 0.7)
        make_run("lae", seed, stream="shift", sizes=(1,) * 5)


@pytest.fixture
def growing(make_run: MakeRun, tmp_path: Path) -> Path:
    write_growing(make_run)
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def written_growth(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of what `growing` holds."""
    root = tmp_path_factory.mktemp("written-growth")
    write_growing(run_maker(root))
    return write_once(root)


def test_growth_is_shown_of_methods_that_grow(written_growth: Written) -> None:
    summary = written_growth.summary
    names = {path.name for path in summary.files}
    assert {path for path in written_growth.folder.rglob("*") if path.is_file()} == set(
        summary.files
    )
    assert {"shift-parameters.svg", "shift-growth.csv"} <= names
    assert {f"shift-detection.{kind}" for kind in ("csv", "md", "tex")} <= names
    assert sum("-growth-" in name for name in names) == 2
    assert not any("growth" in name and "lae" in name for name in names)
    page = _Page(summary.html.read_text())
    assert len(set(page.ids)) == len(page.ids)
    assert {f"define-1-{column.name}" for column in DETECTION_COLUMNS} <= set(page.ids)
    for link in page.links:
        assert link[1:] in page.ids if link[0] == "#" else (summary.html.parent / link).exists()
    assert all(load.startswith(("#", "data:")) for load in page.loads)


def test_detection_table_holds_means_of_its_runs(written_growth: Written) -> None:
    tables = written_growth.folder / "tables"
    means, runs = (
        list(csv.DictReader(io.StringIO((tables / f"shift-{name}.csv").read_text())))
        for name in ("detection", "detection-runs")
    )
    assert {line["method"] for line in means} == {"sema (detector=mmd)", "sema (detector=zscore)"}
    for line in means:
        mine = [run for run in runs if run["method"] == line["method"]]
        assert len(mine) == 3
        for column in DETECTION_COLUMNS:
            values = [float(run[column.name]) for run in mine if run[column.name]]
            mean = float(line[f"{column.name}_mean"])
            assert mean == pytest.approx(sum(values) / len(values), abs=1e-5)
        # Five experiences: rotation, plain again, blur, rotation again.
        assert float(line["changes_mean"]) == 4
        assert float(line["oracle_adapters_mean"]) == 2
    perfect = next(line for line in means if "mmd" in line["method"])
    assert float(perfect["changes_found_mean"]) == 4
    assert float(perfect["adapters_grown_a_block_mean"]) == 2
    assert float(perfect["reuse_on_recurrence_mean"]) == 100
    markdown = (tables / "shift-detection.md").read_text()
    assert "Reuse on recurrence: 100 " in markdown  # the definitions stand below
    assert r"\toprule" in (tables / "shift-detection.tex").read_text()


@pytest.mark.slow
def test_growth_report_has_the_same_bytes(written_growth: Written) -> None:
    root = written_growth.folder.parent
    write_report([root / "runs"], root / "again", formats=["svg"])
    assert _bytes(written_growth.folder) == _bytes(root / "again")


@pytest.mark.slow
def test_methods_that_do_not_grow_leave_the_page_as_it_was(
    runs: Path, growing: Path, tmp_path: Path
) -> None:
    write_report([runs / "digits"], tmp_path / "alone", formats=["svg"])
    write_report([growing], tmp_path / "both", formats=["svg"])
    alone, both = _bytes(tmp_path / "alone"), _bytes(tmp_path / "both")
    assert not any("growth" in name or "detection" in name for name in alone)
    text = alone.pop("report.html").decode()
    body = text[text.index("<body>") :]
    for word in ("rowth", "etection", "timeline", "router", "Oracle"):
        assert word not in body
    assert {name: both[name] for name in alone} == alone
    # A stream that knows its truth shows nothing of it without a method that grows.
    for folder in (runs / "digits").rglob("events.jsonl"):
        truth = {"domain": "plain", "changed": False, "seen_before": False, "severity": 1.0}
        append_event(folder.parent, "domain", 0, 0, **truth)
    write_report([runs / "digits"], tmp_path / "told", formats=["svg"])
    assert (tmp_path / "told" / "report.html").read_text() == text


def test_a_run_with_a_damaged_scan_is_named_and_skipped(growing: Path, tmp_path: Path) -> None:
    folder = next(path.parent for path in sorted((growing / "shift/sema").rglob("run.json")))
    append_event(folder, "scan", 1, 0, block=9)
    append_event(folder, "memory", 4, 0, peak_bytes=1)
    summary = write_report([growing], tmp_path / "report", formats=["svg"])
    assert summary.num_finished == 8
    (note,) = (note for note in summary.notes if note.startswith("Skipped"))
    assert str(folder) in note
    assert "window of a scan event" in note
    assert "window of a scan event" in summary.html.read_text()


def test_hostile_domains_are_harmless(make_run: MakeRun, tmp_path: Path) -> None:
    evil = ['<script>alert("1")</script>', "a$b$^{", "_hidden\x07", "x" * 300]
    write_growth(make_run("sema", sizes=(1,) * 4), evil)
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    page = _Page(summary.html.read_text())
    assert page.tags.count("script") == 1
    assert evil[0] not in summary.html.read_text()
    for path in summary.files:
        assert re.fullmatch(r"[A-Za-z0-9.-]+", path.name)


@pytest.mark.slow
def test_mixed_protocols_are_marked_on_growth_too(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = make_run(
            "sema", folder=tmp_path / "runs" / name, sizes=(1,) * 3, fingerprint={"weights": name}
        )
        write_growth(folder, ("a", "b", "a"))
    forced = write_report([tmp_path / "runs"], tmp_path / "forced", force=True, formats=["svg"])
    for path in forced.files:
        if path.suffix in {".svg", ".md", ".tex"} or path.name.endswith("detection.csv"):
            assert "ixed protocols" in path.read_text(), path


def test_out_must_not_be_a_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(InputError, match="must be a directory"):
        write_report([runs], tmp_path / "report", formats=["svg"])
    assert (tmp_path / "report").read_text() == "mine"


def _kinds(report: Path) -> dict[str, set[str]]:
    """Formats of each figure, by its name without a method."""
    found: dict[str, set[str]] = {}
    for path in (report / "figures").iterdir():
        found.setdefault(re.sub(r"-\d\d-.*", "", path.stem), set()).add(path.suffix)
    return found


@pytest.mark.slow
def test_every_figure_comes_in_all_formats_unless_there_are_many_methods(
    make_run: MakeRun, tmp_path: Path
) -> None:
    every = {".svg", ".png", ".pdf"}
    for number in range(MOST_IN_FULL):
        make_run("m", options={"rank": number}, per_class=4)
    few = write_report([tmp_path / "runs"], tmp_path / "few")
    assert all(kinds == every for kinds in _kinds(tmp_path / "few").values())
    (note,) = few.notes
    assert "hold no digests" in note
    for seed in (0, 1):
        folder = make_run("sema", seed, sizes=(2,) * 4, per_class=4)
        write_growth(folder, ("a", "b", "a", "c"), seed=seed)
    many = write_report([tmp_path / "runs"], tmp_path / "many")
    kinds = _kinds(tmp_path / "many")
    assert kinds["digits-accuracy"] == kinds["digits-phases"] == every
    assert kinds["digits-matrix"] == kinds["digits-growth"] == {".svg"}
    assert "--formats svg,png,pdf writes all" in many.notes[-1]
    page = many.html.read_text()
    assert page.count("--formats svg,png,pdf") == 1
    assert "The first of 2 seeds." in page
    asked = write_report([tmp_path / "runs"], tmp_path / "asked", formats=["pdf", "png"])
    assert all(kinds == every for kinds in _kinds(tmp_path / "asked").values())
    assert "The first of 2 seeds." not in asked.html.read_text()
    assert set(asked.files) == {path for path in (tmp_path / "asked").rglob("*") if path.is_file()}


def test_importing_the_report_loads_no_torch() -> None:
    code = (
        "import sys, cl_adapters.reports.report; "
        "banned = {'torch', 'timm', 'avalanche', 'torchvision', 'sklearn', 'matplotlib.pyplot'}; "
        "sys.exit(str(banned & set(sys.modules)) if banned & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
