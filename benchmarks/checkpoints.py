"""Checkpoints of a run: what was learned after each experience, without the frozen backbone.

    checkpoints/experience-0003/learned.safetensors   tensors by name
    checkpoints/experience-0003/checkpoint.json       format, experience, SHA-256 of the tensors

Nothing is pickled. A checkpoint is complete when its JSON file is there, which is written last.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.records import FORMAT_VERSION, atomic_path

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(folder: Path, experience: int, state: Mapping[str, Tensor]) -> None:
    """Writes what was learned up to and including an experience."""
    place = folder / f"experience-{experience:04d}"
    data = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    facts = {
        "format": FORMAT_VERSION,
        "experience": experience,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_path(place / "learned.safetensors") as path:
        path.write_bytes(data)
    with atomic_path(place / "checkpoint.json") as path:
        path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def read_checkpoint(folder: Path, experience: int) -> dict[str, Tensor]:
    """Reads what was learned up to and including an experience.

    Raises:
        InputError: If the checkpoint is missing, damaged, or of another format.
    """
    place = folder / f"experience-{experience:04d}"
    try:
        facts = json.loads((place / "checkpoint.json").read_text("utf-8"))
        data = (place / "learned.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"checkpoint {place} must be complete, got: {error}; use --restart"
        ) from error
    if facts.get("format") != FORMAT_VERSION:
        raise InputError(
            f"checkpoint {place} must have format {FORMAT_VERSION}, got {facts.get('format')!r}"
        )
    if hashlib.sha256(data).hexdigest() != facts.get("sha256"):
        raise InputError(
            f"checkpoint {place} must match its checksum, but it was damaged; use --restart"
        )
    return dict(load(data))
