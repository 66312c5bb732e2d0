"""The run directory: round trips, atomic writes, torn files."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cl_adapters import records
from cl_adapters.errors import InputError
from cl_adapters.records import RunRecord


def record(**changes: object) -> RunRecord:
    values = {
        "strategy": "lae", "stream": "digits", "seed": 3, "config": {"increment": 2},
        "fingerprint": {"weights": "ab"}, "classes": ["a", "ü"], "experiences": [[0], [1]],
    }  # fmt: skip
    return RunRecord(**{**values, **changes})  # type: ignore[arg-type]


def frame(rows: int, experience: int = 0) -> pd.DataFrame:
    values = {name: range(rows) for name in records.PREDICTION_COLUMNS}
    return pd.DataFrame({**values, "experience": experience})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    written = record(state="failed", error="why", seconds=1.5)
    written.write(tmp_path)
    assert RunRecord.read(tmp_path) == written


def test_the_directory_tells_stream_strategy_seed_and_recipe() -> None:
    one, two = record().directory, record(config={"increment": 3}).directory
    assert one.parts[:2] == ("digits", "lae")
    assert one.name.startswith("seed3-")
    assert one != two
    assert record(config={"increment": 2}).directory == one


def test_predictions_come_back_with_the_published_columns(tmp_path: Path) -> None:
    assert list(records.read_predictions(tmp_path)) == list(records.PREDICTION_COLUMNS)
    records.write_predictions(tmp_path, frame(3).assign(surplus=1))
    found = records.read_predictions(tmp_path)
    assert found.to_dict("list") == frame(3).astype(found.dtypes.to_dict()).to_dict("list")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with records.atomic_path(path) as temporary:
            temporary.write_text("half of the new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_events_survive_a_torn_last_line(tmp_path: Path) -> None:
    assert records.read_events(tmp_path) == []
    records.append_event(tmp_path, "phase", 0, 1.25, name="train", images=7)
    records.append_event(tmp_path, "evaluation", 1, 2, images=3, passes=1.0)
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "pha')
    events = records.read_events(tmp_path)
    assert [event["event"] for event in events] == ["phase", "evaluation"]
    assert events[0] == {
        "event": "phase",
        "experience": 0,
        "seconds": 1.25,
        "name": "train",
        "images": 7,
    }
    records.truncate_events(tmp_path, 1)
    assert [event["experience"] for event in records.read_events(tmp_path)] == [0]
    path.write_text('{broken\n{"event": "x"}\n')
    with pytest.raises(InputError, match="line 1 must be an event"):
        records.read_events(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be a readable run record"),
        ("[]", "must hold every key of a run record"),
        ('{"seed": 1}', r"lacks \['classes', 'config'"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=message):
        RunRecord.read(tmp_path)


def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    record().write(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(InputError, match="must have format 1, got 99"):
        RunRecord.read(tmp_path)


def test_damaged_predictions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(InputError, match="must be a readable predictions table"):
        records.read_predictions(tmp_path)


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("b/one", "a/two"):
        (tmp_path / name).mkdir(parents=True)
        record().write(tmp_path / name)
    assert records.find_runs([tmp_path]) == [tmp_path / "a/two", tmp_path / "b/one"]
    assert records.find_runs([tmp_path / "a", tmp_path]) == records.find_runs([tmp_path])
    with pytest.raises(InputError, match="must exist"):
        records.find_runs([tmp_path / "none"])
