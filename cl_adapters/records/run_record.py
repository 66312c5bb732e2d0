"""What stands in `run.json`."""

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.files import (
    FORMAT_VERSION,
    add_checksum,
    atomic_path,
    check_format,
    digest,
    has_valid_checksum,
    read_file,
)
from cl_adapters.records.upgrade import as_named, upgrade_config, upgrade_record

__all__ = ["RunRecord", "RunState", "find_run_folder", "find_runs", "verify_checksum"]

RunState = Literal["running", "finished", "failed", "interrupted"]

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "strategy": (str,),
    "stream": (str,),
    "seed": (int,),
    "config": (dict,),
    "fingerprint": (dict,),
    "classes": (list,),
    "experiences": (list,),
    "experiences_done": (int,),
    "error": (str, type(None)),
    "parameters": (dict,),
    "seconds": (int, float),
    "versions": (dict,),
    "host": (dict,),
    "started": (str,),
    "ended": (str, type(None)),
    "role": (str,),
    "files": (dict, type(None)),
    "data": (dict,),
    "parent": (dict, type(None)),
}


@dataclass(kw_only=True)
class RunRecord:
    """What stands in `run.json`.

    Attributes:
        strategy: Name of the strategy, as in `cl-adapters list strategies`.
        stream: Name of the stream, as in the run directory's path.
        seed: Seed of the run: class order, initial weights, order of the images.
        config: The recipe that repeats the run.
        fingerprint: The protocol: data checksums, class order rule, increments, weights digest and
            pixel pipeline. Runs may be compared when it is equal.
        classes: Class names by position in the class order of this run.
        experiences: Positions of the classes that each experience brings.
        state: How far the run has come.
        experiences_done: Number of experiences trained, evaluated and stored.
        error: The sentence that ended a failed run.
        parameters: Counts of `backbone` (frozen) and `added` parameters after the last experience.
        seconds: Wall time spent so far, summed over resumed sessions.
        versions: Versions of Python and of the packages that matter.
        host: Processor, number of threads, device.
        started: ISO 8601 time with zone.
        ended: ISO 8601 time with zone, or None.
        role: What the strategy is to others: `upper_bound` (sees all data at once), `lower_bound`
            (does nothing against forgetting), `baseline` (what others are held against) or
            `method`.
        files: Digests of the tables and of the events, by file name; see `records.integrity`. None
            where an earlier version wrote them, without digests.
        data: What the reader of the images took them for (`layout`), how many files it left out by
            reason (`left_out`) and what it did to images (`images`); says nothing of the protocol.
        format: Version of the run directory's format.
        parent: Where this run goes on with another one: that one's `path`, the SHA-256 of its
            `run.json`, its number of `experiences`, the number of the first test image that is not
            its own (`samples`), and its own `parent` if it has one. None, and not written, for a
            run that began by itself.
    """

    strategy: str
    stream: str
    seed: int
    config: dict[str, Any]
    fingerprint: dict[str, Any]
    classes: list[str]
    experiences: list[list[int]]
    state: RunState = "running"
    experiences_done: int = 0
    error: str | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    ended: str | None = None
    role: str = "method"
    files: dict[str, dict[str, Any]] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT_VERSION
    parent: dict[str, Any] | None = None

    @property
    def directory(self) -> Path:
        """Path of the run below the folder of all runs."""
        return (
            Path(self.stream)
            / self.strategy
            / f"seed{self.seed}-{digest(as_named(self.config), 8)}"
        )

    @property
    def seams(self) -> list[int]:
        """Numbers of experiences done where this run goes on with another one, ascending."""
        found: list[int] = []
        note = self.parent
        while note:
            found.insert(0, int(note["experiences"]))
            note = note.get("parent")
        return found

    def write(self, folder: Path) -> None:
        """Writes `run.json` into `folder`, atomically."""
        with atomic_path(folder / "run.json") as path:
            values = asdict(self)
            if self.parent is None:
                del values["parent"]
            values = add_checksum(values)
            path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Reads `run.json` of a run directory.

        Raises:
            InputError: If the file is missing, is not a record, comes from a newer format, or was
                damaged or edited.
        """
        path = folder / "run.json"
        return cls.parse(path, read_file(path))

    @classmethod
    def parse(cls, path: Path, data: bytes | None) -> "RunRecord":
        """Reads what a `run.json` held.

        Args:
            path: Where it was.
            data: Its bytes; None if there was no file.

        Raises:
            InputError: As for `read`.
        """
        values = _from_json(path, data)
        if not isinstance(values, dict):
            raise InputError(f"{path} must hold a run record, got {repr(values)[:60]}")
        sealed, values = values, {"parent": None, **values}
        if isinstance(values.get("format"), int) and values["format"] < FORMAT_VERSION:
            values = upgrade_record(values)
        names = {item.name for item in fields(cls)}
        if not names <= set(values):
            missing = sorted(names - set(values))
            raise InputError(f"{path} must hold every key of a run record, lacks {missing}")
        check_format(values["format"], str(path))
        _check_checksum(path, sealed)
        _check_kinds(path, values)
        found = {name: values[name] for name in names}
        found |= {"config": upgrade_config(values["config"]), "format": FORMAT_VERSION}
        return cls(**found)


def _from_json(path: Path, data: bytes | None) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return json.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a readable run record, got: {error}") from error


def verify_checksum(folder: Path) -> None:
    """Refuses a `run.json` that is not as it was written, as `RunRecord.read` does.

    Raises:
        InputError: If it was damaged, or edited by hand.
    """
    path = folder / "run.json"
    values = _from_json(path, read_file(path))
    _check_checksum(path, values if isinstance(values, dict) else {})


def _check_checksum(path: Path, values: Mapping[str, Any]) -> None:
    if not has_valid_checksum(values):
        raise InputError(
            f"{path} must match its checksum, but it was damaged or edited; use --restart"
        )


def _check_kinds(path: Path, values: Mapping[str, Any]) -> None:
    """Refuses values of another kind: an older version kept no checksum, and one can be made."""
    for name, kinds in _KINDS.items():
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, kinds):
            shown = " or ".join(each.__name__ for each in kinds).replace("NoneType", "null")
            raise InputError(f"{path}: {name} must be of type {shown}, got {repr(value)[:60]}")
    if values["state"] not in get_args(RunState):
        raise InputError(f"{path}: state must be a state of a run, got {values['state']!r}")
    parts = values["experiences"]
    if not parts or not all(isinstance(each, list) for each in parts):
        raise InputError(f"{path}: experiences must be lists of classes, at least one")
    if not isinstance(values["config"].get("options", {}), dict):
        raise InputError(
            f"{path}: options must be a table, got {repr(values['config']['options'])[:60]}"
        )
    done, whole = values["experiences_done"], len(parts)
    if not 0 <= done <= whole:
        raise InputError(f"{path}: experiences_done must lie in 0 to {whole}, got {done}")
    _check_parents(path, values["parent"], whole)


def _check_parents(path: Path, note: Any, most: int) -> None:  # noqa: ANN401 - whatever it says
    # Each run that this one goes on with, in turn, had learned fewer experiences.
    while note is not None:
        is_whole = isinstance(note, dict) and all(
            isinstance(note.get(name), kind) and not isinstance(note.get(name), bool)
            for name, kind in (
                ("path", str),
                ("sha256", str),
                ("experiences", int),
                ("samples", int),
            )
        )
        if not is_whole or not 0 < note["experiences"] < most:
            raise InputError(
                f"{path}: parent must name a run of fewer than {most} experiences, got "
                f"{repr(note)[:60]}"
            )
        most, note = note["experiences"], note.get("parent")


def find_runs(roots: Iterable[str | Path]) -> list[Path]:
    """Returns every run directory at or below the given folders, sorted.

    Raises:
        InputError: If a folder does not exist.
    """
    found: set[Path] = set()
    for root in map(user_path, roots):
        if not root.is_dir():
            raise InputError(f"run folder {str(root)!r} must exist and be a directory")
        found.update(path.parent for path in root.rglob("run.json"))
    return sorted(found)


def find_run_folder(out: Path, planned: RunRecord) -> Path:
    """Returns the run directory of a planned run, begun or not.

    A directory's name holds the digest of the recipe as it was written. An older version wrote some
    names differently, so a run of the same recipe may lie beside, under another digest.

    Args:
        out: Folder of all runs.
        planned: Record of the run, with the whole recipe.
    """
    folder = out / planned.directory
    if (folder / "run.json").exists():
        return folder
    for path in sorted(folder.parent.glob(f"seed{planned.seed}-*/run.json")):
        if re.fullmatch(r"seed\d+-[0-9a-f]{8}", path.parent.name) is None:
            continue  # somebody's copy
        try:
            found = RunRecord.read(path.parent)
        except InputError:  # broken: `list runs` says so
            continue
        if found.config == planned.config:
            return path.parent
    return folder
