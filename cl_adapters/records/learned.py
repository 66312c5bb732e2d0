"""What was learned, without the frozen backbone: tensors, and what they are, in two files.

    checkpoints/experience-0003/      after an experience
        learned.safetensors           tensors by name
        checkpoint.json               format, metadata, SHA-256 of the tensors and of the rest

Nothing is pickled. A folder is complete when its JSON file is there, which is written last.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.records.files import (
    FORMAT_VERSION,
    add_checksum,
    atomic_path,
    check_format,
    has_valid_checksum,
)
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.upgrade import upgrade_state

__all__ = [
    "Checkpoint",
    "DamagedError",
    "last_whole",
    "read_checkpoint",
    "read_learned",
    "write_checkpoint",
    "write_learned",
]

Found = tuple[dict[str, Tensor], dict[str, Any]]


class DamagedError(InputError):
    """Raised when a checkpoint is missing, incomplete or not as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run had learned at the end of an experience.

    Attributes:
        state: Tensors by name.
        classes: The labels that each experience so far brought; None where an earlier version wrote
            it, which did not say.
    """

    state: Mapping[str, Tensor]
    classes: tuple[tuple[int, ...], ...] | None


def write_checkpoint(
    folder: Path,
    experience: int,
    state: Mapping[str, Tensor],
    classes: Sequence[Sequence[int]],
) -> None:
    """Writes what was learned up to and including an experience.

    Args:
        folder: The folder of the run's checkpoints.
        experience: Counted from 0.
        state: Tensors by name.
        classes: The labels that each experience so far brought.
    """
    metadata = {"experience": experience, "classes": [list(each) for each in classes]}
    write_learned(folder / f"experience-{experience:04d}", state, metadata)


def read_checkpoint(folder: Path, experience: int) -> Checkpoint:
    """Reads what was learned up to and including an experience.

    Raises:
        DamagedError: If the checkpoint is missing or not as it was written.
        InputError: If it has a newer format.
    """
    state, metadata = read_learned(folder / f"experience-{experience:04d}")
    classes = metadata.get("classes")
    return Checkpoint(state, None if classes is None else tuple(map(tuple, classes)))


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
            return experience + 1, dict(read_checkpoint(folder, experience).state), problem
        except DamagedError as error:
            problem = problem or str(error)
    return 0, {}, problem


def write_learned(place: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes tensors and what they are into a folder, each file atomically."""
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


def read_learned(place: Path) -> Found:
    """Reads tensors and what they are from a folder.

    Raises:
        DamagedError: If a file is missing or not as it was written.
        InputError: If it has a newer format.
    """
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
