"""Damaged run directories: named, passed over or refused; never a number that was not written."""

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.listing import list_table
from cl_adapters.benchmarks.running.reuse import find_trained
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.files import add_checksum
from cl_adapters.records.integrity import (
    EVENTS,
    UNCHECKED,
    adopt_files,
    announce_tables,
    check_files,
    cut_events,
    read_checked,
    replace_tables,
    seal_events,
    settle_tables,
)
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_examples, read_predictions, read_retrieval
from cl_adapters.reports.load import load_runs
from tests.benchmarks.killable import outcome, run
from tests.records.damages import TABLES, damage

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of MOS, which has every table."""
    out = tmp_path_factory.mktemp("finished")
    run("mos", out, minutes=10)
    return out


def copied(finished: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(finished, place)
    (folder,) = find_runs([place])
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """All that a reader takes from a run directory, as plain values."""
    reads = (read_predictions, read_retrieval, read_examples)
    return {
        "record": RunRecord.read(folder),
        "tables": [str(read(folder).to_dict("list")) for read in reads],
        "events": [event.as_line() for event in read_events(folder)],
        "learned": {
            name: value.numpy().tobytes()
            for experience in range(3)
            for name, value in read_checkpoint(folder / "checkpoints", experience).state.items()
        },
    }


def check_damage(folder: Path, good: dict[str, Any], kind: str) -> str:
    """Says whether a damage was refused or changed nothing; fails if it is silent."""
    try:
        now = contents(folder)
    except InputError:
        if "checkpoint" in kind or "learned" in kind:
            return "refused"
        (broken,) = load_runs([folder]).broken
        assert str(folder) in broken.reason, kind
        (_, row) = list_table("runs", folder)
        assert row[1] == "broken", kind
        return "refused"
    assert now == good, f"{kind} is silent"
    assert not load_runs([folder]).broken, kind
    return "harmless"


def damages(finished: Path, place: Path, number: int, seed: str) -> Counter[str]:
    """Damages a copy of a run in so many ways, each of its files in turn."""
    drawn, counts = random.Random(seed), Counter[str]()
    folder = copied(finished, place)
    good = contents(folder)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    assert {*TABLES, "run.json", "events.jsonl"} <= {path.name for path in files}
    for index in range(number):
        path = files[index % len(files)]
        whole = path.read_bytes()
        kind = damage(path, drawn)
        counts[check_damage(folder, good, kind)] += 1
        path.write_bytes(whole)
    assert contents(folder) == good
    return counts


def test_a_damage_is_named_or_changes_nothing(
    finished: Path, tmp_path: Path, record_property: Record
) -> None:
    """A few; the next test takes many."""
    counts = damages(finished, tmp_path / "runs", 66, "few damages")
    assert counts.total() == 66
    assert counts["refused"] > 50
    record_property("reliability: damages of finished runs", counts.total())


@pytest.mark.slow
def test_many_damages_are_named_or_change_nothing(
    finished: Path, tmp_path: Path, record_property: Record
) -> None:
    counts = damages(finished, tmp_path / "runs", 2000, "many damages")
    print(f"\n2000 damages of a finished run: {dict(counts)}, 0 silent, 0 tracebacks")  # noqa: T201
    record_property("reliability: damages of finished runs", counts.total())


@pytest.mark.slow
def test_a_damaged_unfinished_run_ends_as_the_straight_one_or_is_refused(
    tmp_path: Path, record_property: Record
) -> None:
    run("simplecil", tmp_path / "straight", minutes=10)
    expected, drawn, counts = outcome(tmp_path / "straight"), random.Random("begun"), Counter[str]()
    for index in range(40):
        folder = unfinished(copied(tmp_path / "straight", tmp_path / "runs"))
        found = sorted(folder.rglob("*"))
        files = [path for path in found if path.is_file() and path.stat().st_size]
        kind = damage(files[index % len(files)], drawn)
        try:
            run("simplecil", tmp_path / "runs", minutes=10)
        except InputError:
            counts["refused"] += 1
            continue
        counts["the same end"] += 1
        ended = outcome(tmp_path / "runs")
        if "experience-0000" in str(files[index % len(files)]):  # not needed any more, and left
            ended["learned"] = expected["learned"]
        assert ended == expected, kind
    print(f"\n40 damages of an unfinished run: {dict(counts)}")  # noqa: T201
    record_property("reliability: damages of unfinished runs, run to the end", counts.total())


def unfinished(folder: Path) -> Path:
    """A run that was killed after two of its three experiences."""
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.write(folder)
    return folder


def test_events_behind_the_last_experience_count_for_nothing(
    finished: Path, tmp_path: Path
) -> None:
    """A run that was killed while it wrote events is a known state; a finished one is not."""
    folder = copied(finished, tmp_path / "runs")
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "phase", "exper')
    with pytest.raises(InputError, match=r"events\.jsonl must match its digest in run\.json"):
        read_events(folder)
    check_files(unfinished(folder))


def test_a_table_that_was_being_replaced_may_be_the_old_or_the_new_one(
    finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "runs")
    record, table = RunRecord.read(folder), (folder / "retrieval.parquet").read_bytes()
    assert record.files is not None
    record.files["predictions.parquet"]["next"] = record.files["retrieval.parquet"]["sha256"]
    record.write(folder)
    check_files(folder)
    (folder / "predictions.parquet").write_bytes(table)
    check_files(folder)
    (folder / "predictions.parquet").write_bytes(table[:-1])
    with pytest.raises(InputError, match="must match its digest"):
        check_files(folder)


@pytest.mark.parametrize("name", [*TABLES, "events.jsonl"])
def test_a_file_that_is_gone_is_missed(finished: Path, tmp_path: Path, name: str) -> None:
    folder = copied(finished, tmp_path / "runs")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} must be there, since run.json holds its digest"):
        check_files(folder)


def test_a_table_that_no_record_knows_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "runs")
    record = RunRecord.read(folder)
    assert record.files is not None
    del record.files["examples.parquet"]
    record.write(folder)
    with pytest.raises(InputError, match=r"examples\.parquet must match its digest"):
        read_examples(folder)


def test_a_pipe_in_place_of_a_table_is_refused(finished: Path, tmp_path: Path) -> None:
    """Nobody waits for it."""
    folder = copied(finished, tmp_path / "runs")
    (folder / "events.jsonl").unlink()
    os.mkfifo(folder / "events.jsonl")
    with pytest.raises(InputError, match=r"events\.jsonl must be a file, got a folder or a"):
        read_events(folder)


def test_a_damaged_run_is_not_taken_over(finished: Path, tmp_path: Path) -> None:
    """As the row of faults has it: the learning rate of a finished run, changed by hand."""
    folder = copied(finished, tmp_path / "runs")
    planned = RunRecord.read(folder)
    planned.config["options"]["rounds"] = 1
    beside = folder.parent / planned.directory.name
    assert find_trained(beside, planned, {"rounds"}) == folder
    text = (folder / "run.json").read_text()
    for name, changed in {
        "run.json": text.replace('"increment": 2', '"increment": 3'),
        "events.jsonl": "",
    }.items():
        whole = (folder / name).read_text()
        (folder / name).write_text(changed)
        assert find_trained(beside, planned, {"rounds"}) is None
        (folder / name).write_text(whole)


def test_the_commands_name_a_damaged_run(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "runs")
    data = bytearray((folder / "predictions.parquet").read_bytes())
    data[-20] ^= 4
    (folder / "predictions.parquet").write_bytes(data)
    reason = f"{folder}/predictions.parquet must match its digest in run.json"
    for command in (["verify"], ["report", "--out", str(tmp_path / "report")]):
        result = CliRunner().invoke(app, [*command, str(tmp_path / "runs")])
        assert reason in result.output
        assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code == 2, "a report of nothing is no report"
    assert not (tmp_path / "report").exists()
    copied(finished, tmp_path / "runs" / "sound")
    arguments = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(app, [*arguments, "--formats", "svg"])
    assert result.exit_code == 0
    assert "Skipped" in result.output
    assert reason in result.output


def test_old_runs_are_read_with_one_note(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "runs")
    values = json.loads((folder / "run.json").read_text())
    old = {key: each for key, each in values.items() if key not in ("files", "checksum")}
    (folder / "run.json").write_text(json.dumps(add_checksum({**old, "format": 3})))
    loaded = load_runs([tmp_path / "runs"])
    assert len(loaded.finished) == 1
    assert loaded.notes() == [UNCHECKED.format(number=1)]
    assert read_checked(folder, "events.jsonl") == (folder / "events.jsonl").read_bytes()
    assert load_runs([finished]).notes() == []


def test_a_reader_beside_a_writer_looks_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the record and the table another process may have written both."""
    folder = copied(finished, tmp_path / "runs")
    stale = RunRecord.read(folder)
    assert stale.files is not None
    stale.files["predictions.parquet"] = {"sha256": "of before"}
    read, answers = RunRecord.read, [stale]
    monkeypatch.setattr(
        RunRecord, "read", lambda folder: answers.pop() if answers else read(folder)
    )
    assert len(read_predictions(folder)) > 0


