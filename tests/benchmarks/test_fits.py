"""Which PEFT modules run in which methods: the table of the docs is what happens."""

import re
from pathlib import Path

import pytest

from cl_adapters.benchmarks.listing.fits import FITTED, fits_table, pairs
from cl_adapters.benchmarks.listing.pieces import peft_table, pieces_table
from cl_adapters.peft.registry import PEFTS
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy

PAGE = Path(__file__).parent.parent.parent / "docs" / "pieces.md"


def marked() -> str:
    text = PAGE.read_text("utf-8")
    return text.partition("<!-- modules:begin -->\n")[2].partition("<!-- modules:end -->")[0]


def test_the_table_has_a_row_a_module_and_a_reason_for_each_refusal() -> None:
    rows = [line.strip("|").split("|") for line in marked().splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") for row in rows] == list(PEFTS)
    cells = {
        (row[0].strip(" `"), method): cell.strip()
        for row in rows
        for method, cell in zip(FITTED, row[-len(FITTED) :], strict=True)
    }
    assert set(cells.values()) == {"runs", "refused"}
    reasons = re.findall(r"^- `(\w+)` refuses (.+?): .{20}", marked(), re.MULTILINE)
    assert {pair for pair, cell in cells.items() if cell == "refused"} == {
        (peft, method) for method, names in reasons for peft in re.findall(r"`(\w+)`", names)
    }


def test_the_listing_says_where_each_module_comes_from_and_how_large_it_is() -> None:
    header, *rows = peft_table(Path())
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["adaptformer"]["parameters at width 768"] == "99,136"
    assert by_name["vida"]["slot"] == "qkv, proj"
    assert all(by_name[name]["source"] for name in PEFTS)


def test_one_listing_holds_the_pieces_of_all_kinds() -> None:
    header, *rows = pieces_table(Path())
    assert all(len(row) == len(header) for row in rows)
    kinds = {row[1]: row[0] for row in reversed(rows)}
    assert {*kinds} == {"peft", "head", "router", "detector", "policy"}
    assert [row[0] for row in rows if row[1] == "peft"] == list(PEFTS)
    assert ["linear", "head", "", "769 a class"] in [row[:4] for row in rows]
    assert all(row[4] for row in rows), "each says where it comes from, or what it is"


@pytest.mark.slow
def test_the_table_is_what_the_code_writes() -> None:
    assert marked() == fits_table(), "run: python docs/generate.py"


@pytest.mark.slow
@pytest.mark.parametrize("method", FITTED)
def test_what_runs_runs_soundly(method: str) -> None:
    kind = find_strategy(method)
    for peft, name, reason in pairs():
        if name == method and not reason:
            found = check_strategy(kind, options={"peft": peft}, checks=["answers", "backbone"])
            assert found == [], peft
