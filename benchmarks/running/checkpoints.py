"""Checkpoints inside an experience: its training is kept every few minutes, and goes on from there.

    checkpoints/inside-0004/          while an experience is trained, the last two
        000007/                       the two files of `records.learned`; the numbers rise

A checkpoint that is damaged does not count, and the one before it is used.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from cl_adapters.benchmarks.running.learner import Learner
from cl_adapters.randomness import random_states
from cl_adapters.records.learned import DamagedError, read_learned, write_learned
from cl_adapters.strategies.core.checkpointing import TrainerState

__all__ = [
    "CHECKPOINT_MINUTES",
    "ExperienceCheckpoint",
    "trainer_states_of",
]

CHECKPOINT_MINUTES: Final = 10.0

Found = tuple[dict[str, Tensor], dict[str, Any]]


class ExperienceCheckpoint:
    """Keeps points of the experience in training, the last two; a `Checkpointer`.

    Args:
        folder: The folder of the run's checkpoints.
        minutes: Time between two of them, at least 0; 0 keeps one after each step.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self._folder, self._pause = folder, 60 * minutes
        self._experience = 0
        self._since = time.monotonic()
        self._number = 0
        self._begun = 0.0

    def begin(self, experience: int) -> Found | None:
        """Turns to an experience; returns its last whole checkpoint, if there is one.

        Raises:
            InputError: If one has a newer format.
        """
        self._experience, self._number = experience, 0
        found: Found | None = None
        for place in sorted(self._places(), reverse=True):
            self._number = max(self._number, int(place.name) + 1)
            try:
                found = read_learned(place)
                break
            except DamagedError:
                continue
        self._since = time.monotonic()
        self._begun = time.perf_counter() - (found[1]["seconds"] if found else 0.0)
        return found

    @property
    def seconds(self) -> float:
        """Time spent on the experience so far, with that before an interruption."""
        return time.perf_counter() - self._begun

    def is_due(self) -> bool:
        """Says whether the time has come to keep another."""
        return time.monotonic() - self._since >= self._pause

    def keep(self, points: Sequence[TrainerState]) -> None:
        """Writes the ends of the phases so far and the present moment."""
        tensors = {
            f"{index}.{name}": value
            for index, point in enumerate(points)
            for name, value in point.tensors.items()
        }
        moments = [
            {"phase": each.phase, "epoch": each.epoch, "facts": dict(each.facts)} for each in points
        ]
        self._keep(tensors, {"points": moments})

    def keep_trained(self, strategy: Learner, plugin: Mapping[str, Any]) -> None:
        """Writes what a strategy is when an experience is trained and not yet evaluated.

        Args:
            strategy: The strategy.
            plugin: What the observer knows.
        """
        events = strategy.pop_events(self._experience)
        for event in events:
            strategy.log_event(event.event, seconds=event.seconds, **event.values)
        metadata = {
            "events": [event.as_line() for event in events],
            "timings": strategy.timings,
            "random": random_states(),
            "observer": dict(plugin),
        }
        self._keep(strategy.checkpoint_state(), {"trained": metadata})

    def _keep(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        common = {"experience": self._experience, "seconds": self.seconds}
        write_learned(self._place() / f"{self._number:06d}", tensors, {**common, **metadata})
        self._number += 1
        for place in sorted(self._places())[:-2]:
            shutil.rmtree(place)
        self._since = time.monotonic()

    def drop(self) -> None:
        """Removes what was kept inside of experiences: they are finished, or begin again."""
        for place in self._folder.glob("inside-*"):
            shutil.rmtree(place)

    def _place(self) -> Path:
        return self._folder / f"inside-{self._experience:04d}"

    def _places(self) -> list[Path]:
        place = self._place()
        return [each for each in place.iterdir() if each.name.isdigit()] if place.is_dir() else []


def trainer_states_of(found: Found) -> list[TrainerState]:
    """Returns the points that a checkpoint inside an experience holds."""
    tensors, metadata = found
    points = []
    for index, each in enumerate(metadata["points"]):
        start = f"{index}."
        own = {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        points.append(TrainerState(each["phase"], each["epoch"], own, each["facts"]))
    return points
