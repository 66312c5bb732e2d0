"""The card of a bundle: what it says is what the run measured, whatever the classes are called."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import cl_adapters as cla
from cl_adapters.bundle.files import read_learned_model
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.card import card, measured_so_far
from tests.bundle.runs import learn, write_pictures

ODD = ("a|b", "c`d*", "# e", "<b>f</b>")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    names = tuple(name.replace("/", "") for name in ODD)
    return learn(write_pictures(root / "data", names), root / "runs", "simplecil")[1]


def metadata(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    values: dict[str, Any] = yaml.safe_load(found[1])
    return values


def test_the_numbers_are_those_of_the_predictions(run: Path) -> None:
    rows = read_predictions(run)
    text = card(read_learned_model(run).sheet, measured_so_far(run))
    for experience in (0, 1):
        part = rows[rows["experience"] == experience]
        share = 100 * (part["prediction"] == part["target"]).mean()
        assert f"| {experience} | {share:.2f} % |" in text
    last = rows[rows["experience"] == 1]
    worst = (last["prediction"] == last["target"]).groupby(last["target"]).mean().min()
    first_class = text[text.index("worst first") :].splitlines()[4]
    assert first_class.endswith(f"| {100 * worst:.1f} % |")


def test_model_hubs_can_read_the_metadata(run: Path, tmp_path: Path) -> None:
    place = cla.export(run, tmp_path / "bundle")
    values = metadata((place / "README.md").read_text("utf-8"))
    assert values["library_name"] == "cl-adapters"
    assert values["base_model"].startswith("test_vit")
    written = json.loads((place / "bundle.json").read_text("utf-8"))["sheet"]["metrics"]
    shown = values["model-index"][0]["results"][0]["metrics"]
    assert {each["type"]: each["value"] for each in shown} == {
        name: float(f"{value:.4g}") for name, value in written.items()
    }


def test_names_are_no_markup(run: Path) -> None:
    text = card(read_learned_model(run).sheet, None)
    table = text[text.index("| experience |") :].split("\n\n")[0].splitlines()
    cells = [re.split(r"(?<!\\)\|", line) for line in table]
    assert {len(line) for line in cells} == {5}
    assert not re.search(r"(?<!\\)<b>", text)


def test_what_was_not_measured_is_said(run: Path) -> None:
    sheet = read_learned_model(run).sheet
    unfinished = dataclasses.replace(sheet, run={**sheet.run, "state": "interrupted"})
    text = card(unfinished, None)
    assert "Nothing was measured of it." in text
    assert "Its run is not finished" in text
    assert "model-index" not in text
