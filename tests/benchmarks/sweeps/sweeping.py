"""Sweeps of a moment, and what they leave."""

import subprocess
from pathlib import Path

import pandas as pd

from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions


def predictions(out: Path) -> dict[str, pd.DataFrame]:
    return {str(each.relative_to(out)): read_predictions(each) for each in find_runs([out])}


def assert_same(found: Path, expected: Path, part: int | None = None) -> None:
    """The same records and predictions; in one folder there may be a part of the runs."""
    one, other = predictions(found), predictions(expected)
    assert len(one) == (part or len(other))
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, other[name])
        records = [RunRecord.read(out / name) for out in (found, expected)]
        for record in records:
            record.seconds, record.started, record.ended = 0, "", ""
            (record.files or {}).pop("events.jsonl", None)  # they hold times
        assert records[0] == records[1]


def ended(process: "subprocess.Popen[str]", runs: int = 12) -> str:
    """Waits for a sweep to end well, and returns what it said."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    assert f"{runs} of {runs} runs are finished" in said
    return said
