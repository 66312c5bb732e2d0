"""How adapters were chosen, on the page and in its tables."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cl_adapters.records.tables import (
    read_retrieval,
)
from cl_adapters.reports.report import write_report
from cl_adapters.reports.tables.retrieval import RETRIEVAL_MEASURES
from tests.reports.conftest import MakeRun
from tests.reports.retrieving import choose, load_section, write_retrieving


class _Page(HTMLParser):
    """Collects ids, links and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" else []


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_page_has_the_section_only_where_there_is_retrieval(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("lae", stream="plain")
    choose(make_run, seeds=2)
    make_run("lae", 0, sizes=(1,) * 4)
    alone = write_report([tmp_path / "runs" / "plain"], tmp_path / "alone", formats=["svg"])
    assert not any("retrieval" in path.name for path in alone.files)
    text = alone.html.read_text()
    body = text[text.index("<body>") :]
    for word in ("etrieval", "Spoiled", "correction", "answers"):
        assert word not in body
    both = write_report([tmp_path / "runs"], tmp_path / "both", formats=["svg"])
    page = _Page(both.html.read_text())
    assert {path for path in (tmp_path / "both").rglob("*") if path.is_file()} == set(both.files)
    assert len(set(page.ids)) == len(page.ids)
    sections = [name for name in page.ids if re.fullmatch(r"retrieval-\d+", name)]
    assert sections == ["retrieval-1"]  # of `digits`; `plain` comes second
    assert {f"define-1-{column.name}" for column in RETRIEVAL_MEASURES} <= set(page.ids)
    for link in page.links:
        assert link[1:] in page.ids if link[0] == "#" else (both.html.parent / link).exists()
    references = re.findall(r"url\(#([^)]+)\)", both.html.read_text())
    assert set(references) <= set(page.ids)
    plain = {name: data for name, data in _bytes(tmp_path / "both").items() if "/plain-" in name}
    assert plain == {
        name: data for name, data in _bytes(tmp_path / "alone").items() if "/plain-" in name
    }
    names = {path.name for path in both.files}
    assert {f"digits-retrieval.{kind}" for kind in ("csv", "md", "tex")} <= names
    assert not any("retrieval" in name and "lae" in name for name in names)


@pytest.mark.slow
# All figures are drawn into files by one function, which test_report.py tries in every format.
@pytest.mark.parametrize("formats", [["svg"], None])
def test_report_has_the_same_bytes(
    make_run: MakeRun, tmp_path: Path, formats: list[str] | None
) -> None:
    choose(make_run, seeds=2)
    for name in ("one", "two"):
        write_report([tmp_path / "runs"], tmp_path / name, formats=formats)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_table_holds_means_of_its_runs(make_run: MakeRun, tmp_path: Path) -> None:
    choose(make_run, seeds=3)
    _, section = load_section(tmp_path)
    files = section.files()
    (means,) = csv.DictReader(io.StringIO(files["digits-retrieval.csv"]))
    runs = list(csv.DictReader(io.StringIO(files["digits-retrieval-runs.csv"])))
    assert len(runs) == 3 * 4
    for column in RETRIEVAL_MEASURES:
        last = [float(line[column.name]) for line in runs if line["experience"] == "3"]
        assert float(means[f"{column.name}_mean"]) == pytest.approx(sum(last) / 3, abs=1e-5)
    assert "Saved: samples predicted right" in files["digits-retrieval.md"]
    assert r"\toprule" in files["digits-retrieval.tex"]
    assert set(section.retrievals["mos"][0].shares) == {each.name for each in RETRIEVAL_MEASURES}


def test_a_damaged_file_makes_the_run_a_broken_one(make_run: MakeRun, tmp_path: Path) -> None:
    choose(make_run, seeds=3)
    folders = sorted(path.parent for path in (tmp_path / "runs").rglob("run.json"))
    (folders[0] / "retrieval.parquet").write_bytes(b"x")
    read_retrieval(folders[1]).drop(columns="visited").to_parquet(folders[1] / "retrieval.parquet")
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert summary.num_finished == 1
    notes = [note for note in summary.notes if note.startswith("Skipped")]
    assert [str(folder) in note for folder, note in zip(folders, notes, strict=False)] == [True] * 2
    assert summary.html.read_text().count("must be a readable retrieval table") == 2


@pytest.mark.slow
def test_mixed_protocols_are_marked(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        write_retrieving(make_run("mos", folder=folder, fingerprint={"weights": name}))
    forced = write_report([tmp_path / "runs"], tmp_path / "forced", force=True, formats=["svg"])
    for path in forced.files:
        if path.suffix in {".svg", ".md", ".tex"} or path.name.endswith("retrieval.csv"):
            assert "ixed protocols" in path.read_text(), path


def test_hostile_names_are_harmless(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run('<script>alert("1")</script>$a$', folder=tmp_path / "runs" / "0"))
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert "<script>alert" not in summary.html.read_text()
    assert "img" not in _Page(summary.html.read_text()).tags
    for path in summary.files:
        assert re.fullmatch(r"[A-Za-z0-9.-]+", path.name)
