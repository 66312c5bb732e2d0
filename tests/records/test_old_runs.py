"""Runs that an earlier version wrote: read, listed, reported, verified, found and continued."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cl_adapters.benchmarks.listing import list_table
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.progress import Progress
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.verify import verify
from cl_adapters.records.event_kinds import Cache
from cl_adapters.records.events import read_events
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord, find_run_folder, find_runs, verify_checksum
from cl_adapters.records.tables import read_predictions, read_retrieval
from cl_adapters.records.upgrade import EARLIER_DEFAULTS
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report

DATA = Path(__file__).parents[1] / "data" / "format2"
VERIFIED = Path(__file__).parents[1] / "data" / "format2_verified"
STRATEGIES = ("lae", "mos", "sema")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old runs, from where their recipes find their images."""
    shutil.copytree(DATA, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def _only(folder: Path, strategy: str) -> Path:
    (found,) = (folder / "digits" / strategy).iterdir()
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_record_comes_under_todays_names(strategy: str) -> None:
    folder = _only(DATA / "finished", strategy)
    record = RunRecord.read(folder)
    expected = {
        "mos": {"peft": "lora", "size": 1, "task_predictor": "prototypes"},
        "sema": {"size": 2, "head": "linear", "cache_megabytes": 64.0},
        "lae": {"peft": "adapter", "size": 1, "blocks": 1},
    }[strategy]
    assert expected.items() <= record.config["options"].items()
    written = json.loads((folder / "run.json").read_text())
    earlier = EARLIER_DEFAULTS.get(strategy, {}).keys() - expected.keys()
    assert len(record.config["options"]) == len(written["config"]["options"]) + len(earlier)
    rest = {name: value for name, value in written["config"].items() if name != "stream"}
    assert {**record.config, "options": {}} == {**rest, "options": {}}
    assert record.config["data"], "so that its stream said nothing of it"
    assert record.role == "method"
    verify_checksum(folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_events_come_under_todays_names(strategy: str) -> None:
    folder = _only(DATA / "finished", strategy)
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    events = read_events(folder)
    assert len(events) == len(lines)
    caches = [event for event in events if isinstance(event, Cache)]
    memos = [line for line in lines if line["event"] == "memo"]
    assert [(each.mode, each.read, each.earlier_hits) for each in caches] == [
        (line["mode"], line["read"], line["inherited"]) for line in memos
    ]
    for event, line in zip(events, lines, strict=True):
        if line["event"] != "memo":
            assert event.as_line() == line, "every other line says what it said"


def test_tensors_come_under_todays_names() -> None:
    found = read_checkpoint(_only(DATA / "unfinished", "mos") / "checkpoints", 0).state
    starts = {name.split(".")[0] for name in found}
    assert {"current_adapters", "frozen_adapters", "task_predictor"} <= starts
    assert not starts & {"working", "stored", "guess"}
    assert not any("pet-" in name.replace("peft-", "") for name in found)
    assert "frozen_adapters.peft-key_down" in found


def test_old_runs_are_listed_and_reported(tmp_path: Path) -> None:
    loaded = load_runs([DATA])
    assert (len(loaded.finished), len(loaded.unfinished), loaded.broken) == (3, 2, [])
    assert all(each in str(list_table("runs", DATA / "finished")) for each in STRATEGIES)
    page = write_report([DATA], tmp_path / "report", formats=["svg"]).html.read_text()
    for strategy in STRATEGIES:
        assert strategy in page


def test_the_examples_that_were_published_are_verified() -> None:
    runs = load_runs([VERIFIED])
    assert not runs.broken
    assert {json.loads((f / "run.json").read_text())["format"] for f in find_runs([VERIFIED])} <= {
        1, 2,
    }  # fmt: skip
    assert verify(runs.finished).cells


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_finished_run_is_not_repeated(place: Path, strategy: str) -> None:
    folder = _only(place / "finished", strategy)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    prepared = prepare(RunConfig.parse(RunRecord.read(folder).config))
    out = place / "finished"
    assert find_run_folder(out, prepared.record) == folder != out / prepared.record.directory
    assert runner.run(prepared, out) == folder
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(folder.parent.iterdir())) == 1


class Heard(Progress):
    """What a run tells."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def advance(self, text: str, images: int) -> None:
        self.texts.append(text)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mos", "sema"])
def test_an_unfinished_run_goes_on_to_the_same_predictions(place: Path, strategy: str) -> None:
    folder = _only(place / "unfinished", strategy)
    config = RunConfig.parse(RunRecord.read(folder).config)
    begun = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    heard = Heard()
    assert runner.run(prepare(config), place / "unfinished", progress=heard) == folder
    assert ("continuing" in heard.texts) == (strategy == "mos"), "where it kept a point"
    first = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    assert first == begun, "experience 0 was not trained again"
    written = json.loads((folder / "run.json").read_text())
    assert (written["format"], written["state"]) == (5, "finished")
    # What it went on from was computed on another machine, which rounds otherwise: close to what
    # this one computes without a stop, and to what another one did.
    straight = runner.run(prepare(config), place / "straight")
    ours, names = read_predictions(folder), ["sample", "target", "target_experience", "experience"]
    for theirs in map(read_predictions, (straight, _only(DATA / "finished", strategy))):
        assert (ours[names] == theirs[names]).all().all()
        assert (ours["prediction"] == theirs["prediction"]).mean() >= 0.99
        assert np.allclose(ours["confidence"], theirs["confidence"], atol=5e-3)
    found, wanted = read_retrieval(folder), read_retrieval(straight)
    assert len(found) == len(wanted)
    assert len(found) == 0 or (found["adapter"] == wanted["adapter"]).mean() >= 0.99
    # And the directory is still the one of this recipe.
    assert runner.run(prepare(config), place / "unfinished") == folder


def test_somebodys_copy_is_no_run_of_the_recipe(place: Path) -> None:
    folder = _only(place / "finished", "lae")
    folder.rename(folder.with_name("seed0-copy"))
    prepared = prepare(RunConfig.parse(RunRecord.read(folder.with_name("seed0-copy")).config))
    out = place / "finished"
    assert find_run_folder(out, prepared.record) == out / prepared.record.directory


def test_another_recipe_is_not_taken_for_it(place: Path) -> None:
    folder = _only(place / "finished", "lae")
    values = RunRecord.read(folder).config
    values["options"]["epochs"] = 3
    prepared = prepare(RunConfig.parse(values))
    assert find_run_folder(place / "finished", prepared.record) != folder
