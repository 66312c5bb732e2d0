"""The page of the docs says what the models and the tables have."""

from pathlib import Path

from cl_adapters.records.event_kinds import EVENT_KINDS
from cl_adapters.records.schema import run_directory_page
from cl_adapters.records.tables import EXAMPLE_COLUMNS, PREDICTION_COLUMNS, RETRIEVAL_COLUMNS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "events.md"


def test_the_page_is_made_from_the_models() -> None:
    assert PAGE.read_text("utf-8") == run_directory_page(), (
        "run python -m cl_adapters.records.schema > docs/reference/events.md"
    )


def test_every_field_has_its_line() -> None:
    parts = dict(part.split("\n", 1) for part in PAGE.read_text("utf-8").split("\n### ")[1:])
    assert set(parts) == set(EVENT_KINDS)
    for name, kind in EVENT_KINDS.items():
        for key, field in kind.model_fields.items():
            if key not in {"event", "experience", "seconds"}:
                assert f"| `{field.alias or key}` |" in parts[name], f"{key} of {name}"
                assert field.description
    text = PAGE.read_text("utf-8")
    for columns in (PREDICTION_COLUMNS, RETRIEVAL_COLUMNS, EXAMPLE_COLUMNS):
        assert all(f"| `{name}` | {kind} |" in text for name, kind in columns.items())
