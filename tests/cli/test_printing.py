"""Tables on a terminal, in a pipe, and of a width that somebody names."""

from pathlib import Path

import pytest
from rich.cells import cell_len

from cl_adapters.benchmarks.listing import list_table
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


WORDY = [
    ["name", "order", "weights", "title"],
    ["pilot-cifar100-b0inc10", "numpy1993", "augreg_in21k_ft_in1k", "CIFAR-100 B0-Inc10 as in PILOT"],
    ["\u732b\u732b", "natural", "", ""],
]  # fmt: skip


@pytest.mark.parametrize("columns", [30, 50, 60, 80, 100, 200])
def test_a_table_fits_and_loses_no_letter(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(WORDY)
    text = capsys.readouterr().out
    assert max(map(cell_len, text.splitlines())) <= columns
    assert sorted(text.replace(" ", "").replace("\n", "")) == sorted(
        "".join(cell for row in WORDY for cell in row).replace(" ", "")
    )
    whole = [word for row in WORDY for cell in row for word in cell.split() if word in text.split()]
    if columns >= 80:
        assert whole == [word for row in WORDY for cell in row for word in cell.split()]
    if columns >= 50:
        assert "pilot-cifar100-b0inc10" in whole, "names are what one copies"


@pytest.mark.parametrize("what", ["strategies", "streams", "protocols", "backbones", "peft", "heads", "routers", "detectors", "policies"])  # fmt: skip
def test_every_listing_fits_a_terminal_of_80_columns(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = list_table(what, tmp_path)
    print_table(rows)
    text = capsys.readouterr().out
    assert max(map(cell_len, text.splitlines())) <= 80
    assert all(row[0] in text for row in rows), "names stay whole"


def test_headers_are_folded_before_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "31")
    print_table([["stream", "method", "forgetting"], ["photos-quick", "simplecil", "25.0"]])
    text = capsys.readouterr().out
    assert {"photos-quick", "simplecil", "25.0"} <= set(text.split())
    assert "forgetting" not in text.split()
