"""Disks that fill up, fail and tear: a run stops with one sentence and goes on to the same end.

Every write of a run ends in `os.fsync`, where real disks report what went wrong before; so each of
its calls is made to fail in turn. What a machine that loses power leaves behind is made by hand.
"""

import errno
import os
import resource
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.benchmarks.running import batch, progress
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.benchmarks.killable import forked, outcome, run
from tests.marks import by_default

FAULTS = {
    "full disk": (errno.ENOSPC, "No space left on device"),
    "failing disk": (errno.EIO, "Input/output error"),
    "torn write": (errno.EIO, "Input/output error"),
}


class Disk:
    """Counts the files that are flushed, and fails at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushed, self.fails_at, self.fault = 0, -1, ""
        self._flush = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.flushed += 1
        if self.flushed == self.fails_at:
            if self.fault == "torn write":  # half of the file got there
                facts = os.fstat(handle)
                if stat.S_ISREG(facts.st_mode):  # a folder is flushed too
                    os.truncate(f"/proc/self/fd/{handle}", facts.st_size // 2)
            raise OSError(*FAULTS[self.fault])
        self._flush(handle)

    @contextmanager
    def failing(self, at: int, fault: str) -> Iterator[None]:
        self.flushed, self.fails_at, self.fault = 0, at, fault
        yield
        self.fails_at = -1


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("straight")
    run("simplecil", out, minutes=10)
    return out


@pytest.fixture(scope="module")
def straight(finished: Path) -> dict[str, Any]:
    return outcome(finished)


def check_every_write(
    straight: dict[str, Any], out: Path, disk: Disk, minutes: float, step: int
) -> int:
    """Fails every `step`-th write of a run in every way; returns how many."""
    run("simplecil", out / "counted", minutes=minutes)
    writes = disk.flushed
    injected = 0
    for at in range(1, writes + 1, step):
        for fault, (_, text) in FAULTS.items():
            place = out / f"{at}-{fault[:4]}"
            with disk.failing(at, fault), pytest.raises(OSError, match=text):
                run("simplecil", place, minutes=minutes)
            (folder,) = find_runs([place]) or [None]
            if folder is not None:  # the record itself may have been what failed first
                assert RunRecord.read(folder).state in {"running", "failed"}
            run("simplecil", place, minutes=minutes)
            assert outcome(place) == straight, (at, fault)
            shutil.rmtree(place)
            injected += 1
    return injected


@pytest.mark.slow
def test_a_disk_that_fails_at_a_write_costs_nothing(
    straight: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    """A few of the writes; the next test takes all."""
    injected = check_every_write(straight, tmp_path, Disk(monkeypatch), minutes=10, step=30)
    assert injected >= 6
    record_property("reliability: faults injected", injected)


@pytest.mark.slow
def test_a_disk_that_fails_at_any_write_costs_nothing(
    straight: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    """A run that also keeps points inside its experiences; each write where that is counted."""
    step = 1 if "RELIABILITY" in os.environ else 4
    injected = check_every_write(straight, tmp_path, Disk(monkeypatch), minutes=0, step=step)
    assert injected > 200 / step
    record_property("reliability: faults injected", injected)


TORN = {  # how much is left of each file, and what comes of it when the run is taken up again
    "run.json": "run.json must be a readable run record",
    "predictions.parquet": "predictions.parquet must match its digest in run.json",
    "events.jsonl": "",
    "checkpoints/experience-0001/learned.safetensors": "",
    "checkpoints/experience-0001/checkpoint.json": "",
}


@pytest.mark.parametrize("share", by_default([0, 0.5, 0.98], [0.5]))
@pytest.mark.parametrize("name", TORN)
def test_a_torn_file_is_noticed(
    finished: Path, straight: dict[str, Any], tmp_path: Path, name: str, share: float,
    record_property: Any,
) -> None:  # fmt: skip
    """As after a loss of power on a disk that lied: passed over, or refused in one sentence."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (folder,) = find_runs([tmp_path])
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.write(folder)
    path = folder / name
    os.truncate(path, int(share * path.stat().st_size))
    record_property("reliability: faults injected", 1)
    if TORN[name]:
        with pytest.raises(InputError, match=TORN[name]):
            run("simplecil", tmp_path, minutes=10)
        return
    run("simplecil", tmp_path, minutes=10)
    assert outcome(tmp_path) == straight


def test_a_file_that_the_system_will_not_let_grow_costs_nothing(
    straight: dict[str, Any], tmp_path: Path
) -> None:
    """The kernel itself refuses: no file of the process may have more than 4 kB."""

    def confined() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError, match="File too large"):
            run("simplecil", tmp_path)

    assert os.waitpid(forked(confined), 0)[1] == 0
    run("simplecil", tmp_path)
    assert outcome(tmp_path) == straight


def test_the_command_says_in_one_sentence_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/digits/run.json")

    monkeypatch.setattr(batch, "run_batch", full)
    result = CliRunner().invoke(app, ["run", "--strategy", "simplecil"])
    assert result.exit_code == 1
    assert result.output == (
        "cl-adapters: 'runs/digits/run.json' must be a path that can be read and written, got: "
        "No space left on device; what was finished is kept, the same command continues\n"
    )


def write_images(root: Path) -> None:
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee", "cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                colour = (60 * label, 20 * index, 7 * index + len(split))
                Image.new("RGB", (16, 16), colour).save(folder / f"{index}.png")


def test_a_data_set_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "data")

    def whole(out: str) -> Path:
        given = {"strategy": "finetune", "data": str(tmp_path / "data"), "image_size": 16}
        config = batch.expand(given, recipe=None, seeds=1, settings=["epochs=1"])
        return batch.run_batch(config, tmp_path / out, quiet=True)[0]

    expected = whole("straight") / "predictions.parquet"
    advance = progress.Bars.advance
    seen: list[str] = []

    def unplug(self: Any, text: str, images: int) -> None:
        seen.append(text)
        if seen.count("evaluation") == 2 and (tmp_path / "data").exists():
            (tmp_path / "data").rename(tmp_path / "gone")
        advance(self, text, images)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Bars, "advance", unplug)
        with pytest.raises(
            InputError, match=r"image '.*png' must be readable, got: .*No such file"
        ):
            whole("stopped")
    (folder,) = find_runs([tmp_path / "stopped"])
    assert RunRecord.read(folder).state == "failed"
    (tmp_path / "gone").rename(tmp_path / "data")
    assert (whole("stopped") / "predictions.parquet").read_bytes() == expected.read_bytes()
