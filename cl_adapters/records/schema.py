"""The page of the docs about the run directory, made from the models that write it.

python -m cl_adapters.records.schema > docs/reference/events.md
"""

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import pyarrow as pa

from cl_adapters.records.event_kinds import EVENT_KINDS, Event
from cl_adapters.records.files import FORMAT_VERSION
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import (
    COLUMN_TEXTS,
    EXAMPLE_COLUMNS,
    PREDICTION_COLUMNS,
    RETRIEVAL_COLUMNS,
)

__all__ = ["run_directory_page"]

_FILES: Final = (
    ("run.json", "what was run, how far it came, where and how long; written last"),
    ("events.jsonl", "what happened, one JSON object a line"),
    ("predictions.parquet", "every prediction of every evaluation"),
    ("retrieval.parquet", "how a method chose among its adapters, if it does"),
    ("examples.parquet", "pictures of what was forgotten, if there are pictures"),
    ("ablation.json", "what all that grew is worth, where `cl-adapters ablate` has asked"),
    ("checkpoints/", "what was learned after each experience, and inside the one in training"),
)
_TABLES: Final = {
    "predictions.parquet": PREDICTION_COLUMNS,
    "retrieval.parquet": RETRIEVAL_COLUMNS,
    "examples.parquet": EXAMPLE_COLUMNS,
}
_WORDS: Final = {
    "boolean": "true or false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "string": "text",
}
_HEAD: Final = f"""# The run directory

This page is made from the models that read and write the files:
`python -m cl_adapters.records.schema > docs/reference/events.md`.

A run lies in `STREAM/STRATEGY/seedSEED-DIGEST/`, where the digest is that of its recipe as it was
written. The format is {FORMAT_VERSION}; earlier ones are turned into it when they are read.
Classes, experiences, blocks and adapters count from 0.
"""


def run_directory_page() -> str:
    """Returns the page as Markdown."""
    parts = [_HEAD, *_table(["File", "Holds"], [(f"`{name}`", text) for name, text in _FILES])]
    parts += ["", "## run.json", "", *_record(), "", "## events.jsonl", ""]
    parts += [
        "Each line has these keys and those of its kind. Kinds and keys that are not here, such as",
        "a plug-in's, may stand there too.",
        "",
    ]
    parts += _event(Event, ())
    for name, kind in EVENT_KINDS.items():
        parts += ["", f"### {name}", "", f"{_first_line(kind)}", ""]
        parts += _event(kind, tuple(Event.model_fields))
    for name, columns in _TABLES.items():
        parts += ["", f"## {name}", "", *_columns(columns)]
    return "\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _record() -> list[str]:
    text = inspect.cleandoc(RunRecord.__doc__ or "")  # as Python 3.13 has it anyway
    _, _, attributes = text.partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    meaning = {name: re.sub(r"\s+", " ", each) for name, each in found}
    rows = [(f"`{item.name}`", meaning[item.name]) for item in fields(RunRecord)]
    return _table(["Key", "Meaning"], [*rows, ("`checksum`", "SHA-256 of all the others.")])


def _event(kind: type[Event], without: Sequence[str]) -> list[str]:
    schema = kind.model_json_schema(by_alias=True)
    rows = [
        (f"`{name}`", _type(each), _unit(each), each["description"])
        for name, each in schema["properties"].items()
        if name not in without
    ]
    return _table(["Key", "Type", "Unit", "Meaning"], rows)


def _first_line(kind: type[Event]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema["type"] == "array":
        inner = _type(schema["items"])
        return f"list of {inner if ' or ' not in inner else f'({inner})'}"
    return _WORDS[schema["type"]]


def _unit(schema: Mapping[str, Any]) -> str:
    if "unit" in schema:
        return str(schema["unit"])
    inner = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return next(filter(None, map(_unit, inner)), "")


def _columns(columns: Mapping[str, pa.DataType]) -> list[str]:
    rows = [(f"`{name}`", str(kind), COLUMN_TEXTS[name]) for name, kind in columns.items()]
    return _table(["Column", "Type", "Meaning"], rows)


if __name__ == "__main__":
    sys.stdout.write(run_directory_page())
