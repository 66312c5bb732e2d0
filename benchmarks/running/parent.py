"""The run that another one continues: what is asked of it, what is noted of it, what is taken over.

A run that continues another has a directory of its own, which begins with what the other one left:
its tables, its events and its last checkpoint. The other one is never written to.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.data.joining import Before
from cl_adapters.errors import InputError, listed
from cl_adapters.paths import user_path
from cl_adapters.records.at_work import check_not_at_work
from cl_adapters.records.event_kinds import Domain
from cl_adapters.records.events import read_events
from cl_adapters.records.files import atomic_path, read_file
from cl_adapters.records.integrity import EVENTS, adopt_files, check_files, read_checked
from cl_adapters.records.learned import read_checkpoint, write_checkpoint
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

__all__ = ["NETWORK_KEYS", "Parent", "begin_from_parent", "noted_parent", "open_parent"]

# What a fingerprint says that is not of the images.
NETWORK_KEYS: Final = ("backbone", "weights", "pixels")
_TAKEN_OVER: Final = ("predictions.parquet", "retrieval.parquet", EVENTS)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A finished run that another one continues.

    Attributes:
        folder: Its run directory.
        record: Its record.
        sha256: Of its `run.json`.
        samples: Number of the first test image that its predictions do not hold.
        domains: Name of the domain of each of its experiences; empty where the stream has none.
        is_noted: Whether this is only what a run that continues it holds of it; see `noted_parent`.
    """

    folder: Path
    record: RunRecord
    sha256: str
    samples: int
    domains: Sequence[str]
    is_noted: bool = False

    def note(self) -> dict[str, Any]:
        """Returns what the record of a run that continues it says; see `RunRecord.parent`."""
        above = self.record.parent
        return {
            "path": str(self.folder),
            "sha256": self.sha256,
            "experiences": self.record.experiences_done,
            "samples": self.samples,
            **({"parent": above} if above else {}),
        }

    def before(self, above: int) -> Before:
        """Returns what was learned when this run ended, or one of those that it continues.

        Args:
            above: How many runs up the chain; 0 for this one.

        Raises:
            InputError: If the chain is shorter.
        """
        note: Mapping[str, Any] | None = self.note()
        for _ in range(above):
            note = note.get("parent") if note else None
        if note is None:
            raise InputError(
                f"run {str(self.folder)!r} must name {above} runs that it continues in turn, which "
                "its record does not"
            )
        experiences = self.record.experiences[: note["experiences"]]
        num_classes = 1 + max(position for each in experiences for position in each)
        known = self.record.fingerprint
        if above:
            known = known["data"]["learned"]["before"]
        return Before(
            source=str(known["stream"]),
            classes=self.record.classes[:num_classes],
            experiences=experiences,
            domains=self.domains[: len(experiences)],
            samples=note["samples"],
            known={name: each for name, each in known.items() if name not in NETWORK_KEYS},
        )


def open_parent(run: str | Path) -> Parent:
    """Opens a run that is to be continued; changes nothing in it.

    Args:
        run: Its run directory, or a folder with one run in it.

    Raises:
        InputError: If there is none, it is not finished, another process writes to it, or a file of
            it is missing or damaged.
    """
    folder = _only_run(user_path(run))
    check_not_at_work(folder)
    record, sha256 = _record(folder)
    _check_is_finished(folder, record)
    check_files(folder)
    read_checkpoint(folder / "checkpoints", record.experiences_done - 1)
    predictions = read_predictions(folder)
    return Parent(
        folder=folder,
        record=record,
        sha256=sha256,
        samples=int(predictions["sample"].max()) + 1,
        domains=_domains(folder),
    )


def noted_parent(child: Path) -> Parent | None:
    """Returns the run that another one continues, as far as that one holds what it was.

    It says what was learned before, also where the continued run is gone; of its protocol only
    what the other one's record repeats.

    Args:
        child: Run directory of the run that continues it.

    Returns:
        It; None for a run that began by itself.

    Raises:
        InputError: If there is no sound record.
    """
    record = RunRecord.read(child)
    note = record.parent
    if note is None:
        return None
    parts, done = record.config.get("continued", []), note["experiences"]
    known = {name: record.fingerprint[name] for name in NETWORK_KEYS}
    learned = record.fingerprint["data"].get("learned")
    if learned is not None:
        is_last = parts[-1].get("old_test") is not None
        known |= learned["before"] if is_last else {"data": {"learned": learned}}
    before = replace(
        record,
        config={**record.config, "continued": parts[:-1]},
        fingerprint=known,
        experiences=record.experiences[:done],
        experiences_done=done,
        parent=note.get("parent"),
    )
    return Parent(
        folder=Path(note["path"]),
        record=before,
        sha256=note["sha256"],
        samples=note["samples"],
        domains=_domains(child)[:done],
        is_noted=True,
    )


def _domains(folder: Path) -> list[str]:
    names = {e.experience: e.domain for e in read_events(folder) if isinstance(e, Domain)}
    return [names[each] for each in sorted(names)]


def _record(folder: Path) -> tuple[RunRecord, str]:
    path = folder / "run.json"
    data = read_file(path)
    try:
        record = RunRecord.parse(path, data)
    except InputError as error:  # to begin the new run again would mend nothing
        raise InputError(str(error).removesuffix("; use --restart")) from error
    return record, hashlib.sha256(data or b"").hexdigest()


def _only_run(folder: Path) -> Path:
    if (folder / "run.json").is_file():
        return folder
    below = find_runs([folder]) if folder.is_dir() else []
    if len(below) == 1:
        return below[0]
    hint = f"; {len(below)} runs lie below: {listed(map(str, below))}" if below else ""
    raise InputError(f"run {str(folder)!r} must be a run directory, with a run.json{hint}")


def _check_is_finished(folder: Path, record: RunRecord) -> None:
    if "data" not in record.fingerprint or "strategy" not in record.config:
        raise InputError(
            f"run {str(folder)!r} must be one of a recipe to be continued, got one over a "
            "benchmark of its own"
        )
    done, every = record.experiences_done, len(record.experiences)
    if record.state != "finished" or done < every:
        hint = "; the command that began it goes on with it"
        if record.state == "failed":
            hint = f", since: {record.error}"
        raise InputError(
            f"run {str(folder)!r} must be finished to be continued, got {record.state} with {done} "
            f"of {every} experiences done{hint}"
        )


def begin_from_parent(folder: Path, planned: RunRecord) -> None:
    """Begins a run where the one that it continues ended.

    The record is written last: a crash before leaves a run that has not begun.

    Args:
        folder: Its run directory, with nothing in it.
        planned: Its record, with `parent`; gets what the other one has done.

    Raises:
        InputError: If the other one has changed since it was opened, or is damaged.
    """
    note = planned.parent or {}
    parent = user_path(note["path"])
    check_not_at_work(parent)
    record, sha256 = _record(parent)
    if sha256 != note["sha256"]:
        raise InputError(f"run {str(parent)!r} must not change while it is being continued")
    for name in _TAKEN_OVER:
        data = read_checked(parent, name)
        if data is not None:
            with atomic_path(folder / name) as path:
                path.write_bytes(data)
    last = record.experiences_done - 1
    learned = read_checkpoint(parent / "checkpoints", last)
    classes = learned.classes or record.experiences[: last + 1]
    write_checkpoint(folder / "checkpoints", last, learned.state, classes)
    planned.experiences_done = record.experiences_done
    planned.parameters, planned.seconds = record.parameters, record.seconds
    adopt_files(folder, planned)
    planned.write(folder)
