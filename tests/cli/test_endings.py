"""How commands end: one sentence, an exit code, and no promise that does not hold."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer
from typer.testing import CliRunner

from cl_adapters.benchmarks import listing
from cl_adapters.benchmarks.running import batch, storing
from cl_adapters.cli import app
from cl_adapters.errors import printable
from cl_adapters.records import files
from cl_adapters.records.files import add_checksum, atomic_path
from cl_adapters.records.run_record import RunRecord, find_runs

KEPT = "what was finished is kept, the same command continues"


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--threads", "100000"], "threads"),
        (["run", "--threads", "1000000000000"], "threads"),
        (["run", "--image-size", "1600000"], "image_size"),
        (["run", "--device", "meta"], "device must be one that torch can use here, got 'meta'"),
        (["run", "--cache-gigabytes", "inf"], "cache must be 1e+09 gigabytes at most, got inf"),
        (["run", "--cache-gigabytes", "nan"], "cache must be larger than 0 gigabytes, got nan"),
        (["run", "--seeds", "1000000000"], "less than or equal to 10000"),
        (["sweep", "--seeds", "1000000000"], "less than or equal to 10000"),
        (["sweep", "--threads", "100000"], "less than or equal to 1024"),
        (["bench", "--image-size", "100000000"], "less than or equal to 16384"),
        (["bench", "--threads", "100000"], "less than or equal to 1024"),
        (["bench", "--images", "0"], "greater than or equal to 1"),
    ],
)
def test_a_limit_is_named_before_anything_is_done(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = arguments
    code, text = call(command, "--strategy", "simplecil", *options)
    assert code == 2
    assert message in text
    assert not list(tmp_path.iterdir()), "no empty run folder"


def test_a_bench_of_nothing_is_refused() -> None:
    assert call("bench", "--strategy", "") == (
        2, "cl-adapters: --strategy must not be empty, got ''\n",
    )  # fmt: skip
    assert call("bench", "--strategy", ",") == (
        2, "cl-adapters: --strategy must name at least one strategy, got none\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["data", "inspect", ""], "argument"),
        (["report", ""], "argument"),
        (["report", "runs", "--out="], "--out"),
        (["list", "runs", ""], "argument"),
        (["new", "strategy", "mine", "--out", ""], "--out"),
    ],
)
def test_an_empty_argument_is_not_this_folder(arguments: list[str], name: str) -> None:
    """What a shell makes of "$PHOTOS" where nobody has set it."""
    assert call(*arguments) == (2, f"cl-adapters: {name} must not be empty, got ''\n")


def test_the_systems_refusal_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = tmp_path / "closed"
    where.mkdir(mode=0o500)
    target = where / "mine" if os.geteuid() else Path("/proc/mine")
    code, text = call("new", "strategy", "mine", "--out", str(target))
    assert code == 1
    assert text.startswith(f"cl-adapters: '{target}' must be a path that can be read and written")


def test_a_sweep_file_whose_options_are_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("strategy = 'simplecil'\noptions = 'x'\n")
    code, text = call("sweep", str(tmp_path / "grid.toml"))
    assert code == 2
    assert text == "cl-adapters: grid key `options` must be a table, got 'x'\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("could not create a primitive"),
     RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")],
)  # fmt: skip
def test_too_little_memory_is_a_failed_run_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(storing, "peak_bytes", full)
    code, text = call(
        "run", "--strategy", "simplecil", "--image-size", "16", "--quiet", "--out", str(tmp_path)
    )
    assert (code, text) == (
        1, f"cl-adapters: memory must hold the model and a batch, and did not; {KEPT}\n",
    )  # fmt: skip
    (folder,) = find_runs([tmp_path])
    record = RunRecord.read(folder)
    assert (record.state, record.error) == ("failed", "out of memory")


def test_another_error_of_ours_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(batch, "run_batch", wrong)
    result = CliRunner().invoke(app, ["run", "--strategy", "simplecil"])
    assert str(result.exception) == "shapes differ"


class Stopped(BaseModel):
    """What is stopped by Ctrl-C while it is written down."""

    @model_serializer(mode="wrap")
    def write(self, handler: Any) -> dict[str, Any]:
        raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["run", "list"])
def test_an_interruption_inside_a_serializer_is_one(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(batch, "run_batch", lambda *_, **__: Stopped().model_dump())
    monkeypatch.setattr(listing, "list_table", lambda *_: Stopped().model_dump())
    told = {"run": "; the same command continues from the last checkpoint", "list": ""}
    arguments = ["run", "--strategy", "simplecil", "--quiet"] if command == "run" else ["list"]
    assert call(*arguments) == (1, f"cl-adapters: stopped{told[command]}\n")


def test_a_command_that_keeps_nothing_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(listing, "list_table", full)
    assert call("list") == (
        1, "cl-adapters: the system must do what is asked of it, got: No space left on device\n",
    )  # fmt: skip


def test_a_disk_that_cannot_flush_a_folder_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112 - of a handle
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with atomic_path(tmp_path / "file") as path:
        path.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", []), ("experiences", 5), ("experiences_done", 99), ("state", "done"),
     ("classes", None), ("seed", True), ("files", [])],
)  # fmt: skip
def test_a_record_that_was_edited_is_named_by_every_command(
    tmp_path: Path, key: str, value: object
) -> None:
    """Its checksum may have been made to fit."""
    record = RunRecord(strategy="lae", stream="digits", seed=0, config={}, fingerprint={},
                       classes=["a"], experiences=[[0]])  # fmt: skip
    record.write(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    del values["checksum"]
    (tmp_path / "run.json").write_text(json.dumps(add_checksum({**values, key: value})))
    code, text = call("list", "runs", "--out", str(tmp_path))
    assert code == 0
    assert "broken" in text
    for command in (["report", "--out", str(tmp_path / "report")], ["verify"]):
        code, text = call(*command, str(tmp_path))
        assert key in text


def test_text_for_a_terminal_is_shown_and_not_obeyed() -> None:
    assert printable("ant\x1b[31m\udcff\nünï\t😀") == "ant\\x1b[31m\\udcff\nünï\t😀"
    assert printable("cat\u202egnp.exe") == "cat\\u202egnp.exe"  # shown from right to left
