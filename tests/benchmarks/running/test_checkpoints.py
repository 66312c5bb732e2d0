"""Points inside an experience: the clock goes on, two lie on disk, the one before serves if one is bad."""

from pathlib import Path

import pytest
import torch

from cl_adapters.benchmarks.running import checkpoints
from cl_adapters.benchmarks.running.checkpoints import ExperienceCheckpoint, trainer_states_of
from cl_adapters.strategies.core.checkpointing import TrainerState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(checkpoints.time, "perf_counter", found)
    return found


def kept(folder: Path, values: list[int], clock: Clock) -> ExperienceCheckpoint:
    """Keeps a point a value, ten seconds apart, in experience 3."""
    inside = ExperienceCheckpoint(folder, minutes=0)
    assert inside.begin(3) is None
    for value in values:
        clock.now += 10
        inside.keep([TrainerState(0, value, {"w": torch.full((2,), float(value))}, {})])
    return inside


def epoch(inside: ExperienceCheckpoint) -> int | None:
    found = inside.begin(3)
    if found is None:
        return None
    (state,) = trainer_states_of(found)
    assert torch.equal(state.tensors["w"], torch.full((2,), float(state.epoch)))
    return state.epoch


def test_the_clock_goes_on_where_it_stood(tmp_path: Path, clock: Clock) -> None:
    kept(tmp_path, [0, 1, 2], clock)
    clock.now += 5000  # switched off
    inside = ExperienceCheckpoint(tmp_path, minutes=0)
    assert epoch(inside) == 2
    assert inside.seconds == 30
    clock.now += 7
    assert inside.seconds == 37


def test_the_last_two_stay_and_a_damaged_one_costs_itself_alone(
    tmp_path: Path, clock: Clock
) -> None:
    kept(tmp_path, [0, 1, 2, 3], clock)
    places = sorted((tmp_path / "inside-0003").iterdir())
    assert len(places) == 2
    for place, left in zip(reversed(places), (2, None), strict=True):
        learned = max(place.rglob("*.safetensors"))
        content = bytearray(learned.read_bytes())
        content[-1] ^= 1
        learned.write_bytes(content)
        inside = ExperienceCheckpoint(tmp_path, minutes=0)
        assert epoch(inside) == left
        assert inside.seconds == (30 if left == 2 else 0)


def test_what_comes_after_a_damaged_one_takes_no_place_of_it(tmp_path: Path, clock: Clock) -> None:
    kept(tmp_path, [0, 1], clock)
    inside = ExperienceCheckpoint(tmp_path, minutes=0)
    assert epoch(inside) == 1
    inside.keep([TrainerState(0, 9, {"w": torch.full((2,), 9.0)}, {})])
    assert epoch(ExperienceCheckpoint(tmp_path, minutes=0)) == 9


def test_one_is_due_after_its_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Clock()
    monkeypatch.setattr(checkpoints.time, "monotonic", now)
    inside = ExperienceCheckpoint(tmp_path, minutes=10)
    inside.begin(0)
    now.now += 599
    assert not inside.is_due()
    now.now += 1
    assert inside.is_due()
    inside.keep([TrainerState(0, 0, {"w": torch.zeros(1)}, {})])
    assert not inside.is_due()
