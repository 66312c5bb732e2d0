"""The run directory: the only interface between running and reporting.

    runs/<stream>/<strategy>/seed<k>-<config hash>/
        run.json              what was run, on what, and how it ended (`RunRecord`)
        predictions.parquet   one row per (experience trained, test sample) (`PREDICTION_COLUMNS`)
        retrieval.parquet     the same rows, how a method chose an adapter (`RETRIEVAL_COLUMNS`);
                              only of methods that do
        examples.parquet      small pictures of test images that were right once and are wrong at
                              the end (`EXAMPLE_COLUMNS`); only of finished runs that found some
        events.jsonl          one JSON object a line: always `event`, `experience`, `seconds`
        checkpoints/          one folder per finished experience: what was learned, nothing frozen
                              (`cl_adapters.benchmarks.running.checkpoints`)

Kinds of events with their further keys; a reader passes over those that it does not know:

    phase        name, images              seconds of training under a name; losses: the mean of
                                           each epoch, where it learns by gradient
    evaluation   images, passes            passes of the backbone an image
    parameters   trainable, added, total
    memory       peak_bytes
    memo         mode (off, exact, or N fixed views); rows of frozen parts: read (not computed
                 again), computed, inherited (those of `read` that an earlier run had computed)
    scan         block, window, images, scores and thresholds by adapter, adapter (the one that fits
                 best) with its score and threshold, fired (all adapters' detectors), grown, reason
    growth       block, adapters (how many there are now), parameters (that this added)
    active       block, adapter (that the experience belongs to), changed (whether the detector of
                 the one before fired)
    router       block, weights (a row for each test experience: mean weight of each adapter)
    votes        experiences (of the test stream) and, for each of them: images, differ (images on
                 which the online and the offline expert choose different classes) and, of these,
                 online_right, offline_right, vote_right (how many each, and their vote, got right)
    statistics   class, rule: how the statistics of a class that is too small were completed
    drift        distances (square: relative distance of stored adapter set j from i, row i)
    reused       run (whose training this is: it differs only in how it evaluates)
    domain       domain, changed, seen_before, severity: the truth about the stream
    segment      start (images of the stream before it) and images (in it) of an experience that was
                 announced; announced (images that had come by then), score, threshold (null where
                 nothing was detected) and delay (images since the latest true change; null before
                 the first) of its announcement, all null in the first one; the truth that is
                 hidden: changes (where in the stream; those in the segment), origins (pairs of an
                 experience and how many of the images are its)

Needs no torch. Column and key names change only together with `FORMAT_VERSION`; a newer format is
refused, an older one is read as what it means today:

    2   `run.json` and each `checkpoint.json` hold a `checksum` of all else in them
    1   as 2, without

Every file is written to a temporary name in the same folder, flushed to disk and renamed, so that a
reader sees the old file or the new one. Tables have a checksum a page.
"""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cl_adapters.errors import InputError

__all__ = [
    "EXAMPLE_COLUMNS",
    "FORMAT_VERSION",
    "PREDICTION_COLUMNS",
    "RETRIEVAL_COLUMNS",
    "RunRecord",
    "RunState",
    "append_event",
    "append_events",
    "atomic_path",
    "check_format",
    "check_seal",
    "check_whole",
    "digest",
    "find_runs",
    "read_events",
    "read_examples",
    "read_predictions",
    "read_retrieval",
    "seal",
    "truncate_events",
    "write_examples",
    "write_predictions",
    "write_retrieval",
]

FORMAT_VERSION: Final = 2

RunState = Literal["running", "finished", "failed", "interrupted"]

# experience: index of the experience after whose training the prediction was made (0-based).
# sample: index in the source's test split; of a task-free run over a stream that tests images again
# and again, that plus N times the experience of the hidden truth, N - 1 the largest index.
# target, prediction: class by position in `RunRecord.classes`.
# confidence: probability of the prediction. nll: -log probability of the target, natural log.
# target_experience: the experience of the test stream that the sample belongs to.
PREDICTION_COLUMNS: Final[dict[str, pa.DataType]] = {
    "experience": pa.int32(),
    "sample": pa.int32(),
    "target": pa.int32(),
    "prediction": pa.int32(),
    "confidence": pa.float32(),
    "nll": pa.float32(),
    "target_experience": pa.int32(),
}

