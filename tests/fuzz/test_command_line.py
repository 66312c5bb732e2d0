"""Command lines of chance: each ends well, or in one sentence with exit code 1 or 2."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cl_adapters.benchmarks import bench
from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.sweeps import engine_local, retries, tune, tune_command
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.cli import app
from cl_adapters.errors import RunError
from tests.benchmarks.killable import SOURCE
from tests.fuzz import recipes_of_chance as chance
from tests.fuzz.commands import invoked
from tests.fuzz.fuzzing import fuzz

Record = Callable[[str, object], None]
QUICK, LONG = 8, 400


def options() -> dict[str, list[str]]:
    """Names of the options of each command."""
    group = get_command(app)
    found = {}
    for name in group.list_commands(None):  # type: ignore[attr-defined]
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        command = command.commands["inspect"] if name == "data" else command
        found[name] = [each.opts[0] for each in command.params if each.opts[0].startswith("--")]
    return found


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands go as far as to where training or measuring would begin."""

    def images(config: Any, *_: Any) -> Any:
        return SOURCE if config.source == "digits" else opened(config)

    opened = batch.open_images
    monkeypatch.setattr(retries, "_LAST", {})  # a process keeps what it opened last
    for module in (batch, retries, tune_command):
        monkeypatch.setattr(module, "open_images", images)
    monkeypatch.setattr(batch, "run", lambda prepared, out, **_: out / prepared.record.directory)
    monkeypatch.setattr(
        engine_local.LocalEngine,
        "run",
        lambda self, configs, *_, **__: [Outcome(each, error="[/red] odd") for each in configs],
    )
    monkeypatch.setattr(tune.Tuning, "work", lambda *_: None)
    monkeypatch.setattr(bench, "run_bench", measured)
    monkeypatch.setenv("HOME", str(tmp_path))


def measured(*_: object, **__: object) -> None:
    raise RunError("it would measure now")


def try_command(words: list[str]) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = Path(name) / "a" / "b" / "c"  # a name that leads up stays inside
        place.mkdir(parents=True)
        os.chdir(place)
        Path("odd.toml").write_text('strategy = "lae"\nepochs = 3\n')
        Path("runs").mkdir()
        Path("w.pt").write_bytes(b"PK\x03\x04")
        try:
            invoked(words)
        finally:
            os.chdir(before)


def test_commands_end_well_or_in_one_sentence(record_property: Record) -> None:
    fuzz(try_command, QUICK, chance.command_lines(options()))
    record_property("reliability: odd command lines", QUICK)


@pytest.mark.slow
def test_many_commands_end_well_or_in_one_sentence(record_property: Record) -> None:
    fuzz(try_command, LONG, chance.command_lines(options()))
    record_property("reliability: odd command lines", LONG)
