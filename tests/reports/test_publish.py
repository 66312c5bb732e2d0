"""What README and docs show is what was published, and publishing takes sound runs only."""

import csv
import re
from pathlib import Path

import pytest

from cl_adapters.errors import InputError
from cl_adapters.reports.publish import publish
from tests.reports.conftest import MakeRun
from tests.reports.growing import write_growth
from tests.reports.retrieving import write_retrieving

ROOT = Path(__file__).parent.parent.parent
PUBLISHED = ROOT / "reports" / "published"


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("stream", ["cifar100-mini", "gtsrb-64"])
def test_the_results_are_the_published_tables(stream: str) -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    rows = _rows((PUBLISHED / f"{stream}.md").read_text("utf-8"))
    assert len(rows) > 4
    assert "\n".join(rows) in page
    # The short table is the whole one, rounded.
    with (PUBLISHED / f"{stream}.csv").open(encoding="utf-8") as file:
        means = {line["method"]: float(line["a_last_micro_mean"]) for line in csv.DictReader(file)}
    for row in rows[2:]:
        cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
        assert float(cells[2].split(" ±")[0]) == pytest.approx(means[cells[0]], abs=0.051)


def test_every_picture_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_docs_show_published_pictures() -> None:
    shown = set((ROOT / "docs" / "figures").iterdir())
    # Of the bench, of the import contracts and of a page's tables, from no run directory.
    others = ("scaling.png", "rooms.svg", "family.png", "family-cost.png")
    shown -= {ROOT / "docs" / "figures" / name for name in others}
    assert shown
    for picture in shown:
        assert picture.read_bytes() == (PUBLISHED / picture.name).read_bytes(), picture


def test_growth_and_retrieval_are_published_where_there_are_some(
    make_run: MakeRun, tmp_path: Path
) -> None:
    write_growth(make_run("sema", sizes=(1,) * 4), ("a", "b", "a", "c"))
    write_growth(
        make_run("sema", sizes=(1,) * 4, options={"k": 1}, decay=0.2), ("a", "b", "a", "c")
    )
    write_retrieving(make_run("mos", sizes=(1,) * 4))
    names = {path.name for path in publish([tmp_path / "runs"], tmp_path / "out")}
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    assert {"digits-growth.png", "digits-retrieval.png", "digits-detection.md"} <= names


@pytest.mark.slow
def test_publishing_again_gives_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("lae", seed)
        make_run("simplecil", seed, decay=0.2)
    one = publish([tmp_path / "runs"], tmp_path / "one")
    two = publish([tmp_path / "runs"], tmp_path / "two")
    assert {path.name for path in one} == {path.name for path in (tmp_path / "one").iterdir()}
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_unfinished_runs_are_not_published(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae")
    make_run("mos", state="running")
    with pytest.raises(InputError, match="runs to publish must be finished and sound"):
        publish([tmp_path / "runs"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
