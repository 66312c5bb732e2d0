"""Digests of the files of a run directory, kept in its `run.json`; every reader checks them here.

`run.json` has a checksum of its own. Of each file that a reader trusts it holds the SHA-256. A
table is replaced as a whole: `replace_tables` first writes down the digest of what is coming, so
that a run that is killed leaves the old table or the new one, and both are known. `events.jsonl`
grows: its length and digest stand in the record after each experience. What comes behind is of an
experience that did not finish.

Checkpoints carry checksums of their own (`benchmarks.running.checkpoints`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from cl_adapters.errors import InputError
from cl_adapters.records.files import atomic_path, read_file
from cl_adapters.records.run_record import RunRecord

__all__ = [
    "EVENTS",
    "UNCHECKED",
    "adopt_files",
    "announce_tables",
    "check_files",
    "cut_events",
    "is_digested",
    "read_checked",
    "replace_tables",
    "seal_events",
    "settle_tables",
    "sound_experiences",
]

EVENTS: Final = "events.jsonl"
_TABLES: Final = ("predictions.parquet", "retrieval.parquet", "examples.parquet")
_TRIES: Final = 5  # of a reader beside a run that is at work

# What is said once of runs that an older version wrote.
UNCHECKED: Final = (
    "{number} of the runs hold no digests, as earlier versions wrote none: whether their tables "
    "and events are as they were written cannot be checked."
)


def read_checked(folder: Path, name: str) -> bytes | None:
    """Returns a file of a run directory, None if there is none and none is missing.

    A folder without `run.json` has nothing to check against.

    Args:
        folder: The run directory.
        name: Name of a table, or `EVENTS`.

    Raises:
        InputError: If the file, or the record itself, is not as it was written or cannot be read.
    """
    return _checked(folder, name, _record(folder))


def check_files(folder: Path, names: Iterable[str] = (*_TABLES, EVENTS)) -> None:
    """Refuses a run directory that holds a file that is not as it was written.

    Args:
        folder: The run directory.
        names: The files to look at; who reads one has it checked anyway.

    Raises:
        InputError: If there is one, or the record itself is damaged.
    """
    record = _record(folder)  # once for all of them
    for name in names:
        _checked(folder, name, record)


def is_digested(folder: Path, name: str) -> bool:
    """Says whether a file of a run directory has a digest, against which `read_checked` holds it.

    Raises:
        InputError: If the record is damaged.
    """
    record = _record(folder)
    return record is not None and name in (record.files or {})


def _record(folder: Path) -> RunRecord | None:
    """Returns a run's record, which is not to be changed: the same bytes are read once."""
    path = folder / "run.json"
    data = read_file(path)
    return None if data is None else _parsed(path, data)


@lru_cache(maxsize=4)
def _parsed(path: Path, data: bytes) -> RunRecord:
    return RunRecord.parse(path, data)


def _checked(folder: Path, name: str, record: RunRecord | None) -> bytes | None:
    if record is None:
        return read_file(folder / name)
    for _ in range(_TRIES):
        data = read_file(folder / name)
        problem = _problem(record, folder / name, data)
        if not problem:
            return data
        before, record = record, RunRecord.read(folder)
        if record.files == before.files:
            break  # nobody has written meanwhile
    raise InputError(problem)


def replace_tables(folder: Path, record: RunRecord, tables: Mapping[str, bytes]) -> None:
    """Writes tables and their digests; a crash at any moment leaves what the record knows.

    Args:
        folder: The run directory.
        record: Its record, which is written before the tables and has to be written after them.
        tables: What the files shall hold, by name.

    Raises:
        OSError: If the disk does not take it.
    """
    announce_tables(folder, record, tables)
    files = _files(record)
    for name, data in tables.items():
        with atomic_path(folder / name) as path:
            path.write_bytes(data)
        files[name] = {"sha256": files[name]["next"]}


