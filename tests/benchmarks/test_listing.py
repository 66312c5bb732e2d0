"""The listing of strategies comes from a table that is what the classes say, and loads no torch."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from cl_adapters.benchmarks.listing import LISTINGS, list_table
from cl_adapters.benchmarks.listing.methods import TABLE, live_methods
from cl_adapters.errors import InputError
from cl_adapters.strategies import STRATEGIES


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_table_of_strategies_is_what_the_classes_say() -> None:
    table = json.loads((files("cl_adapters.strategies") / TABLE).read_text("utf-8"))
    assert table == live_methods(), "run: python docs/generate.py"


def test_listing_strategies_loads_no_torch() -> None:
    code = (
        "import sys\nfrom cl_adapters.cli import app\n"
        "try: app(['list', 'strategies'])\n"
        "except SystemExit: print([m for m in ('torch', 'avalanche') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
    assert "avalanche:Replay" in result.stdout


def test_strategies_are_listed_with_every_option(tmp_path: Path) -> None:
    rows = list_table("strategies", tmp_path)
    assert set(STRATEGIES) <= {row[0] for row in rows}
    start = next(place for place, row in enumerate(rows) if row[0] == "lae")
    stop = next(place for place in range(start + 1, len(rows)) if rows[place][0])
    options = {row[1]: row[2] for row in rows[start + 1 : stop]}
    fields = STRATEGIES["lae"].config_class.model_fields
    assert options == {name: str(field.default) for name, field in fields.items()}


def test_an_unknown_listing_is_refused_with_near_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown listing 'strategy'; did you mean 'strategies'"):
        list_table("strategy", tmp_path)
    assert "runs" in LISTINGS