# experience, sample, target, prediction, target_experience: as above.
# uncorrected: the class that the first adapter asked would have given, without any correction.
# visited: the adapters that were asked, in order; counted from 0, adapter k is experience k's.
# adapter: the one that answered, the last visited.
RETRIEVAL_COLUMNS: Final[dict[str, pa.DataType]] = {
    "experience": pa.int32(),
    "sample": pa.int32(),
    "target": pa.int32(),
    "prediction": pa.int32(),
    "target_experience": pa.int32(),
    "uncorrected": pa.int32(),
    "visited": pa.list_(pa.int32()),
    "adapter": pa.int32(),
}

# sample, target, target_experience: as above.
# right_experience: the last experience after which the prediction was right; right_confidence: the
# probability that it then had. prediction, confidence: after the last experience.
# image: a PNG file of at most 64 x 64 pixels, of the pixels before any preprocessing.
EXAMPLE_COLUMNS: Final[dict[str, pa.DataType]] = {
    "sample": pa.int32(),
    "target": pa.int32(),
    "target_experience": pa.int32(),
    "right_experience": pa.int32(),
    "right_confidence": pa.float32(),
    "prediction": pa.int32(),
    "confidence": pa.float32(),
    "image": pa.binary(),
}


def digest(value: object, length: int = 16) -> str:
    """Returns the first hex digits of the SHA-256 of a value's canonical JSON.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with the `checksum` of them all.

    Example:
        >>> sealed = seal({"format": 2, "seed": 1})
        >>> check_seal(sealed), check_seal({**sealed, "seed": 7})
        (True, False)
    """
    return {**values, "checksum": digest(values, 64)}


def check_seal(values: Mapping[str, Any]) -> bool:
    """Says whether the values are those that `seal` was given; format 1 could not say."""
    rest = {name: value for name, value in values.items() if name != "checksum"}
    if values.get("format") == 1 and "checksum" not in values:
        return True
    return values.get("checksum") == digest(rest, 64)


def check_format(version: object, place: str) -> None:
    """Refuses what a newer version has written, or none.

    Args:
        version: What the file says.
        place: How to call it in a message.

    Raises:
        InputError: If this version cannot read it.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{place} must have a format from 1 to {FORMAT_VERSION}, got {version!r}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{place} must have a format from 1 to {FORMAT_VERSION}, got {version}: a newer "
            "cl-adapters has written it; update this one"
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it if the block ends well.

    A Ctrl-C that comes meanwhile counts when the file is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _ctrl_c_waits():
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once the folder that holds the name is on disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        format: Version of the run directory's format.
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
    format: int = FORMAT_VERSION

    @property
    def directory(self) -> Path:
        """Path of the run below the folder of all runs."""
        return Path(self.stream) / self.strategy / f"seed{self.seed}-{digest(self.config, 8)}"

    def write(self, folder: Path) -> None:
        """Writes `run.json` into `folder`, atomically."""
        with atomic_path(folder / "run.json") as path:
            values = seal(asdict(self))
            path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Reads `run.json` of a run directory.

        Raises:
            InputError: If the file is missing, is not a record, or comes from a newer format.
        """
        path = folder / "run.json"
        values = _read_json(path)
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or not names <= set(values):
            missing = sorted(names - set(values)) if isinstance(values, dict) else sorted(names)
            raise InputError(f"{path} must hold every key of a run record, lacks {missing}")
        check_format(values["format"], str(path))
        # Format 1 means the same; a later one that does not is turned into the present one here.
        return cls(**{**{name: values[name] for name in names}, "format": FORMAT_VERSION})


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a readable run record, got: {error}") from error


def check_whole(folder: Path) -> None:
    """Refuses a `run.json` that is not as it was written; for who goes on with it.

    Raises:
        InputError: If it was damaged, or edited by hand.
    """
    path = folder / "run.json"
    if not check_seal(_read_json(path)):
        raise InputError(
            f"{path} must match its checksum, but it was damaged or edited; use --restart"
        )


