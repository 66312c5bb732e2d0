"""How well the boundaries of task-free runs were announced, and what not being told cost.

Over one stream of n images let c_1 < ... < c_m be the true changes (how many images come before)
and a_1 < a_2 < ... the announcements (how many images had come), those left out that were forced
by the length of a segment. With c_{m+1} = n:

    c_i is found if some announcement has c_i < a <= c_{i+1}; the first such a is its detection
    delay of a change that is found: a - c_i images
    every other announcement is a false alarm

The run that was told the boundaries is one with the same recipe but for the task-free keys, and
with the same fingerprint but for `task_free`. Both end on the same test images.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Event, Segment
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.definitions import Column
from cl_adapters.reports.events import check_finite
from cl_adapters.reports.groups import clean_text
from cl_adapters.reports.load import LoadedRuns, Run
from cl_adapters.reports.seeds import Interval, mean_interval
from cl_adapters.reports.tables.markup import (
    Cell,
    Sheet,
    csv_text,
    definition,
    heading,
    interval_cell,
)

__all__ = ["BOUNDARY_COLUMNS", "BoundaryReport", "Segment", "read_segments", "score_boundaries"]

_OWN_KEYS: Final = ("task_free", "reference", "window", "patience", "false_alarm", "max_images")
_ELSEWHERE: Final = ("threads", "device")  # where a run was made is no part of what was run


def _column(name: str, heading: str, unit: str, digits: int, formula: str) -> Column:
    better: Any = {"found": "higher", "accuracy": "higher", "difference": "higher"}.get(name)
    return Column(
        name=name,
        heading=heading,
        unit=unit,
        better=better or ("lower" if name in {"false_alarms", "delay"} else "neither"),
        digits=digits,
        formula=formula,
        remark="",
    )


BOUNDARY_COLUMNS: Final = (
    _column("changes", "True changes", "", 2, "m"),
    _column("found", "Found", "", 2, "changes with an announcement before the next change"),
    _column("false_alarms", "False alarms", "", 2, "all other announcements"),
    _column("delay", "Delay", "images", 1, "mean over the changes found of announcement - change"),
    _column("segments", "Segments", "", 2, "announced and forced boundaries + 1"),
    _column("accuracy", "A_last", "%", 2, "accuracy on all test images after the last segment"),
    _column("told", "A_last, told", "%", 2, "the same of the runs that were told the boundaries"),
    _column("difference", "Difference", "%", 2, "A_last - A_last, told, seed by seed"),
)


def read_segments(events: Sequence[Event], num_experiences: int) -> list[Segment]:
    """Returns the segments of a run; empty for one that was told the boundaries.

    Raises:
        InputError: If one is damaged, or they are not one an experience, end to end.
    """
    segments = [event for event in events if isinstance(event, Segment)]
    for segment in segments:
        check_finite(segment)
    start = 0
    for number, segment in enumerate(segments):
        if segment.experience != number or segment.start != start:
            raise InputError(
                f"events.jsonl: segment events must follow each other, got one of experience "
                f"{segment.experience} at {segment.start} in place of {number} at {start}"
            )
        start += segment.images
    if segments and len(segments) != num_experiences:
        raise InputError(
            f"events.jsonl: segment events must be {num_experiences}, got {len(segments)}"
        )
    return segments


def score_boundaries(
    changes: Sequence[int], announcements: Sequence[int], length: int
) -> dict[str, float]:
    """Returns `changes`, `found`, `false_alarms` and the mean `delay`, NaN if nothing was found.

    Args:
        changes: How many images come before each true change, ascending.
        announcements: How many images had come at each announcement, ascending.
        length: Images of the stream.

    Example:
        >>> score_boundaries([100, 200], [40, 130, 160], 300)
        {'changes': 2.0, 'found': 1.0, 'false_alarms': 2.0, 'delay': 30.0}
    """
    ends = [*changes[1:], length]
    first = [
        next((each for each in announcements if change < each <= end), None)
        for change, end in zip(changes, ends, strict=False)
    ]
    delays = [
        each - change for change, each in zip(changes, first, strict=True) if each is not None
    ]
    return {
        "changes": float(len(changes)),
        "found": float(len(delays)),
        "false_alarms": float(len(announcements) - len(delays)),
        "delay": math.fsum(delays) / len(delays) if delays else math.nan,
    }


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One row: a method under one way of watching, and its values by seed."""

    stream: str
    watch: str
    method: str
    values: dict[int, dict[str, float]]

    def interval(self, name: str) -> Interval:
        known = [each[name] for each in self.values.values() if not math.isnan(each[name])]
        return mean_interval(np.array(known or [math.nan]))


