"""The run directory: round trips, atomic writes, torn files."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from cl_adapters import records
from cl_adapters.errors import InputError
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord


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
    phase = records.make_event("phase", seconds=1.25, name="train", images=7)
    records.append_events(tmp_path, [phase])
    evaluation = records.make_event("evaluation", experience=1, seconds=2, images=3, passes=1.0)
    records.append_events(tmp_path, [evaluation])
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "pha')
    events = records.read_events(tmp_path)
    assert [event.event for event in events] == ["phase", "evaluation"]
    assert json.loads(path.read_text().splitlines()[0]) == {
        "event": "phase",
        "experience": 0,
        "seconds": 1.25,
        "name": "train",
        "images": 7,
    }
    records.truncate_events(tmp_path, 1)
    assert [event.experience for event in records.read_events(tmp_path)] == [0]
    path.write_text('{broken\n{"event": "x"}\n')
    with pytest.raises(InputError, match="line 1 must be an event"):
        records.read_events(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be a readable run record"),
        ("[]", r"must hold a run record, got \[\]"),
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
    with pytest.raises(InputError, match="from 1 to 5, got 99: a newer cl-adapters has written"):
        RunRecord.read(tmp_path)
    for broken in (0, "2", None, True):
        (tmp_path / "run.json").write_text(json.dumps({**values, "format": broken}))
        with pytest.raises(InputError, match=f"a format from 1 to 5, got {broken!r}"):
            RunRecord.read(tmp_path)


def test_a_record_of_format_1_is_read_and_written_as_today(tmp_path: Path) -> None:
    record().write(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    del values["checksum"]
    (tmp_path / "run.json").write_text(json.dumps({**values, "format": 1}))
    records.verify_checksum(tmp_path)
    assert RunRecord.read(tmp_path) == record()
    RunRecord.read(tmp_path).write(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["format"] == records.FORMAT_VERSION


def test_who_goes_on_with_a_record_that_was_changed_is_stopped(tmp_path: Path) -> None:
    record().write(tmp_path)
    records.verify_checksum(tmp_path)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"seed": 3', '"seed": 2'))
    for read in (records.verify_checksum, RunRecord.read):
        with pytest.raises(InputError, match="match its checksum, but it was damaged or edited"):
            read(tmp_path)


def test_a_flipped_bit_in_a_table_is_noticed(tmp_path: Path) -> None:
    records.write_predictions(tmp_path, frame(500).assign(sample=range(0, 1500, 3)))
    path = tmp_path / "predictions.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # in the first page; without a checksum another number would be read
    path.write_bytes(data)
    with pytest.raises(InputError, match="must be a readable predictions table"):
        records.read_predictions(tmp_path)


def test_ctrl_c_during_a_write_counts_when_it_is_done(tmp_path: Path) -> None:
    reached = []

    def write() -> None:
        with records.atomic_path(tmp_path / "file") as path:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # where a KeyboardInterrupt would come
            path.write_text("whole")
            reached.append("end")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert reached == ["end"]
    assert (tmp_path / "file").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


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


def test_a_digest_is_that_of_the_sorted_text_whatever_came_first() -> None:
    text = '{"a":{"c":2,"d":[1,"ü"]},"b":1}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert digest({"b": 1, "a": {"d": [1, "ü"], "c": 2}}, 64) == expected
    assert digest({"a": {"c": 2, "d": [1, "ü"]}, "b": 1}) == expected[:16]


@pytest.mark.parametrize("seed", [3, 4])
def test_a_record_without_its_checksum_is_refused(tmp_path: Path, seed: int) -> None:
    record().write(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    del values["checksum"]
    (tmp_path / "run.json").write_text(json.dumps({**values, "seed": seed}))
    with pytest.raises(InputError, match="must match its checksum"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "parent",
    [
        {},
        {"path": "runs", "sha256": "ab", "experiences": 2, "samples": 3},  # as many as its own
        {"path": "runs", "sha256": "ab", "experiences": True, "samples": 3},
        {"path": "runs", "sha256": "ab", "experiences": 1, "samples": 3, "parent": "runs"},
    ],
)
def test_a_parent_that_is_none_is_refused(parent: dict[str, object], tmp_path: Path) -> None:
    record(parent=parent).write(tmp_path)
    with pytest.raises(InputError, match=r"parent must name a run of fewer than \d experiences"):
        RunRecord.read(tmp_path)


def test_a_parent_comes_back_with_those_before_it(tmp_path: Path) -> None:
    above = {"path": "runs/a", "sha256": "ab", "experiences": 1, "samples": 3}
    parent = {"path": "runs/b", "sha256": "cd", "experiences": 2, "samples": 6, "parent": above}
    written = record(experiences=[[0], [1], [0, 1]], parent=parent)
    written.write(tmp_path)
    assert RunRecord.read(tmp_path) == written
    assert written.seams == [1, 2]