def planned(done: int = 0) -> RunRecord:
    parts = [[0], [1]]
    return RunRecord(
        strategy="lae", stream="digits", seed=0, config={}, fingerprint={}, classes=["a", "b"],
        experiences=parts, experiences_done=done, files={},
    )  # fmt: skip


@pytest.mark.parametrize("is_written", [False, True])
def test_after_a_kill_the_table_that_is_there_is_the_one_that_is_known(
    tmp_path: Path, is_written: bool
) -> None:
    name, record = "predictions.parquet", planned()
    replace_tables(tmp_path, record, {name: b"old"})
    announce_tables(tmp_path, record, {name: b"new"})
    if is_written:
        (tmp_path / name).write_bytes(b"new")
    expected = b"new" if is_written else b"old"
    assert read_checked(tmp_path, name) == expected  # either is sound until somebody goes on
    record = RunRecord.read(tmp_path)
    settle_tables(tmp_path, record)
    record.write(tmp_path)
    assert record.files == {name: {"sha256": hashlib.sha256(expected).hexdigest()}}
    assert read_checked(tmp_path, name) == expected
    (tmp_path / name).write_bytes(b"old" if is_written else b"new")
    with pytest.raises(InputError, match="must match its digest"):
        read_checked(tmp_path, name)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_events_are_cut_behind_the_experiences_that_stay(tmp_path: Path, done: int) -> None:
    record, lengths = planned(), [0]
    for experience in range(2):
        with (tmp_path / EVENTS).open("a") as file:
            file.write(f"event of experience {experience}\n")
        seal_events(tmp_path, record)
        lengths.append((tmp_path / EVENTS).stat().st_size)
    with (tmp_path / EVENTS).open("a") as file:
        file.write("event of an experience that did not finish\n")
    whole = (tmp_path / EVENTS).read_bytes()
    record.experiences_done = done
    cut_events(tmp_path, record)
    assert (tmp_path / EVENTS).read_bytes() == whole[: lengths[done]]
    assert record.files is not None
    assert record.files[EVENTS]["bytes"] == lengths[1 : done + 1]


def test_a_record_of_before_gets_digests_that_rise_over_experiences_without_events(
    tmp_path: Path,
) -> None:
    first, last = (f'{{"event": "x", "experience": {each}, "seconds": 0}}\n' for each in (0, 2))
    (tmp_path / EVENTS).write_text(first + last)
    record = planned()
    record.experiences, record.experiences_done = [[0], [1], [2]], 3
    adopt_files(tmp_path, record)
    assert record.files is not None
    known = record.files[EVENTS]
    assert known["bytes"] == [len(first), len(first), len(first + last)]
    assert known["sha256"][1] == hashlib.sha256(first.encode()).hexdigest()
