"""The detection table, and every experience of every block as CSV."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cl_adapters.reports.definitions import DETECTION_COLUMNS, Column
from cl_adapters.reports.detection import detection
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.growth import History, strain
from cl_adapters.reports.markup import Cell, Sheet, csv_text, heading, interval_cells
from cl_adapters.reports.seeds import Interval, mean_interval

__all__ = ["LETTERS", "DetectionTable", "growth_files"]

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

    def interval(self, row: Row, column: Column) -> Interval:
        """Returns mean and interval over the seeds at which a value is defined."""
        values = [values[column.name] for values in self._values[row.label]]
        known = [value for value in values if not math.isnan(value)]
        return mean_interval(np.array(known or [math.nan]))

    def cells(self, column: Column) -> list[Cell]:
        """Returns one column, a cell a row."""
        intervals = [self.interval(row, column) for row in self.rows]
        return interval_cells(column, intervals, [True] * len(self.rows))

    def files(self) -> dict[str, str]:
        """Returns the table and the values of each run by file name; nothing without rows."""
        if not self.rows:
            return {}
        slug = self.group.slug
        sheet = self._sheet()
        return {
            f"{slug}-detection.csv": self._means_csv(),
            f"{slug}-detection.md": sheet.markdown(),
            f"{slug}-detection.tex": sheet.latex(),
            f"{slug}-detection-runs.csv": self._runs_csv(),
        }

    def _sheet(self) -> Sheet:
        columns = [self.cells(column) for column in DETECTION_COLUMNS]
        definitions = [
            f"{column.heading}: {column.formula}. {column.remark}".strip()
            for column in DETECTION_COLUMNS
        ]
        mark = self.group.mixed and f" {self.group.mixed[0].upper()}{self.group.mixed[1:]}."
        return Sheet(
            caption=f"{self.group.stream}: changes found; mean and 95 % interval over seeds "
            f"(Student's t); best in bold.{mark}",
            headings=["Method", "Seeds", *map(heading, DETECTION_COLUMNS)],
            rows=[
                (row.label, len(row.seeds), [column[number] for column in columns])
                for number, row in enumerate(self.rows)
            ],
            notes=[LETTERS, *definitions],
        )

    def _means_csv(self) -> str:
        header = ["stream", "protocol", "mixed_protocols", "method", "num_seeds", "seeds"]
        for column in DETECTION_COLUMNS:
            header += [f"{column.name}_mean", f"{column.name}_ci95"]
        rows = []
        for row in self.rows:
            seeds = " ".join(map(str, row.seeds))
            names = [self.group.stream, row.protocol, self.group.mixed, row.label]
            line: list[object] = [*names, len(row.seeds), seeds]
            for column in DETECTION_COLUMNS:
                interval = self.interval(row, column)
                line += [float(interval.mean), float(interval.half_width)]
            rows.append(line)
        return csv_text(header, rows)

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
