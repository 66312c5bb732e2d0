"""Slow: runs are killed at random moments again and again, and end as if nothing had happened."""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks.killable import (
    OPTIONS,
    forked,
    kill_after,
    killed_at_write,
    outcome,
    run,
)

KILLS = 6  # of each strategy: half at a random time, half while a file is written

Record = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(OPTIONS))
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_the_straight_one(
    strategy: str, tmp_path: Path, record_property: Record
) -> None:
    """Each run goes on where it was killed; a third of them keep a point after each step."""
    run(strategy, tmp_path / "straight")
    since = time.monotonic()
    run(strategy, tmp_path / "timed", minutes=1)
    seconds = time.monotonic() - since
    expected = outcome(tmp_path / "straight")
    assert outcome(tmp_path / "timed") == expected, "keeping points changes nothing"

    drawn = random.Random(f"kills of {strategy}")
    survived, number = 0, 0
    while survived < KILLS:
        out, number, kills = tmp_path / f"killed-{number}", number + 1, 0
        alive = True
        while alive and kills < KILLS // 2:
            work = partial(run, strategy, out, drawn.choice([0, 0.001, 10]))
            if kills % 2:
                alive = killed_at_write(drawn.randint(1, 60), work)
            else:
                alive = kill_after(drawn.uniform(0, seconds), forked(work))
            kills += alive
        run(strategy, out)
        assert outcome(out) == expected
        survived += kills
    record_property("reliability: kills survived", survived)


@pytest.mark.slow
def test_of_two_processes_at_one_directory_one_writes(
    tmp_path: Path, record_property: Record
) -> None:
    run("lae", tmp_path / "straight")
    drawn = random.Random("races")
    for race in range(5):
        out = tmp_path / f"race-{race}"
        work = partial(run, "lae", out)
        first = forked(work)
        time.sleep(drawn.uniform(0, 0.2))
        second = forked(work)
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (first, second)}
        assert 0 in codes, "one of them finishes"
        assert outcome(out) == outcome(tmp_path / "straight")
    record_property("reliability: races of two processes", 5)
