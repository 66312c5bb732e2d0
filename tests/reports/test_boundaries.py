"""Task-free runs in a report: the score against a plain loop, the twin that was told, damage."""

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.reports.boundaries import BoundaryReport, read_segments, score_boundaries
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event

TRUTH = {"data": "abc", "weights": "test"}
WATCH = {"detector": "mmd", "reference": 96, "window": 32, "patience": 1, "false_alarm": 0.002, "max_images": None}  # fmt: skip


@given(
    st.sets(st.integers(1, 60), max_size=6),
    st.sets(st.integers(1, 60), max_size=6),
)
def test_the_score_is_that_of_a_walk_along_the_stream(
    changes: set[int], announcements: set[int]
) -> None:
    """Image by image: an announcement belongs to the change that was last, once."""
    latest, is_open = None, False
    found, false, delays = 0, 0, []
    for seen in range(1, 61):
        if seen - 1 in changes:
            latest, is_open = seen - 1, True
        if seen in announcements:
            if is_open and latest is not None:
                found, is_open = found + 1, False
                delays.append(seen - latest)
            else:
                false += 1
    scores = score_boundaries(sorted(changes - {60}), sorted(announcements), 60)
    assert scores["changes"] == len(changes - {60})
    assert (scores["found"], scores["false_alarms"]) == (found, false)
    expected = sum(delays) / len(delays) if delays else math.nan
    assert scores["delay"] == pytest.approx(expected, nan_ok=True)


def write_segments(
    folder: Path, segments: list[tuple[int, int | None, float | None, list[int]]]
) -> None:
    """Start, announcement, score and changes of each; the stream has 400 images."""
    starts = [*(each[0] for each in segments), 400]
    for number, (start, announced, score, changes) in enumerate(segments):
        append_event(
            folder, "segment", number, 0, start=start, images=starts[number + 1] - start,
            announced=announced, score=score, threshold=score, delay=None, changes=changes, origins=[],
        )  # fmt: skip


FOUND = [
    (0, None, None, [100]), (96, 128, 2.0, []), (200, 240, 1.0, [200]), (320, 352, None, [300]),
]  # fmt: skip


def make_pair(make_run: MakeRun, seed: int) -> tuple[Path, Path]:
    """A run that was told the boundaries, and one that was not and forgets more."""
    config = {"strategy": "lae", "stream": "x", "seed": seed, "options": {}}
    told = make_run(seed=seed, stream="x", decay=0.02, fingerprint=TRUTH, config=config)
    free = make_run(
        seed=seed,
        stream="x-task_free",
        decay=0.2,
        fingerprint={**TRUTH, "task_free": WATCH},
        config={**config, "task_free": "mmd", "window": 32},
    )
    write_segments(free, FOUND)
    return told, free


def test_task_free_runs_stand_beside_the_told_ones(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_pair(make_run, seed)
    other = {**TRUTH, "data": "other"}  # of no use to compare with
    make_run(seed=0, stream="x", fingerprint=other, folder=tmp_path / "runs" / "other")
    report = BoundaryReport(load_runs([tmp_path / "runs"]))
    (sentence,) = report.sentences()
    assert "x-task_free: mmd (96 + 32 images, level 0.002) announced 2.00 of 3.00" in sentence
    assert "false alarms 0.00, delay 34.0 images" in sentence
    assert ", told " in sentence
    (line,) = report.lines
    assert sorted(line.values) == [0, 1]
    for values in line.values.values():
        assert values["segments"] == 4
        assert values["difference"] == values["accuracy"] - values["told"] < 0
    (row,) = report.rows()
    assert row[:4] == ["x-task_free", "mmd (96 + 32 images, level 0.002)", "lae", "2"]
    assert len(row) == len(report.headings)
    files = report.files()
    assert files["task-free.md"].count("34.0") == 1
    rows = list(csv.DictReader(io.StringIO(files["task-free-runs.csv"])))
    assert [each["seed"] for each in rows] == ["0", "1"]
    assert {(each["found"], each["delay"]) for each in rows} == {("2.0", "34.0")}


def test_without_the_told_run_there_is_no_difference(make_run: MakeRun, tmp_path: Path) -> None:
    told, _ = make_pair(make_run, 0)
    (told / "run.json").unlink()
    report = BoundaryReport(load_runs([tmp_path / "runs"]))
    (sentence,) = report.sentences()
    assert "told" not in sentence
    assert report.files()["task-free-runs.csv"].rstrip().endswith(",,")


def test_the_page_has_a_table_of_them_where_there_are_any(
    make_run: MakeRun, tmp_path: Path
) -> None:
    told, _ = make_pair(make_run, 0)
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=("svg",))
    assert any("announced 2.00 of 3.00" in text for text in summary.sentences)
    assert "Without boundaries" in summary.html.read_text("utf-8")
    assert tmp_path / "report" / "tables" / "task-free.md" in summary.files
    report = BoundaryReport(load_runs([told]))
    assert (report.lines, report.files(), list(report.sentences())) == ([], {}, [])


def test_damaged_segments_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    _, free = make_pair(make_run, 0)
    events = free / "events.jsonl"
    lines = events.read_text("utf-8").splitlines()
    cases = {
        "must follow each other, got one of experience 2 at 200 in place of 1": [
            line for line in lines if '"start": 96' not in line
        ],
        "segment events must be 4, got 3": lines[:-1],
        "images of a segment event": [
            line.replace('"images": 104', '"images": 0') for line in lines
        ],
    }
    for message, changed in cases.items():
        events.write_text("\n".join(changed) + "\n", "utf-8")
        with pytest.raises(InputError, match=message):
            read_segments(read_events(free), 4)
    loaded = load_runs([tmp_path / "runs"])
    assert BoundaryReport(loaded).lines == []
    assert [broken.folder for broken in loaded.broken] == [free]
    assert "images of a segment event" in loaded.broken[0].reason