class BoundaryReport:
    """The task-free runs among all that were read, each held against the run that was told.

    Args:
        loaded: All runs; one with damaged segment events is moved to the broken ones.
    """

    def __init__(self, loaded: LoadedRuns) -> None:
        every = loaded.read_all(lambda run: read_segments(run.events, len(run.record.experiences)))
        told = {_twin(run.record): run for run in loaded.finished if not every[run.folder]}
        self._lines: dict[tuple[str, ...], _Line] = {}
        for run in loaded.finished:
            if every[run.folder]:
                self._add(run, every[run.folder], told.get(_twin(run.record)))

    def _add(self, run: Run, segments: Sequence[Segment], told: Run | None) -> None:
        record = run.record
        names = record.stream, _watch(record), _method(record)
        protocol = digest(
            {key: value for key, value in _twin_parts(record)[0].items() if key != "seed"}
        )
        line = self._lines.setdefault(
            (*names, protocol, digest(record.fingerprint)),
            _Line(stream=names[0], watch=names[1], method=names[2], values={}),
        )
        reached = told.values["a_last_micro"] if told else math.nan
        accuracy = run.values["a_last_micro"]
        line.values[record.seed] = {
            **_scores(segments),
            "segments": float(len(segments)),
            "accuracy": accuracy,
            "told": reached,
            "difference": accuracy - reached,
        }

    @cached_property
    def lines(self) -> list[_Line]:
        """The rows, by stream, way of watching and method."""
        return sorted(self._lines.values(), key=lambda line: (line.stream, line.watch, line.method))

    @property
    def headings(self) -> list[str]:
        """Headings of the table that the page shows."""
        return ["Stream", "Detector", "Method", "Seeds", *map(heading, BOUNDARY_COLUMNS)]

    def rows(self) -> list[list[str]]:
        """Returns the rows of the table that the page shows."""
        return [
            [line.stream, line.watch, line.method, str(len(line.values)), *_texts(line)]
            for line in self.lines
        ]

    def definitions(self) -> list[str]:
        """Returns what each column means, a sentence each."""
        return [definition(column) for column in BOUNDARY_COLUMNS]

    def files(self) -> dict[str, str]:
        """Returns the table and the values of each run by file name; nothing without such runs."""
        if not self.lines:
            return {}
        sheet = Sheet(
            caption="Task-free runs: boundaries announced, and accuracy against the told runs.",
            headings=["Method", "Seeds", *map(heading, BOUNDARY_COLUMNS)],
            rows=[
                (f"{line.stream}, {line.watch}, {line.method}", str(len(line.values)), _cells(line))
                for line in self.lines
            ],
            notes=self.definitions(),
        )
        names = [column.name for column in BOUNDARY_COLUMNS]
        runs = (
            [line.stream, line.watch, line.method, seed, *(values[name] for name in names)]
            for line in self.lines
            for seed, values in sorted(line.values.items())
        )
        return {
            "task-free.md": sheet.markdown(),
            "task-free-runs.csv": csv_text(["stream", "detector", "method", "seed", *names], runs),
        }

    def sentences(self) -> Iterable[str]:
        """Yields, for each row, what was found and what it cost."""
        for line in self.lines:
            text = {
                column.name: cell.text
                for column, cell in zip(BOUNDARY_COLUMNS, _cells(line), strict=True)
            }
            told = f", told {text['told']} %" if not math.isnan(line.interval("told").mean) else ""
            yield (
                f"{line.stream}: {line.watch} announced {text['found']} of {text['changes']} "
                f"changes to {line.method}, false alarms {text['false_alarms']}, delay "
                f"{text['delay']} images; A_last {text['accuracy']} %{told}."
            )


def _scores(segments: Sequence[Segment]) -> dict[str, float]:
    changes = [change for segment in segments for change in segment.changes]
    announced = [
        segment.announced
        for segment in segments
        if segment.announced is not None and segment.score is not None
    ]
    return score_boundaries(changes, announced, segments[-1].start + segments[-1].images)


def _cells(line: _Line) -> list[Cell]:
    return [
        interval_cell(column, line.interval(column.name), is_signed=column.name == "difference")
        for column in BOUNDARY_COLUMNS
    ]


def _texts(line: _Line) -> list[str]:
    return [cell.text for cell in _cells(line)]


def _twin_parts(record: RunRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    out = {*_OWN_KEYS, *_ELSEWHERE}
    config = {key: value for key, value in record.config.items() if key not in out}
    fingerprint = {key: value for key, value in record.fingerprint.items() if key != "task_free"}
    return config, fingerprint


def _twin(record: RunRecord) -> str:
    """Returns what a task-free run and the run that was told have in common."""
    return digest(list(_twin_parts(record)))


def _watch(record: RunRecord) -> str:
    settings: Mapping[str, Any] = record.fingerprint.get("task_free", {})
    numbers = (
        f"{settings.get('reference')} + {settings.get('window')} images",
        f"level {settings.get('false_alarm')}",
        *([f"patience {settings['patience']}"] if settings.get("patience", 1) != 1 else []),
        *([f"at most {settings['max_images']}"] if settings.get("max_images") else []),
    )
    return clean_text(f"{settings.get('detector')} ({', '.join(numbers)})", 80)


def _method(record: RunRecord) -> str:
    options = record.config.get("options", {})
    parts = [f"{key}={value}" for key, value in sorted(options.items())]
    return clean_text(f"{record.strategy} ({', '.join(parts)})" if parts else record.strategy, 60)
