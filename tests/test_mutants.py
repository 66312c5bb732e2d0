"""The table of small wrong changes, and how one is tried."""

import ast
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import mutants

TABLE = mutants.mutants()  # refuses a text that does not stand once
ROOMS = (
    "cl_adapters/vit", "cl_adapters/peft", "cl_adapters/heads", "cl_adapters/shift",
    "cl_adapters/records", "cl_adapters/cache", "cl_adapters/plugins", "cl_adapters/cli",
    "strategies", "strategies/core", "benchmarks/data", "benchmarks/streams", "benchmarks/running",
    "benchmarks/sweeps", "reports", "reports/tables",
)  # fmt: skip


def test_the_table_reaches_every_room_and_names_tests_that_are_there() -> None:
    assert len(TABLE) >= 120
    assert len({each["name"] for each in TABLE}) == len(TABLE)
    assert set(ROOMS) <= {str(Path(each["place"]).parent) for each in TABLE}
    texts: dict[str, str] = {}
    for each in TABLE:
        assert each["new"] != each["old"]
        for name, _, test in (test.partition("::") for test in each["tests"]):
            text = texts.setdefault(name, (mutants.ROOT / name).read_text("utf-8"))
            assert f"def {test.partition('[')[0]}(" in text or not test, each["name"]


def test_every_change_is_still_python() -> None:
    for each in TABLE:
        text = (mutants.ROOT / each["place"]).read_text("utf-8")
        ast.parse(text.replace(each["old"], each["new"]))


def test_a_seed_chooses_a_sample_and_words_choose_names_and_places() -> None:
    def chosen(seed: str = "a", sample: int | None = 20, only: str = "") -> list[str]:
        options = Namespace(seed=seed, sample=sample, only=only)
        return [each["name"] for each in mutants.selected(options)]

    assert len(set(chosen())) == 20
    assert chosen() == chosen()
    assert chosen() != chosen("b")
    assert chosen(sample=None) == [each["name"] for each in TABLE]
    assert set(chosen(sample=None, only="^MOS: ")) < set(chosen(sample=None, only="MOS|SEMA"))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two copies of a checkout of one file, whose tests are what `child` says."""

    def child(tests: list[str], place: Path, folder: Path) -> int:
        (folder / "told").write_text("FAILED tests/x.py::test_it - why")
        if tests == ["hangs"]:
            time.sleep(60)
        if tests == ["ends"]:
            signal.raise_signal(signal.SIGKILL)
        return int("wrong" in (place / "code.py").read_text())

    monkeypatch.setattr(mutants, "child", child)
    monkeypatch.setattr(mutants, "ROOT", tmp_path / "root")
    monkeypatch.setattr(mutants, "LIMIT_SECONDS", 0.5)
    found = [tmp_path / name for name in ("root", "0", "1")]
    for place in found:
        place.mkdir()
        (place / "code.py").write_text("right = 1\n")
    yield found[1:]
    assert [(place / "code.py").read_text() for place in found] == ["right = 1\n"] * 3


def change(new: str, *tests: str) -> dict[str, Any]:
    return {"name": new, "place": "code.py", "old": "right", "new": new, "tests": list(tests)}


def test_each_change_is_tried_in_a_copy_and_taken_back(
    places: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [change("wrong"), change("harmless"), change("a", "hangs"), change("b", "ends")]
    found = {each.mutant["name"]: each for each in mutants.tried_in_forks(chosen, places)}
    said = {name: mutants.word(each).strip() for name, each in found.items()}
    assert said == {"wrong": "noticed", "harmless": "SURVIVED", "a": "hung", "b": "ended"}
    assert found["wrong"].by == "tests/x.py::test_it"

    def tries(some: list[dict[str, Any]]) -> Iterator[mutants.Try]:
        return mutants.tried_in_forks(some, list(places))

    assert mutants.score(chosen, tries) == 1  # three of four are fewer than 95 %
    assert "3 of 4 noticed (75.0%)" in capsys.readouterr().out
    assert mutants.score(chosen[:1], tries) == 0
    with pytest.raises(RuntimeError, match="must pass without any change"):
        mutants.check_unchanged([change("x", "ends")], tries)


def test_what_tests_nothing_is_no_success() -> None:
    nothing = mutants.Try(change("x"), 4, 0.0, "no such test")
    assert mutants.word(nothing).strip() == "UNCLEAR"
    assert mutants.score([change("x")], lambda _: iter([nothing])) == 2
