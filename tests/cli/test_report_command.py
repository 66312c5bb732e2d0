"""`cl-adapters report`: what it makes for a paper, and the browser that it opens."""

import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.cli import app
from tests.reports.conftest import run_maker


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run = run_maker(tmp_path)
    make_run("lae", sizes=(2, 2))
    return tmp_path / "runs"


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--columns", "a_lst"], "unknown column 'a_lst'; did you mean 'a_last'"),
        (["--columns", ","], "`columns` must name at least one column, got none"),
        (["--style", "papper"], "unknown style 'papper'; did you mean 'paper'"),
        (["--column-width", "3"], "--column-width needs --style paper, got --style page"),
        (["--style", "paper", "--column-width", "0"], "from 1.5 to 20 inches, got 0"),
    ],
)
def test_bad_options_end_in_a_sentence(
    tmp_path: Path, runs: Path, options: list[str], sentence: str
) -> None:
    code, text = call(str(runs), "--out", str(tmp_path / "out"), *options)
    assert (code, sentence in text) == (2, True), text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_the_page_is_opened_where_there_is_a_browser(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or is_there)
    out = tmp_path / "out"
    options = ["--formats", "svg", "--style", "paper", "--columns", "forgetting,a_last"]
    code, text = call(str(runs), "--out", str(out), *options, "--open")
    assert code == 0, text
    assert opened == [(out / "report.html").resolve().as_uri()]
    assert ("no browser could be started" in text) is not is_there
    header = (out / "tables" / "digits-paper.csv").read_text().splitlines()[0]
    assert header.split(",")[-4::2] == ["forgetting_from_best_mean", "a_last_micro_mean"]
    assert (out / "figures" / "digits-accuracy-paper.svg").is_file()


def test_help_ends_with_examples() -> None:
    code, text = call("--help")
    assert code == 0
    assert "cl-adapters report runs --out report --open" in text.split("Examples:")[1]
