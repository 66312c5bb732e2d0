"""Damaged unfinished runs go on from a moment that they have been through, or are refused."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.benchmarks.killable import SOURCE, config, killed_at_write, run
from tests.benchmarks.running.going_on import Start, moments, started
from tests.records.damages import damage

Record = Callable[[str, object], None]
# Where a run is killed that keeps a point after each step: at which flush of a file.
KILLS = {"mos": (31, 76, 118), "sema": (58, 97), "simplecil": (22,), "lae": (45,)}


@dataclass
class Begun:
    """A run that was killed, and all that it may go on with."""

    folder: Path
    prepared: PreparedRun
    stream: Any
    moments: dict[int, dict[str, Any]]
    inside: list[dict[str, Any]]

    @property
    def done(self) -> int:
        return max(self.moments)

    def judge(self, start: Start, kind: str) -> str:
        """Says where a damaged one goes on; fails if that is no moment of the sound one."""
        done = start.given["done"]
        given = {**start.given}
        extra = {name: given.pop(name) for name in [*given] if name in self.inside_names(done)}
        assert given == self.moments[done], kind
        assert done == self.done or start.notes, f"{kind}: goes back and says nothing"
        assert extra in (self.inside if done == self.done else [{}]), kind
        if done < self.done:
            return "an experience before"
        return "the same point" if extra == self.inside[0] else "a point before"

    def inside_names(self, done: int) -> set[str]:
        return {"points", "progress", f"learned {done}"}


def begun(place: Path, strategy: str, kill: int) -> Begun:
    """Kills a run of a strategy at a write and reads what it left, from sound files alone."""
    assert killed_at_write(kill, partial(run, strategy, place / "killed", minutes=0))
    prepared = prepare(config(strategy), source=SOURCE)
    (folder,) = find_runs([place / "killed"])
    found = Begun(folder, prepared, prepared.benchmark(), moments(folder), [])
    for left in range(3):  # with both points inside an experience, with one, with none
        copy = copied(folder, place / f"points-{left}")
        for point in sorted(copy.glob("checkpoints/inside-*/*"), reverse=True)[:left]:
            shutil.rmtree(point)
        given = started(prepared, found.stream, place / f"points-{left}").given
        names = found.inside_names(found.done)
        found.inside.append({name: given[name] for name in given if name in names})
    return found


@pytest.fixture
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pulls the plug here, and waiting for the disk is most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def copied(folder: Path, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    place = out / folder.parent.parent.name / folder.parent.name / folder.name
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns(".lock"))
    return place


def tries(found: Begun, place: Path, number: int, seed: str) -> Counter[str]:
    """Damages a run in so many ways, each of its files in turn, and takes it up again."""
    drawn, counts = random.Random(seed), Counter[str]()
    names = sorted(
        path.relative_to(found.folder)
        for path in found.folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.stat().st_size
    )
    for index in range(number):
        folder = copied(found.folder, place)
        kind = damage(folder / names[index % len(names)], drawn)
        kind += f" in {names[index % len(names)].parent}"
        try:
            start = started(found.prepared, found.stream, place)
        except (InputError, RunError):
            counts["refused"] += 1
        else:
            counts[found.judge(start, kind)] += 1
    return counts


def test_a_damaged_unfinished_run_goes_on_from_where_it_was_or_is_refused(
    tmp_path: Path, no_flush: None, record_property: Record
) -> None:
    """A few; the next test takes many."""
    found = begun(tmp_path, "simplecil", 22)
    assert RunRecord.read(found.folder).state == "running"
    counts = tries(found, tmp_path / "tried", 8, "few")
    assert counts.total() == 8
    record_property("reliability: damages of unfinished runs, read again", counts.total())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "kill"), [(name, kill) for name, kills in KILLS.items() for kill in kills]
)
def test_many_damaged_unfinished_runs_go_on_from_where_they_were_or_are_refused(
    strategy: str, kill: int, tmp_path: Path, no_flush: None, record_property: Record
) -> None:
    found = begun(tmp_path, strategy, kill)
    counts = tries(found, tmp_path / "tried", 300, f"many of {strategy} at {kill}")
    print(f"\n{strategy}, killed at {kill} with {found.done} done: {dict(counts)}")  # noqa: T201
    record_property("reliability: damages of unfinished runs, read again", counts.total())
