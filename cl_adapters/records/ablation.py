"""What grown adapters are worth: `ablation.json` beside the `run.json` that it was measured on.

    {"format": 1, "run": SHA-256 of run.json, "images": [60, 60], "right": [50, 41],
     "without": [{"adapters": [[10, 1]], "right": [50, 33], "both": [49, 33]}], "unit": "adapter",
     "checksum": ...}

A number an experience of the test stream; adapters by block and number, both from 0. `both` counts
the images that are right either way. `unit` says what grew: an `adapter`, a `path` of one in each
block, or a whole `set`, whose block is 0; files without it hold adapters, or paths of several.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cl_adapters.errors import InputError
from cl_adapters.records.files import add_checksum, atomic_path, has_valid_checksum, read_file

__all__ = ["ABLATION", "UNITS", "Ablation", "Without", "read_ablation", "write_ablation"]

ABLATION: Final = "ablation.json"
UNITS: Final = ("adapter", "path", "set")
_FORMAT: Final = 1


@dataclass(frozen=True)
class Without:
    """The answers of a model without some of its adapters.

    Attributes:
        adapters: Block and number of each that was left out.
        right: Images answered rightly, by experience.
        both: Of these, those that the whole model answers rightly too.
    """

    adapters: tuple[tuple[int, int], ...]
    right: tuple[int, ...]
    both: tuple[int, ...]


@dataclass(frozen=True)
class Ablation:
    """The answers of a model as it is, and without each of its grown adapters.

    Attributes:
        images: Test images, by experience.
        right: Those that are answered rightly.
        without: The first leaves out all grown adapters, the others one each, or those of a path.
        unit: What grew: one of `UNITS`.
    """

    images: tuple[int, ...]
    right: tuple[int, ...]
    without: tuple[Without, ...]
    unit: str = "adapter"


def write_ablation(folder: Path, ablation: Ablation) -> None:
    """Writes what was measured into a run directory.

    Args:
        folder: The run directory.
        ablation: What was measured.
    """
    values: dict[str, Any] = {
        "format": _FORMAT,
        "run": _run(folder),
        "images": list(ablation.images),
        "right": list(ablation.right),
        "without": [
            {
                "adapters": [list(pair) for pair in each.adapters],
                "right": list(each.right),
                "both": list(each.both),
            }
            for each in ablation.without
        ],
        "unit": ablation.unit,
    }
    with atomic_path(folder / ABLATION) as path:
        path.write_text(json.dumps(add_checksum(values)) + "\n", "utf-8")


def read_ablation(folder: Path) -> Ablation | None:
    """Returns what was measured on a run; None if nothing was, or the run has changed since.

    Args:
        folder: The run directory.

    Raises:
        InputError: If the file is not as it was written, or a newer version wrote it.
    """
    content = read_file(folder / ABLATION)
    if content is None:
        return None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not has_valid_checksum(values):
        raise InputError(
            f"{ABLATION} must be as `cl-adapters ablate` wrote it, got a damaged file; delete it"
        )
    if values["format"] != _FORMAT:
        raise InputError(
            f"{ABLATION} must have format {_FORMAT}, got {values['format']!r}: a newer cl-adapters "
            "has written it; update this one"
        )
    if values["run"] != _run(folder):
        return None
    without = tuple(
        Without(
            tuple((block, number) for block, number in each["adapters"]),
            tuple(each["right"]),
            tuple(each["both"]),
        )
        for each in values["without"]
    )
    earlier = "path" if any(len(each.adapters) > 1 for each in without[1:]) else "adapter"
    unit = values.get("unit", earlier)
    return Ablation(tuple(values["images"]), tuple(values["right"]), without, unit)


def _run(folder: Path) -> str:
    return hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
