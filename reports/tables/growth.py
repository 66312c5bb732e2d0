"""The detection table, and every experience of every block as CSV."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from cl_adapters.reports.ablation import Worth
from cl_adapters.reports.definitions import DETECTION_COLUMNS, Column
from cl_adapters.reports.detection import detection
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.growth import History, strain
from cl_adapters.reports.seeds import Interval, mean_interval
from cl_adapters.reports.tables.markup import best_of, csv_text, definition
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["LETTERS", "DetectionTable", "growth_files", "worth_file"]

LETTERS = (
    "All over the experiences but the first. C: experiences whose domain differs from the one "
    "before; N: those of C with a new domain; S: those of C with a domain seen before; L: "
    "experiences at which, in any block and window, the detector of the adapter that was active "
    "before fired; G: experiences at which any block grew."
)


class DetectionTable:
    """How well each growing method found the changes of a stream that knows them.

    Args:
        group: The methods that are compared.
        histories: Of the runs of each row, by label.

    Attributes:
        rows: Those whose runs have blocks that can grow and know the truth.
    """

    def __init__(self, group: Group, histories: Mapping[str, Sequence[History]]) -> None:
        self.group = group
        self.rows = [row for row in group.rows if all(map(_is_known, histories[row.label]))]
        self._values = {
            row.label: [detection(history) for history in histories[row.label]] for row in self.rows
        }

    @cached_property
    def scores(self) -> ScoreTable:
        """Means and intervals."""
        return ScoreTable(
            group=self.group,
            rows=self.rows,
            columns=DETECTION_COLUMNS,
            interval=self.interval,
            stem="detection",
            caption="changes found; mean and 95 % interval over seeds (Student's t); best in bold.",
            notes=[LETTERS, *map(definition, DETECTION_COLUMNS)],
            marks=self._marks,
        )

    def _marks(
        self, column: Column, intervals: Sequence[Interval], is_rival: Sequence[bool]
    ) -> list[bool]:
        # Who never fires raises no false alarm and reuses all: that is nothing to stand out with.
        found = [
            any(values["changes_found"] > 0 for values in self._values[row.label])
            for row in self.rows
        ]
        pairs = zip(is_rival, found, strict=True)
        return best_of(column, intervals, [is_one and has_found for is_one, has_found in pairs])

    def interval(self, row: Row, column: Column) -> Interval:
        """Returns mean and interval over the seeds at which a value is defined."""
        values = [values[column.name] for values in self._values[row.label]]
        known = [value for value in values if not math.isnan(value)]
        return mean_interval(np.array(known or [math.nan]))

    def files(self) -> dict[str, str]:
        """Returns the table and the values of each run by file name; nothing without rows."""
        if not self.rows:
            return {}
        return self.scores.files() | {f"{self.group.slug}-detection-runs.csv": self._runs_csv()}

    def _runs_csv(self) -> str:
        names = [column.name for column in DETECTION_COLUMNS]
        rows = (
            [row.protocol, row.label, seed, *(values[name] for name in names)]
            for row in self.rows
            for seed, values in zip(row.seeds, self._values[row.label], strict=True)
        )
        return csv_text(["protocol", "method", "seed", *names], rows)


def _is_known(history: History) -> bool:
    return bool(history.blocks and history.domains)


def growth_files(
    group: Group, rows: Sequence[Row], histories: Mapping[str, Sequence[History]]
) -> dict[str, str]:
    """Returns, by file name, what each block did at each experience, counted from 0.

    Args:
        group: The methods that are compared.
        rows: Those that can grow.
        histories: Of the runs of each row, by label.
    """
    header = ["protocol", "method", "seed", "experience", "domain", "changed", "seen_before"]
    header += ["block", "windows_scanned", "windows_fired", "most_score_to_threshold"]
    header += ["grown", "adapter", "active_detector_fired"]
    lines = (
        [row.protocol, row.label, seed, *line]
        for row in rows
        for seed, history in zip(row.seeds, histories[row.label], strict=True)
        for line in _lines(history)
    )
    return {f"{group.slug}-growth.csv": csv_text(header, lines)}


def _lines(history: History) -> Iterator[list[object]]:
    for t in range(history.num_experiences):
        truth = history.domains.get(t)
        known = [truth.domain, int(truth.changed), int(truth.seen_before)] if truth else [""] * 3
        for block in history.blocks:
            scans = history.cells.get((t, block), ())
            strains = [
                strain(scan.scores[scan.adapter], scan.thresholds[scan.adapter]) for scan in scans
            ]
            adapter, has_left = history.active.get((t, block), ("", False))
            yield [
                t,
                *known,
                block,
                len(scans),
                sum(scan.fired for scan in scans),
                max(strains, default=math.nan),
                int((t, block) in history.growths),
                adapter,
                int(has_left),
            ]


def worth_file(
    group: Group, asked: Mapping[str, Sequence[tuple[int, Worth, History]]]
) -> dict[str, str]:
    """Returns, by file name, what is right with and without grown adapters; nothing if none is.

    Args:
        group: The methods that are compared.
        asked: Seed, worth and history of runs, by label.
    """
    header = ["method", "seed", "without", "experience", "images"]
    header += ["right", "right_without", "right_both"]
    lines = [
        [label, seed, name, experience, images, *counts]
        for label, runs in asked.items()
        for seed, worth, history in runs
        for name, rows in zip(worth.names(history), worth.counts.tolist(), strict=True)
        for experience, (images, counts) in enumerate(zip(worth.images, rows, strict=True))
    ]
    return {f"{group.slug}-ablation.csv": csv_text(header, lines)} if lines else {}
