"""Experiences that name their classes: by hand, from a file, in a run, its record and its report."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.class_groups import groups_text, positions_of_groups
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

PETS = ["cat", "dog", "emu", "fox"]
TINY = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32"]


def test_experiences_bring_their_classes_one_after_the_other() -> None:
    text = groups_text({"wild": ["fox"], "home": ["dog", "cat"], "farm": ["emu"]})
    order, experiences = positions_of_groups(text, PETS)
    brought = [[PETS[order[position]] for position in each] for each in experiences]
    assert brought == [["fox"], ["dog", "cat"], ["emu"]]
    assert [position for each in experiences for position in each] == [0, 1, 2, 3]


def test_a_file_a_table_and_the_line_of_a_recipe_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pets.toml"
    path.write_text('zoo = ["emu", "fox"]\n"at home" = ["dog", "cat"]\n', "utf-8")
    line = groups_text(str(path))
    assert list(json.loads(line).items()) == [("zoo", ["emu", "fox"]), ("at home", ["dog", "cat"])]
    assert line == groups_text(line) == groups_text(json.loads(line))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.toml", "experiences file 'nowhere.toml' must be a readable TOML file, got"),
        ("{pets", "recipe key `experiences` must give each experience a list of class names"),
        ({}, "got {}"),
        ({"pets": "cat"}, "got 'cat' for 'pets'"),
        ({"pets": []}, "got [] for 'pets'"),
        ({"pets": ["cat", 3]}, "got ['cat', 3] for 'pets'"),
        (["cat"], "got ['cat']"),
    ],
)
def test_what_is_no_list_of_names_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        groups_text(value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["cat", "dgo"], "b": ["emu", "fox"]}, "unknown class in the experiences 'dgo'; did you mean 'dog'?"),
        ({"a": ["cat", "dog"], "b": ["cat", "emu", "fox"]}, "experiences must hold each class once, got 'cat' twice"),
        ({"a": ["cat", "dog"], "b": ["emu"]}, "experiences must hold each class once, 'fox' is missing"),
    ],
)  # fmt: skip
def test_every_class_comes_once(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        positions_of_groups(groups_text(groups), PETS)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "beside", [{"increment": 2}, {"first": 1}, {"class_order": "natural"}, {"scenario": "shift"}]
)
def test_what_says_otherwise_is_refused(beside: dict[str, object]) -> None:
    groups = {"a": ["0"], "b": ["1"]}
    with pytest.raises(InputError, match="experiences"):
        RunConfig.parse({"strategy": "lae", "experiences": groups, **beside})


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_its_record_and_its_report_have_the_names(tmp_path: Path) -> None:
    groups = {"few": ["7"], "odd": ["1", "3", "5", "9"], "even": ["0", "2", "4", "6", "8"]}
    path = tmp_path / "file.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(each)}" for name, each in groups.items()))
    out = str(tmp_path / "runs")
    call("run", "--strategy", "simplecil", *TINY, "--experiences", str(path), "--out", out)
    path.unlink()
    (folder,) = find_runs([tmp_path / "runs"])
    record = RunRecord.read(folder)
    told = [[record.classes[position] for position in each] for each in record.experiences]
    assert told == list(groups.values())
    assert record.fingerprint["experiences"] == [1, 4, 5]
    assert record.fingerprint["experience_names"] == list(groups)
    rows = read_predictions(folder)
    tested = [
        set(rows[(rows["experience"] == 2) & (rows["target_experience"] == each)]["target"])
        for each in range(3)
    ]
    assert tested == [{0}, {1, 2, 3, 4}, {5, 6, 7, 8, 9}]
    again = RunConfig.parse(record.config)
    assert again.model_dump(mode="json") == record.config
    assert not {"increment", "first", "class_order"} & record.config.keys()
    call("report", out, "--out", str(tmp_path / "report"), "--formats", "svg")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "experiences: 1 few (7), 2 odd (1, 3, 5, 9), 3 even (0, 2, 4, 6 and 1 more)." in page


def test_a_recipe_without_experiences_is_what_it_was() -> None:
    config = RunConfig.parse({"strategy": "simplecil"}).model_dump(mode="json")
    assert "experiences" not in config
    assert (config["increment"], config["class_order"]) == (2, "seeded")
