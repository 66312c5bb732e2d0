"""What a command does where nobody takes what it says."""

import errno
import io
import os
import sys
from typing import NoReturn

import pytest
import typer

from cl_adapters import cli
from cl_adapters.cli.endings import call_whole, guarded
from cl_adapters.cli.outputs import CLOSED, OutputError, watched_outputs


class Failing(io.StringIO):
    """A stream that fails as a closed pipe or a full disk does, when it is flushed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> NoReturn:
        raise OSError(self.number, os.strerror(self.number))


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Calls the whole command, and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["cl-adapters", *arguments])
    with pytest.raises(SystemExit) as found:
        call_whole(cli.app)
    return int(found.value.code or 0)


@pytest.mark.parametrize("arguments", [["list", "protocols"], ["--help"], ["list", "--help"]])
def test_a_command_ends_quietly_where_its_reader_has_left(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    monkeypatch.setattr(sys, "stderr", heard)
    assert ended(monkeypatch, *arguments) == CLOSED
    assert heard.getvalue() == ""


@pytest.mark.parametrize("arguments", [["list", "protocols"], ["--help"]])
def test_a_full_disk_behind_stdout_is_a_sentence_that_promises_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    monkeypatch.setattr(sys, "stderr", heard)
    assert ended(monkeypatch, *arguments) == 1
    assert heard.getvalue() == (
        "cl-adapters: stdout must take what is said, got: No space left on device\n"
    )


@pytest.mark.parametrize(("name", "is_kept"), [("run", True), ("report", False)])
def test_only_a_command_that_keeps_its_work_says_so(
    name: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        typer.echo("anything")

    command.__name__ = name
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    with watched_outputs(), pytest.raises(typer.Exit) as found:
        guarded(command)()
    assert found.value.exit_code == 1
    assert ("the same command continues" in capsys.readouterr().err) is is_kept


def test_a_command_goes_on_where_nobody_takes_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = io.StringIO(), Failing(errno.EPIPE)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with watched_outputs():
        typer.echo("note: first", err=True)
        typer.echo("note: second", err=True)
        typer.echo("result")
        assert err.getvalue() == "note: first\nnote: second\n"
    assert out.getvalue() == "result\n"
    assert sys.stdout is out
    assert sys.stderr is err


def test_closed_streams_take_all_and_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert ended(monkeypatch, "list", "protocols") == 0


def test_a_question_about_the_stream_is_no_attempt_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> NoReturn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", Full())
    with watched_outputs():
        assert sys.stdout.write("") == 0
        with pytest.raises(OutputError, match="No space left"):
            sys.stdout.write("text")
