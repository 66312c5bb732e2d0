"""The notebook is what today's code makes: its cells run, and its outputs are whole."""

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot as plt

PATH = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"
BOOK = json.loads(PATH.read_text("utf-8"))
CODE = [cell for cell in BOOK["cells"] if cell["cell_type"] == "code"]


def text_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def outputs(kind: str) -> list[dict[str, Any]]:
    return [each["data"] for cell in CODE for each in cell["outputs"] if kind in each["data"]]


def value_of(source: str, names: dict[str, Any]) -> object:
    """Runs a cell as notebooks do: the value is that of its last line, if it is one."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_it_is_a_small_notebook_that_was_run_from_top_to_bottom() -> None:
    assert BOOK["nbformat"] == 4
    assert PATH.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert len({cell["id"] for cell in BOOK["cells"]}) == len(BOOK["cells"])
    for cell in CODE:
        compile(text_of(cell), "cell", "exec")


def test_its_outputs_are_results_and_figures_alone() -> None:
    kinds = {each["output_type"] for cell in CODE for each in cell["outputs"]}
    assert kinds == {"execute_result", "display_data"}  # no error, and no warning on stderr
    assert len(outputs("image/png")) == 2
    assert len(outputs("text/html")) == 3
    assert str(PATH.parent.parent) not in PATH.read_text("utf-8")
    assert "/tmp/" not in PATH.read_text("utf-8")


@pytest.mark.slow
def test_its_cells_run_and_show_what_they_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    plt.close("all")  # what a test before left open would be counted here
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in CODE:
        source = text_of(cell)
        value = value_of(source, names)
        figures, values = len(plt.get_fignums()), int(value is not None)
        plt.close("all")
        shown = [each["data"] for each in cell["outputs"]]
        assert sum("image/png" in each for each in shown) == figures, source
        if not source.endswith(";"):
            assert sum("image/png" not in each for each in shown) == values, source
        if isinstance(value, pd.DataFrame):
            (html,) = ["".join(each["text/html"]) for each in shown]
            assert all(f"<th>{column}</th>" in html for column in value.columns), source
    assert set(names["table"]["method"]) == {"simplecil", "finetune", "mos"}
    assert len(names["runs"]) == 3
