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
    STREAMS,
    VARIANTS,
    forked,
    kill_after,
    killed_at_write,
    outcome,
    run,
)

KILLS = 6  # of each strategy: half at a random time, half while a file is written
KILLS_OF_STREAMS = 4  # of each stream

Record = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(OPTIONS))
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_the_straight_one(
    strategy: str, tmp_path: Path, record_property: Record
) -> None:
    """Each run goes on where it was killed; a third of them keep a point after each step."""
    survived = killed_again_and_again(partial(run, strategy), tmp_path, KILLS, strategy)
    record_property("reliability: kills survived", survived)


@pytest.mark.slow
@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_a_run_of_another_stream_survives_as_well(
    stream: str, tmp_path: Path, record_property: Record
) -> None:
    work = partial(run, **STREAMS[stream])
    survived = killed_again_and_again(work, tmp_path, KILLS_OF_STREAMS, stream)
    record_property("reliability: kills survived", survived)


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_variant_killed_in_its_first_experience_ends_bit_for_bit_as_the_straight_one(
    variant: str, tmp_path: Path, record_property: Record
) -> None:
    work = partial(run, **VARIANTS[variant])
    work(out=tmp_path / "straight", minutes=10)
    again = partial(work, out=tmp_path / "killed")
    assert killed_at_write(14, partial(again, minutes=0))
    again(minutes=10)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")
    record_property("reliability: kills survived", 1)


def killed_again_and_again(work: Callable[..., object], place: Path, most: int, name: str) -> int:
    """Kills work so often, in a folder or two; returns the kills that it survived.

    Args:
        work: Takes `out`, and the minutes between two points that are kept.
        place: Where its folders lie.
        most: Number of kills.
        name: Decides when they come.
    """
    work(out=place / "straight", minutes=10)
    since = time.monotonic()
    work(out=place / "timed", minutes=1)
    seconds = time.monotonic() - since
    expected = outcome(place / "straight")
    assert outcome(place / "timed") == expected, "keeping points changes nothing"

    drawn = random.Random(f"kills of {name}")
    survived, number = 0, 0
    while survived < most:
        out, number, kills = place / f"killed-{number}", number + 1, 0
        alive = True
        while alive and kills < most // 2:
            again = partial(work, out=out, minutes=drawn.choice([0, 0.001, 10]))
            if kills % 2:
                alive = killed_at_write(drawn.randint(1, 60), again)
            else:
                alive = kill_after(drawn.uniform(0, seconds), forked(again))
            kills += alive
        work(out=out, minutes=10)
        assert outcome(out) == expected
        survived += kills
    return survived


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
