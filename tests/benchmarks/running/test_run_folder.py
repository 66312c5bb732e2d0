"""Run directories that are spoilt, another's, or cannot be written to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.progress import Progress
from cl_adapters.benchmarks.running.run_folder import only_writer, opened_record
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from tests.benchmarks.killable import stripes
from tests.benchmarks.running.small_runs import config, run
from tests.marks import by_default


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=8, test=4)


def change_config(folder: Path) -> None:
    record = RunRecord.read(folder)
    record.config["increment"] = 3
    record.write(folder)


def edit(folder: Path) -> None:
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"finished"', '"running"'))


def unfinish(folder: Path, done: int) -> None:
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", done
    record.write(folder)


def damage(folder: Path, experience: int) -> None:
    path = folder / f"checkpoints/experience-{experience:04d}/learned.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def lose_predictions(folder: Path) -> None:
    (folder / "predictions.parquet").rename(folder / "lost.parquet")


@pytest.mark.parametrize("state", ["finished", "running"])
def test_lost_predictions_are_noticed(source: ImageSource, tmp_path: Path, state: Any) -> None:
    folder = run(source, tmp_path)
    record = RunRecord.read(folder)
    record.state = state
    record.write(folder)
    lose_predictions(folder)
    with pytest.raises(
        InputError, match=r"predictions.parquet must be there, .* but it is missing; use --res"
    ):
        run(source, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_config, "must belong to this recipe, but its config differs"),
        (edit, "must match its checksum, but it was damaged or edited; use --restart"),
    ],
)
def test_a_spoilt_directory_is_refused_and_kept(
    source: ImageSource, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = run(source, tmp_path)
    predictions = (folder / "predictions.parquet").read_bytes()
    spoil(folder)
    with pytest.raises(InputError, match=message):
        run(source, tmp_path)
    assert (folder / "predictions.parquet").read_bytes() == predictions


class Notes(runner.Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("damaged", by_default([[1], [0, 1], []], [[1]]))
def test_of_damaged_checkpoints_the_one_before_is_used(
    source: ImageSource, tmp_path: Path, damaged: list[int]
) -> None:
    """Experiences 0 and 1 are done; what is lost with a checkpoint is trained again."""
    folder, progress = run(source, tmp_path), Notes()
    expected = (folder / "predictions.parquet").read_bytes()
    unfinish(folder, done=2)
    for experience in damaged:
        damage(folder, experience)
    runner.run(prepare(config(), source=source), tmp_path, progress=progress)
    assert (folder / "predictions.parquet").read_bytes() == expected
    again = {(): [], (1,): ["again from experience 1 on"], (0, 1): ["again from the first"]}
    wanted = again[tuple(damaged)]
    assert len(progress.notes) == len(wanted)
    for note, text in zip(progress.notes, wanted, strict=True):
        assert "experience-0001 must match its checksum" in note
        assert text in note


def test_a_checkpoint_of_a_newer_format_is_refused_and_one_of_format_1_read(
    source: ImageSource, tmp_path: Path
) -> None:
    folder = run(source, tmp_path)
    expected = (folder / "predictions.parquet").read_bytes()
    path = folder / "checkpoints/experience-0001/checkpoint.json"
    facts = json.loads(path.read_text())
    unfinish(folder, done=2)
    path.write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(InputError, match="experience-0001 must have a format .*, got 99: a newer"):
        run(source, tmp_path)
    path.write_text(
        json.dumps({key: facts[key] for key in ("experience", "sha256")} | {"format": 1})
    )
    run(source, tmp_path)
    assert (folder / "predictions.parquet").read_bytes() == expected


def test_another_version_is_said(source: ImageSource, tmp_path: Path) -> None:
    folder, progress = run(source, tmp_path), Notes()
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.versions = {**record.versions, "torch": "1.0"}
    record.write(folder)
    runner.run(prepare(config(), source=source), tmp_path, progress=progress)
    (note,) = progress.notes
    assert note.startswith("lae seed 0 goes on under another version of torch: the rest may differ")


@pytest.mark.slow
def test_an_unfinished_run_on_other_threads_is_named_and_no_other_one(
    source: ImageSource, tmp_path: Path
) -> None:
    def notes(**values: Any) -> list[str]:
        progress = Notes()
        runner.run(prepare(config(**values), source=source), tmp_path, progress=progress)
        return progress.notes

    assert notes(threads=1) == []
    assert notes(threads=2) == []  # the other is finished
    (folder,) = (
        path.parent
        for path in tmp_path.rglob("run.json")
        if RunRecord.read(path.parent).config["threads"] == 1
    )
    unfinish(folder, done=1)
    named = f"{folder} is unfinished and goes on with threads=1"
    assert notes() == [f"lae seed 0 begins a new run with no threads given; {named}"]
    assert notes(seed=1) == notes(increment=3) == []
    assert notes(threads=1) == []  # goes on with it


def test_a_folder_that_cannot_be_made_is_named(source: ImageSource, tmp_path: Path) -> None:
    (tmp_path / "stripes").write_text("a file where the runs should go")
    with pytest.raises(InputError, match="must be writable"):
        run(source, tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named(source: ImageSource, tmp_path: Path) -> None:
    prepared = prepare(config(), source=source)
    (tmp_path / prepared.record.directory / ".lock").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run directory .* must be writable, got: .*\.lock"):
        runner.run(prepared, tmp_path)


def test_a_restart_keeps_the_lock_that_it_holds(source: ImageSource, tmp_path: Path) -> None:
    prepared = prepare(config(), source=source)
    (tmp_path / "checkpoints" / "experience-0000").mkdir(parents=True)
    for name in ("run.json", "events.jsonl"):
        (tmp_path / name).write_text("of before")
    with only_writer(tmp_path):
        opened_record(tmp_path, prepared, Progress(), restart=True)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(InputError, match="must have one writer"), only_writer(tmp_path):
            pass
