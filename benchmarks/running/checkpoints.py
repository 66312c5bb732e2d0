"""Checkpoints of a run: what was learned, without the frozen backbone, and how to go on from there.

    checkpoints/experience-0003/      after an experience
        learned.safetensors           tensors by name
        checkpoint.json               format, metadata, SHA-256 of the tensors and of the rest
    checkpoints/inside-0004/          while an experience is trained, the last two
        000007/                       the same two files; the numbers rise

Nothing is pickled. A checkpoint is complete when its JSON file is there, which is written last; one
that is damaged does not count, and the one before it is used.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cl_adapters.benchmarks.running.learner import Learner
from cl_adapters.errors import InputError
from cl_adapters.randomness import random_states
from cl_adapters.records.files import (
    FORMAT_VERSION,
    add_checksum,
    atomic_path,
    check_format,
    has_valid_checksum,
)
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.upgrade import upgrade_state
from cl_adapters.strategies.core.checkpointing import TrainerState

__all__ = [
    "CHECKPOINT_MINUTES",
    "DamagedError",
    "ExperienceCheckpoint",
    "last_whole",
    "read_checkpoint",
    "trainer_states_of",
    "write_checkpoint",
]

CHECKPOINT_MINUTES: Final = 10.0

Found = tuple[dict[str, Tensor], dict[str, Any]]


class DamagedError(InputError):
    """Raised when a checkpoint is missing, incomplete or not as it was written."""


def write_checkpoint(
    folder: Path,
    experience: int,
    state: Mapping[str, Tensor],
) -> None:
    """Writes what was learned up to and including an experience."""
    _write(folder / f"experience-{experience:04d}", state, {"experience": experience})


def read_checkpoint(folder: Path, experience: int) -> dict[str, Tensor]:
    """Reads what was learned up to and including an experience.

    Raises:
        DamagedError: If the checkpoint is missing or not as it was written.
        InputError: If it has a newer format.
    """
    return _read(folder / f"experience-{experience:04d}")[0]


def last_whole(folder: Path, done: int) -> tuple[int, dict[str, Tensor], str]:
    """Returns the last of a run's checkpoints that is whole.

    Args:
        folder: The folder of its checkpoints.
        done: Number of experiences that the run has finished.

    Returns:
        How many experiences it stands for, its tensors (none for 0), and what is wrong with the
        first that was passed over, empty if none was.

    Raises:
        InputError: If one has a newer format.
    """
    problem = ""
    for experience in range(done - 1, -1, -1):
        try:
            return experience + 1, read_checkpoint(folder, experience), problem
        except DamagedError as error:
            problem = problem or str(error)
    return 0, {}, problem


def _write(place: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    data = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    values = {
        "format": FORMAT_VERSION,
        **metadata,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_path(place / "learned.safetensors") as path:
        path.write_bytes(data)
    with atomic_path(place / "checkpoint.json") as path:
        path.write_text(json.dumps(add_checksum(values)) + "\n", "utf-8")


def _read(place: Path) -> Found:
    try:
        metadata = json.loads((place / "checkpoint.json").read_text("utf-8"))
        data = (place / "learned.safetensors").read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"checkpoint {place} must be complete, got: {error}") from error
    if not isinstance(metadata, dict):
        raise DamagedError(f"checkpoint {place} must hold its metadata, got {metadata!r}")
    check_format(metadata.get("format"), f"checkpoint {place}")
    is_sealed = has_valid_checksum(metadata)
    if not is_sealed or hashlib.sha256(data).hexdigest() != metadata.get("sha256"):
        raise DamagedError(f"checkpoint {place} must match its checksum, but it was damaged")
    try:
        state = dict(load(data))
    except SafetensorError as error:  # a checksum can be made to fit anything
        raise DamagedError(f"checkpoint {place} must hold tensors, got: {error}") from error
    if metadata["format"] < 3:
        state = upgrade_state(state, _strategy_of(place))
    return state, metadata


def _strategy_of(place: Path) -> str:
    records = (folder / "run.json" for folder in place.parents)
    record = next((path for path in records if path.exists()), None)
    return RunRecord.read(record.parent).strategy if record else ""


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
                found = _read(place)
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
        self._keep(strategy.learned_state(), {"trained": metadata})

    def _keep(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        common = {"experience": self._experience, "seconds": self.seconds}
        _write(self._place() / f"{self._number:06d}", tensors, {**common, **metadata})
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
