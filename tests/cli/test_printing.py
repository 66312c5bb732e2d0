"""Tables on a terminal, in a pipe, and of a width that somebody names."""

import pytest

from cl_adapters.cli.printing import print_table

ROWS = [["name", "meaning"], ["ant", 12 * "many words "]]


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("40", 40), (None, 140)])
def test_a_table_is_as_wide_as_there_is_room(
    columns: str | None,
    widest: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    print_table(ROWS)
    text = capsys.readouterr().out
    assert widest - 15 < max(map(len, text.splitlines())) <= widest
    assert text.split().count("words") == 12


def test_what_a_terminal_obeys_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["class"], ["ant\x1b[31m\udcff"]])
    assert "ant\\x1b[31m\\udcff" in capsys.readouterr().out
