import json
import math
import re
from pathlib import Path

import pytest

from cl_adapters.errors import InputError
from cl_adapters.records.files import add_checksum
from cl_adapters.records.tables import write_predictions
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun, make_predictions
from tests.reports.lines import append_event


def test_costs_come_from_the_events(make_run: MakeRun) -> None:
    (run,) = load_runs([make_run()]).finished
    assert run.values["train_seconds"] == pytest.approx(8.0)
    assert run.values["evaluation_seconds"] == pytest.approx(2.0)
    assert run.values["passes_per_image"] == pytest.approx(4.0)
    assert run.values["peak_mebibytes"] == pytest.approx(64.0)
    assert run.values["added_parameters"] == pytest.approx(12_345)
    assert math.isnan(run.values["fwt_without_baseline"])


def test_costs_that_no_record_holds_are_unknown(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "events.jsonl").unlink()
    (run,) = load_runs([folder]).finished
    assert math.isnan(run.values["train_seconds"])
    assert math.isnan(run.values["peak_mebibytes"])
    assert math.isnan(run.values["kept_mebibytes"])  # without checkpoints


def test_forward_transfer_needs_predictions_on_the_future(make_run: MakeRun) -> None:
    (run,) = load_runs([make_run(sees_future=True)]).finished
    assert 0 <= run.values["fwt_without_baseline"] < 40
    (plain,) = load_runs([make_run(seed=1)]).finished
    assert math.isnan(plain.values["fwt_without_baseline"])


def test_the_same_folder_twice_is_one_run(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    assert len(load_runs([folder, tmp_path / "runs", folder / ".." / folder.name]).finished) == 1


def test_a_torn_last_event_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event":"phase","experience":3,"sec')
    (run,) = load_runs([folder]).finished
    assert run.values["train_seconds"] == pytest.approx(8.0)


def test_unfinished_runs_are_kept_apart(make_run: MakeRun) -> None:
    make_run(seed=1)
    folder = make_run(state="failed", experiences_done=1, error="disk full")
    loaded = load_runs([folder.parent.parent])
    assert [run.record.seed for run in loaded.finished] == [1]
    assert [(path, record.error) for path, record in loaded.unfinished] == [(folder, "disk full")]


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("run.json", "{", "readable run record"),
        ("run.json", "[]", "must hold a run record"),
        ("predictions.parquet", "PAR1 no", "readable predictions"),
        ("events.jsonl", '{"eve\n{"event": "phase"}\n', "line 1"),
        ("events.jsonl", "3\n4\n", "line 1 must be an event"),
        (
            "events.jsonl",
            '{"event": "phase", "experience": 0, "seconds": "long"}\n',
            "seconds of a phase event: Input should be a valid number, got 'long'",
        ),
    ],
)
def test_damaged_files_are_named_and_skipped(
    make_run: MakeRun, tmp_path: Path, file: str, text: str, reason: str
) -> None:
    folder, good = make_run(), make_run(seed=1)
    (folder / file).write_text(text)
    loaded = load_runs([tmp_path / "runs"])
    assert [run.folder for run in loaded.finished] == [good]
    assert [run.folder for run in loaded.broken] == [folder]
    assert reason in loaded.broken[0].reason


@pytest.mark.parametrize(
    ("key", "value"),
    [("experiences", []), ("seed", "zero"), ("config", []), ("classes", None), ("stream", 3)],
)
def test_records_with_wrong_kinds_are_skipped(make_run: MakeRun, key: str, value: object) -> None:
    folder = make_run()
    values = json.loads((folder / "run.json").read_text())
    del values["checksum"]
    changed = add_checksum({**values, key: value})
    (folder / "run.json").write_text(json.dumps(changed))
    (broken,) = load_runs([folder]).broken
    assert key in broken.reason


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("target_experience", 9, r"in \[0, 4\)"),
        ("prediction", 8, r"in \[0, 8\)"),
        ("experience", -1, r"in \[0, 4\)"),
        ("confidence", 1.5, "confidence"),
        ("nll", float("nan"), "nll"),
        ("sample", 0, "once per experience"),
    ],
)
def test_predictions_that_do_not_fit_are_skipped(
    make_run: MakeRun, column: str, value: float, reason: str
) -> None:
    folder = make_run()
    frame = make_predictions([2, 2, 2, 2], 3, 0.1, 0)
    frame.loc[5, column] = value
    write_predictions(folder, frame)
    (broken,) = load_runs([folder]).broken
    assert re.search(reason, broken.reason)


def test_text_that_no_file_can_hold_is_skipped(make_run: MakeRun) -> None:
    folder = make_run()
    text = (folder / "run.json").read_text().replace('"digits"', r'"\ud800"')
    (folder / "run.json").write_text(text)
    assert "must match its checksum" in load_runs([folder]).broken[0].reason


def test_a_finished_run_must_hold_its_last_experience(make_run: MakeRun) -> None:
    folder = make_run()
    frame = make_predictions([2, 2, 2, 2], 3, 0.1, 0)
    write_predictions(folder, frame[frame["experience"] < 3])
    assert "must hold experience 3" in load_runs([folder]).broken[0].reason
    (folder / "predictions.parquet").unlink()
    assert "got None" in load_runs([folder]).broken[0].reason


def test_a_report_on_broken_runs_alone_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("lae", 0)
    (folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match=rf"that can be read, got 1 broken, the first {folder}: "):
        write_report([folder], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_run_with_damaged_examples_is_as_broken(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("lae", 0)
    (folder / "examples.parquet").write_bytes(b"no table")
    assert len(load_runs([folder]).finished) == 1, "its examples are read later"
    with pytest.raises(InputError, match=r"got 1 broken, the first .*examples.parquet"):
        write_report([folder], tmp_path / "report")


def test_no_run_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least one run\.json"):
        load_runs([tmp_path])
    with pytest.raises(InputError, match="must exist"):
        load_runs([tmp_path / "nowhere"])


def test_the_peak_is_the_largest_of_a_run_that_went_on_in_another_process(
    make_run: MakeRun,
) -> None:
    folder = make_run()
    append_event(folder, "memory", 2, 0, peak_bytes=2**20)
    (run,) = load_runs([folder]).finished
    assert run.values["peak_mebibytes"] == pytest.approx(64.0)
