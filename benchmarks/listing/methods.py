"""The strategies and their options, from a table beside them: a listing need not load torch.

`python docs/generate.py` writes the table; a test holds it against the classes.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.listing.meanings import first_line, meaning
from cl_adapters.strategies import STRATEGY_NAMES

__all__ = ["TABLE", "live_methods", "relatives_table", "strategies_table"]

TABLE: Final = "options.json"  # in `cl_adapters.strategies`
_AVALANCHE: Final = "avalanche-lib"  # whose constructors' defaults are options too
Methods = dict[str, Any]


def strategies_table(_: Path) -> list[list[str]]:
    """Returns a row a strategy, and below it one for each of its options."""
    rows = [["strategy", "option", "default", "meaning", "from"]]
    for name, method in _methods()["strategies"].items():
        rows += _rows(name, method, "built in")
    for entry in STRATEGY_NAMES.plugins():
        if entry.value is None:
            rows.append([entry.name, "", "", meaning(entry), entry.origin])
        else:
            rows += _rows(entry.name, _described(entry.value), entry.origin)
    return rows


def relatives_table(name: str) -> list[list[str]]:
    """Returns a row for each strategy that shares pieces with one, those that share most first.

    Args:
        name: Of the strategy: built in, or as a run takes it.

    Raises:
        InputError: If there is none of the name.
    """
    own = set(_named(name)["pieces"])
    found = {**_methods()["strategies"], **_plugins()}
    shared = {other: sorted(own & set(each["pieces"])) for other, each in found.items()}
    rows = [["strategy", "shares", "of", "meaning"]]
    for other in sorted(shared, key=lambda each: (-len(shared[each]), each)):
        if shared[other] and other != name:
            whole = ", ".join(found[other]["pieces"])
            rows.append([other, ", ".join(shared[other]), whole, found[other]["meaning"]])
    return rows


def _named(name: str) -> Mapping[str, Any]:
    known: Mapping[str, Any] | None = _methods()["strategies"].get(name)
    return known or _described(STRATEGY_NAMES.find(name))


def _plugins() -> Methods:
    # Of those that are broken, the listing of all says what is wrong.
    entries = STRATEGY_NAMES.plugins()
    return {each.name: _described(each.value) for each in entries if each.value is not None}


def live_methods() -> Methods:
    """Returns what the table has to hold, asked of the built-in classes."""
    found = {name: _described(STRATEGY_NAMES.find(name)) for name in STRATEGY_NAMES.names()}
    return {_AVALANCHE: version(_AVALANCHE), "strategies": found}


def _methods() -> Methods:
    text = (files("cl_adapters.strategies") / TABLE).read_text("utf-8")
    methods: Methods = json.loads(text)
    # Another Avalanche may have other methods, and other defaults.
    return methods if methods[_AVALANCHE] == version(_AVALANCHE) else live_methods()


def _described(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a strategy; its class loads torch
    fields = kind.config_class.model_fields.items()
    options = [[key, str(each.default), each.description or ""] for key, each in fields]
    return {"meaning": first_line(kind), "pieces": list(kind.pieces), "options": options}


def _rows(name: str, method: Mapping[str, Any], origin: str) -> list[list[str]]:
    options = [["", key, default, text, ""] for key, default, text in method["options"]]
    return [[name, "", "", method["meaning"], origin], *options]
