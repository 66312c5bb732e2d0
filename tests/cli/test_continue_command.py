"""`cl-adapters continue` from outside: what it says, writes and refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cl_adapters as cla
from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.benchmarks.months import MONTHS, draw, write_months

TINY = ["--strategy", "simplecil", "--backbone", "test_vit", "--weights", "random", "--image-size"]


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_months(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def parent(photos: Path) -> Path:
    out = photos / "runs"
    code, text = call("run", *TINY, 32, "--data", photos / "2026-01", "--out", out, "--quiet")
    assert code == 0, text
    return find_runs([out])[0]


def test_two_months_are_added_listed_and_reported_as_one_curve(
    photos: Path, parent: Path, tmp_path: Path
) -> None:
    newest = parent
    for month in list(MONTHS)[1:]:
        code, text = call("continue", newest, "--data", photos / month, "--out", tmp_path / "runs")
        assert code == 0, text
        number = 3 if newest == parent else 4
        assert f"experience {number} of {number}" in text
        assert f"figures and more: cl-adapters report {tmp_path / 'runs'}" in text
        (newest,) = (
            each
            for each in find_runs([tmp_path])
            if len(RunRecord.read(each).experiences) == number
        )
    code, text = call("list", "runs", "--out", tmp_path)
    assert code == 0
    assert "4/4" in text
    code, text = call(
        "report", parent, tmp_path / "runs", "--out", tmp_path / "page", "--formats", "svg"
    )
    assert code == 0, text
    assert text.count("Not counted by itself") == 1
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "Runs that others go on with" in page
    assert call("verify", newest)[0] == call("verify", parent)[0]


def test_from_python_it_is_three_lines(photos: Path, parent: Path, tmp_path: Path) -> None:
    runs = cla.continue_run(parent, photos / "2026-02", out=tmp_path, cache="off")
    runs = cla.continue_run(runs[0].folder, photos / "2026-03", out=tmp_path, cache="off")
    assert runs.curve()["experience"].tolist() == [0, 1, 2, 3]
    model = cla.load(runs[0].folder)
    assert set(model.classes) == {"ant", "bee", "cat", "dog", "elk", "fox"}


def test_what_is_wrong_is_said_in_a_sentence(photos: Path, parent: Path, tmp_path: Path) -> None:
    for arguments, sentence in [
        ((tmp_path, "--data", photos / "2026-02"), "must be a run directory, with a run.json"),
        ((parent, "--data", photos / "2027-01"), "must be a folder or a file that exists"),
        ((parent, "--data", photos / "2026-02", "--increment", 3), "increment must be from 1 to"),
        (
            (parent, "--data", photos / "all", "--domain-folders", "--increment", 1),
            "`increment` of a part must not go with its key `domain_folders`",
        ),
        (
            (parent, "--data", photos / "2026-02", "--old-test", tmp_path / "nowhere"),
            "must exist and be a directory",
        ),
    ]:
        code, text = call("continue", *arguments, "--out", tmp_path / "out")
        assert code == 2, text
        assert sentence in text
    assert not (tmp_path / "out").exists()


def test_a_class_in_another_spelling_names_both(photos: Path, parent: Path, tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / "new" / "Ant" / f"{number}.png", 0, number)
    code, text = call("continue", parent, "--data", tmp_path / "new", "--out", tmp_path / "out")
    assert code == 2
    assert "class 'Ant' of 'new' must be spelt as the class 'ant'" in text
