"""Slow: reports are killed at random moments: no run is touched, and the next report is whole."""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cl_adapters.reports.report import write_report
from tests.benchmarks.killable import forked, kill_after, killed_at_write, run

Record = Callable[[str, object], None]


def reported(runs: Path, out: Path) -> None:
    write_report([runs], out, formats=["svg"])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_a_report_killed_at_random_moments_leaves_runs_alone_and_is_written_again(
    tmp_path: Path, record_property: Record
) -> None:
    runs = tmp_path / "runs"
    run("mos", runs, minutes=10)
    before = contents(runs)
    since = time.monotonic()
    assert os.waitpid(forked(partial(reported, runs, tmp_path / "straight")), 0)[1] == 0
    seconds, drawn = time.monotonic() - since, random.Random("kills of reports")
    expected = contents(tmp_path / "straight")
    survived = 0
    while survived < 6:
        out, kills = tmp_path / f"killed-{survived}", 0
        while kills < 3:
            again = partial(reported, runs, out)
            if kills % 2:
                alive = killed_at_write(drawn.randint(1, 30), again)
            else:
                alive = kill_after(drawn.uniform(0, seconds), forked(again))
            kills += alive
            for name, content in contents(out).items():  # what is there is whole
                assert ".tmp" in name or content == expected[name], name
        assert os.waitpid(forked(partial(reported, runs, out)), 0)[1] == 0
        assert {
            name: each for name, each in contents(out).items() if ".tmp" not in name
        } == expected
        assert contents(runs) == before
        survived += kills
    record_property("reliability: kills of reports survived", survived)
