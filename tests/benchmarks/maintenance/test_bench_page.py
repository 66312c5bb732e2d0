"""The page on speed shows what is stored, and the figure of growth what was measured."""

import json
from pathlib import Path

import pytest

from cl_adapters.benchmarks.maintenance.bench_page import page_tables, with_tables
from cl_adapters.benchmarks.maintenance.bench_scaling import Point, draw
from cl_adapters.errors import InputError

ROOT = Path(__file__).parents[3]
STORED = ROOT / "docs" / "benchmarks"


@pytest.mark.parametrize("name", ["speed", "speed-family"])
def test_the_page_holds_the_stored_tables(name: str) -> None:
    page = (ROOT / "docs" / "speed.md").read_text("utf-8")
    assert with_tables(page, STORED / f"{name}.json") == page


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(InputError, match="'<!-- tables of speed -->', got none"):
        with_tables("# Speed", STORED / "speed.json")


def test_a_table_has_a_row_for_each_target_and_a_column_for_each_length(tmp_path: Path) -> None:
    metric = {"name": "gain", "value": 3.0, "target": 10.0, "better": "more", "bound": 3}
    row = {"strategy": "lae", "phase": "train", "images/s": 1234.5, "floors": 1.25}
    stored = {
        "settings": {"backbone": "vit", "image_size": 96, "precision": "fp32"},
        "machine": {"device": "cpu", "cpu": "AVX2", "threads": 1, "torch": "2"},
        "metrics": [metric],
        "rows": [{**row, "experiences": 5}, {**row, "experiences": 10, "floors": 2.0}],
    }
    (tmp_path / "speed.json").write_text(json.dumps(stored))
    tables = page_tables(tmp_path / "speed.json")
    assert "| gain | 3.00 | ≥ 10 | no, at best 3 |" in tables
    assert "| lae | train | 1.25 | 2.00 | 1,234 |" in tables


def test_each_axis_and_measure_has_a_panel_with_a_line_a_strategy() -> None:
    points = [
        Point(name, axis, at, 1.0 * at, 0.001 * at, 2**20 * at)
        for name in ("a", "b")
        for axis in ("experiences", "classes")
        for at in (1, 2)
    ]
    panels = draw(points).axes
    assert len(panels) == 6
    assert all(len(panel.lines) == 2 for panel in panels)
    drawn = [list(panel.lines[1].get_ydata()) for panel in panels[::2]]
    assert drawn == [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
