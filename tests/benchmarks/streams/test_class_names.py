"""Class orders that name the classes: positions by hand, files, and what is wrong by name."""

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.class_names import named_order, order_text
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord, find_runs

PETS = ["cat", "dog", "guinea pig"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_names_are_the_positions_of_their_classes(order: tuple[int, ...]) -> None:
    text = " , ".join(PETS[place] for place in order)
    assert named_order(text, PETS) == order


@pytest.mark.parametrize("text", ["natural", "seeded", "numpy1993", "2,0,1", "2, 0, 1", "7,8"])
def test_rules_and_positions_are_left_as_they_are(text: str) -> None:
    assert named_order(text, PETS) == text


def test_numbers_are_names_where_they_are_no_positions() -> None:
    assert named_order("10,2,1", ["1", "2", "10"]) == (2, 1, 0)
    assert named_order("1,0,2", ["0", "1", "2"]) == "1,0,2"
    assert named_order("1,0,2", ["2", "0", "1"]) == "1,0,2", "all positions: as ever"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,dgo,guinea pig", "unknown class in the class order 'dgo'; did you mean 'dog'?"),
        ("cat,dog,cat,guinea pig", "class order must hold each class once, got 'cat' twice"),
        ("dog,cat", "class order must hold each class once, 'guinea pig' is missing"),
        ("dog", "class order must hold each class once, 'cat', 'guinea pig' are missing"),
        ("cat,,dog", "unknown class in the class order ''"),
        ("natral", "unknown class order 'natral'; did you mean 'natural'?"),
        (
            "cat\rdog",
            "class order must be one line of names separated by commas, got 'cat\\\\rdog'",
        ),
    ],
)
def test_a_wrong_name_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        named_order(text, PETS)
    assert str(caught.value).startswith(message.replace("\\\\", "\\"))


def test_a_file_holds_a_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "order.txt"
    path.write_text("\ufeffdog\n\n  guinea pig \r\ncat\n", "utf-8")
    for text in (str(path), f"@{path}"):
        assert named_order(order_text(text), PETS) == (1, 2, 0)
    other = tmp_path / "order"
    other.write_text("dog\ncat\nguinea pig", "utf-8")
    assert order_text(f"@{other}") == "dog,cat,guinea pig"
    assert order_text(str(other)) == str(other), "no file without the mark"


names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)
    .map(str.strip)
    .filter(bool),
    min_size=2,
    max_size=5,
    unique=True,
)


@given(names=names)
def test_any_names_of_a_file_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("orders") / "order.txt"
    path.write_text("\n".join(names), "utf-8")
    text = order_text(f"@{path}")
    assert order_text(text) == text, "a recipe that is read again names no file"
    found = named_order(text, sorted(names))
    if isinstance(found, tuple):  # else all are numbers and positions
        assert [sorted(names)[place] for place in found] == names
    else:
        assert sorted(map(int, names)) == list(range(len(names)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "must be a readable text file, got"), (b"", "must be a file with a class name a line, got none"), (b"\xff\xfe", "must be a readable text file")],
)  # fmt: skip
def test_a_file_that_holds_no_names_is_refused(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "o.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        order_text(str(tmp_path / "o.txt"))


def run(out: Path, order: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app,
        ["run", "--strategy", "simplecil", "--backbone", "test_vit", "--weights", "random",
         "--image-size", "32", "--increment", "5", "--class-order", order, "--out", str(out)],
    )  # fmt: skip
    return result.exit_code, result.output


def test_a_run_keeps_the_names_and_its_protocol_the_positions(tmp_path: Path) -> None:
    from cl_adapters.benchmarks.data.sources import open_source  # noqa: PLC0415

    digits = open_source("digits").classes
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    path = tmp_path / "order.txt"
    path.write_text("\n".join(digits[place] for place in order), "utf-8")
    code, text = run(tmp_path / "runs", f"@{path}")
    assert code == 0, text
    path.unlink()
    (folder,) = find_runs([tmp_path / "runs"])
    record = RunRecord.read(folder)
    assert record.fingerprint["class_order"] == order
    assert record.classes == [digits[place] for place in order]
    assert record.config["class_order"] == ",".join(record.classes)
    assert RunConfig.parse(record.config).class_order == record.config["class_order"]


def test_bad_orders_end_with_code_2_and_one_sentence(tmp_path: Path) -> None:
    code, text = run(tmp_path / "runs", "zero,one")
    assert code == 2
    assert "unknown class in the class order 'zero'" in text
    code, text = run(tmp_path / "runs", "@nowhere.txt")
    assert code == 2
    assert "class order '@nowhere.txt' must be a readable text file" in text
    assert text.strip().count("\n") == 0
    assert not (tmp_path / "runs").exists()