def write_predictions(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `predictions.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "predictions.parquet", frame, PREDICTION_COLUMNS)


def read_predictions(folder: Path) -> pd.DataFrame:
    """Reads the predictions of a run directory; empty if no experience has been evaluated yet.

    Raises:
        InputError: If the file is damaged or lacks a column.
    """
    return _read_table(folder / "predictions.parquet", PREDICTION_COLUMNS)


def write_retrieval(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `retrieval.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "retrieval.parquet", frame, RETRIEVAL_COLUMNS)


def read_retrieval(folder: Path) -> pd.DataFrame:
    """Reads how a method chose adapters; empty if it is not one that does.

    Raises:
        InputError: If the file is damaged or lacks a column.
    """
    return _read_table(folder / "retrieval.parquet", RETRIEVAL_COLUMNS)


def write_examples(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `examples.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "examples.parquet", frame, EXAMPLE_COLUMNS)


def read_examples(folder: Path) -> pd.DataFrame:
    """Reads the pictures of what a run forgot; empty if it kept none.

    Raises:
        InputError: If the file is damaged or lacks a column.
    """
    return _read_table(folder / "examples.parquet", EXAMPLE_COLUMNS)


def _write_table(path: Path, frame: pd.DataFrame, columns: Mapping[str, pa.DataType]) -> None:
    schema = pa.schema(list(columns.items()))
    table = pa.Table.from_pandas(frame[list(columns)], schema=schema, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _read_table(path: Path, columns: Mapping[str, pa.DataType]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(
            {name: np.empty(0, kind.to_pandas_dtype()) for name, kind in columns.items()}
        )
    try:
        table = pq.read_table(path, columns=list(columns), page_checksum_verification=True)
        frame: pd.DataFrame = table.to_pandas()
    except (OSError, pa.ArrowException) as error:
        name, reason = path.stem, str(error).partition("\n")[0]
        raise InputError(f"{path} must be a readable {name} table, got: {reason}") from error
    return frame


def append_event(
    folder: Path, event: str, experience: int, seconds: float, **values: object
) -> None:
    """Appends one line to `events.jsonl`.

    Args:
        folder: The run directory.
        event: Kind of event, such as `phase`, `evaluation` or `parameters`.
        experience: Index of the experience it belongs to.
        seconds: Duration of what the event describes; 0 for a mere fact.
        **values: Further keys of this kind of event.
    """
    line = {"event": event, "experience": experience, "seconds": round(seconds, 6), **values}
    append_events(folder, [line])


def append_events(folder: Path, events: Iterable[Mapping[str, object]]) -> None:
    """Appends lines to `events.jsonl`; they are on disk when the function returns.

    Args:
        folder: The run directory.
        events: Each with `event`, `experience`, `seconds` and the further keys of its kind.
    """
    lines = [json.dumps(dict(event), ensure_ascii=False) + "\n" for event in events]
    with _ctrl_c_waits(), (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Reads the events of a run directory; a last line torn by a crash is left out.

    Raises:
        InputError: If any other line is not an event.
    """
    path = folder / "events.jsonl"
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not {"event", "experience", "seconds"} <= set(event):
            if number == len(lines):
                break
            raise InputError(f"{path} line {number} must be an event, got {line[:40]!r}")
        events.append(event)
    return events


def truncate_events(folder: Path, experiences_done: int) -> None:
    """Drops the events of experiences that did not finish, before they are run again."""
    kept = [event for event in read_events(folder) if event["experience"] < experiences_done]
    with atomic_path(folder / "events.jsonl") as path:
        lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
        path.write_text(lines, "utf-8")


def find_runs(roots: Iterable[Path]) -> list[Path]:
    """Returns every run directory at or below the given folders, sorted.

    Raises:
        InputError: If a folder does not exist.
    """
    found: set[Path] = set()
    for root in roots:
        if not root.is_dir():
            raise InputError(f"run folder {str(root)!r} must exist and be a directory")
        found.update(path.parent for path in root.rglob("run.json"))
    return sorted(found)
