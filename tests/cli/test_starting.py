"""What a command says while it loads: at once, and once."""

import sys

import pytest

from cl_adapters.cli.starting import loading_figures, loading_methods


@pytest.mark.parametrize(
    ("quiet", "is_loaded", "lines"), [(False, False, 2), (False, True, 0), (True, False, 0)]
)
def test_it_says_so_unless_it_is_loaded_or_shall_be_quiet(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    quiet: bool,
    is_loaded: bool,
    lines: int,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("cl_adapters.cli.starting.import_module", asked.append)
    if not is_loaded:
        monkeypatch.delitem(sys.modules, "torch")
    with loading_methods(quiet=quiet):
        printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", lines)
    assert asked == ["torch"] * (lines > 0)


def test_figures_are_announced_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", sys)
    with loading_figures():
        assert capsys.readouterr().err == ""
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    with loading_figures():
        assert capsys.readouterr().err == "loading Matplotlib\n"