def announce_tables(folder: Path, record: RunRecord, tables: Mapping[str, bytes]) -> None:
    """Writes down the digests of tables that are about to be written, beside those that are there.

    Args:
        folder: The run directory.
        record: Its record, which is written.
        tables: What files shall hold, by name; of other files than tables nothing is noted.
    """
    files = _files(record)
    for name in sorted(set(tables) & set(_TABLES)):
        files[name] = {"sha256": None, **files.get(name, {}), "next": _sha256(tables[name])}
    record.write(folder)


def settle_tables(folder: Path, record: RunRecord) -> None:
    """Notes which of two known tables is there, after a run that was killed."""
    for name, known in _files(record).items():
        if "next" in known:
            data = read_file(folder / name)
            known["sha256"] = None if data is None else _sha256(data)
            del known["next"]


def seal_events(folder: Path, record: RunRecord) -> None:
    """Notes the events as they stand at the end of an experience."""
    data = read_file(folder / EVENTS) or b""
    known = _files(record).setdefault(EVENTS, {"bytes": [], "sha256": []})
    known["bytes"].append(len(data))
    known["sha256"].append(_sha256(data))


def sound_experiences(folder: Path, record: RunRecord) -> int:
    """Returns how many of the finished experiences have their events as they were written."""
    data = read_file(folder / EVENTS) or b""
    for done in range(record.experiences_done, 0, -1):
        if _is_prefix(_files(record).get(EVENTS), done, data):
            return done
    return 0


def cut_events(folder: Path, record: RunRecord) -> None:
    """Drops the events of experiences that did not finish, before they are run again.

    Those before have to be sound: see `sound_experiences`.
    """
    done, known = record.experiences_done, _files(record).get(EVENTS)
    if known is not None:
        known["bytes"], known["sha256"] = known["bytes"][:done], known["sha256"][:done]
    data = read_file(folder / EVENTS) or b""
    length = known["bytes"][-1] if known is not None and done else 0
    if len(data) > length:
        with atomic_path(folder / EVENTS) as path:
            path.write_bytes(data[:length])


def adopt_files(folder: Path, record: RunRecord) -> None:
    """Gives a record of an earlier version the digests of what is there; its events are cut."""
    record.files = {}
    for name in _TABLES:
        data = read_file(folder / name)
        if data is not None:
            record.files[name] = {"sha256": _sha256(data)}
    data = read_file(folder / EVENTS) or b""
    lengths = [0] * record.experiences_done
    place = 0
    for line in data.splitlines(keepends=True):
        place += len(line)
        lengths[json.loads(line)["experience"]] = place
    lengths = list(accumulate(lengths, max))  # one without events ends where the one before did
    record.files[EVENTS] = {
        "bytes": lengths,
        "sha256": [_sha256(data[:length]) for length in lengths],
    }


def _files(record: RunRecord) -> dict[str, dict[str, Any]]:
    if record.files is None:
        record.files = {}
    return record.files


def _problem(record: RunRecord, path: Path, data: bytes | None) -> str:
    """Returns what is wrong with a file, empty if nothing is."""
    if record.files is None:
        return ""
    known = record.files.get(path.name)
    if path.name == EVENTS:
        is_sound = _is_sound_log(record, known, data or b"")
    else:
        digests = {} if known is None else known
        accepted = {value for key, value in digests.items() if key in ("sha256", "next")}
        is_sound = (None if data is None else _sha256(data)) in (accepted or {None})
    if is_sound:
        return ""
    if data is None:
        return f"{path} must be there, since run.json holds its digest, but it is missing"
    return f"{path} must match its digest in run.json, but it was damaged or edited"


def _is_sound_log(record: RunRecord, known: Mapping[str, Any] | None, data: bytes) -> bool:
    done = record.experiences_done
    if not done or known is None or len(known["bytes"]) < done:
        return not data or (not done and record.state != "finished")
    is_longer = len(data) > known["bytes"][done - 1]
    return _is_prefix(known, done, data) and not (is_longer and record.state == "finished")


def _is_prefix(known: Mapping[str, Any] | None, done: int, data: bytes) -> bool:
    if known is None or len(known["bytes"]) < done:
        return False
    length = known["bytes"][done - 1]
    digest: str = known["sha256"][done - 1]
    return len(data) >= length and _sha256(data[:length]) == digest


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
