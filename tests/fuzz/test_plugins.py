"""Plug-ins of chance: they are sound, or a sentence says what is wrong with them, never a traceback."""

import os
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_adapters.benchmarks.running import batch
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions
from tests.benchmarks.killable import SOURCE
from tests.fuzz import plugins_of_chance as chance
from tests.fuzz.commands import invoked
from tests.fuzz.fuzzing import fuzz

Record = Callable[[str, object], None]
QUICK, LONG = 4, 80
ONLY = {"strategy": "answers", "detector": "fires", "adapter": "state", "stream": "opens"}
RUN = ["--backbone", "test_vit", "--weights", "random", "--image-size", "16", "--increment", "3",
       "--quiet", "--cache", "off", "--out"]  # fmt: skip
MINE = "mine.py:Mine"
ASKED = {
    "strategy": ["--strategy", MINE, "--set", "epochs=1"],
    "detector": ["--strategy", "sema", "--set", f"detector={MINE}", "--set", "epochs=1",
                 "--set", "descriptor_epochs=1"],
    "adapter": ["--strategy", "finetune", "--set", f"peft={MINE}", "--set", "epochs=1"],
    "stream": ["--strategy", "simplecil", "--stream", MINE],
}  # fmt: skip


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
            torch.set_grad_enabled(True)  # one of the plug-ins turns it off


def try_plugin(plugin: dict[str, Any], run: Collection[str] = tuple(ASKED)) -> None:
    with folder_of_its_own() as folder:
        (folder / "mine.py").write_text(chance.source_of(plugin))
        kind = plugin["kind"]
        checked = invoked(["check", kind, MINE, "--only", ONLY[kind]])
        assert checked.output.strip(), plugin
        if kind in run:
            try_run(folder, plugin)


def try_run(folder: Path, plugin: dict[str, Any]) -> None:
    """A run that says that it ended well is whole; no other is."""
    ended = invoked(["run", *ASKED[plugin["kind"]], *RUN, str(folder / "runs")])
    found = find_runs([folder / "runs"]) if (folder / "runs").exists() else []
    states = [RunRecord.read(each).state for each in found]
    assert (states == ["finished"]) == (ended.exit_code == 0), (plugin, states, ended.output)
    assert "running" not in states, (plugin, ended.output)
    for each in found:
        if states == ["finished"]:
            rows = read_predictions(each)
            assert sorted(rows["experience"].unique()) == [0, 1]
            assert rows["confidence"].between(0, 1).all()


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = batch.open_images
    monkeypatch.setattr(
        batch,
        "open_images",
        lambda config, *_: opened(config) if config.stream == MINE else SOURCE,
    )


def test_plugins_end_well_or_in_a_sentence(record_property: Record) -> None:
    fuzz(lambda plugin: try_plugin(plugin, run=["strategy"]), QUICK, chance.plugins)
    record_property("reliability: odd plug-ins", QUICK)


@pytest.mark.slow
def test_many_plugins_end_well_or_in_a_sentence(record_property: Record) -> None:
    fuzz(try_plugin, LONG, chance.plugins)
    record_property("reliability: odd plug-ins", LONG)
