"""What a report shows of strategies that grow; nothing of a group without one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cl_adapters.reports.ablation import Worth, bought
from cl_adapters.reports.figures.curves import intervals_note
from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.figures.parameters import parameters_figure
from cl_adapters.reports.figures.parts import MOST_SEEDS, first_seeds
from cl_adapters.reports.figures.router import router_figure
from cl_adapters.reports.figures.timeline import timeline_figure
from cl_adapters.reports.figures.worth import worth_figure
from cl_adapters.reports.groups import Group, Row, file_name
from cl_adapters.reports.growth import History, read_history
from cl_adapters.reports.load import LoadedRuns
from cl_adapters.reports.tables.growth import DetectionTable, growth_files, worth_file

__all__ = ["GrowthSection", "read_histories"]


def read_histories(loaded: LoadedRuns) -> dict[Path, History]:
    """Returns the history of each finished run by its folder.

    A run with a damaged event is moved to the broken ones, as `load_runs` does with other damage.
    """
    return loaded.read_all(lambda run: read_history(run.events, len(run.record.experiences)))


@dataclass(frozen=True)
class GrowthSection:
    """The growth of the methods of one group.

    Attributes:
        group: The methods that are compared.
        by_folder: History of each run.
        most_seeds: Seeds that the figures of one method show, a panel each.
        worths: What growth bought, of each run that was asked by `cl-adapters ablate`.
    """

    group: Group
    by_folder: Mapping[Path, History]
    most_seeds: int = MOST_SEEDS
    worths: Mapping[Path, Worth] = field(default_factory=dict)

    @cached_property
    def histories(self) -> dict[str, list[History]]:
        """Histories of the runs of each row, by label."""
        return {
            row.label: [self.by_folder[run.folder] for run in row.runs] for row in self.group.rows
        }

    @cached_property
    def rows(self) -> list[Row]:
        """The methods that have blocks that can grow."""
        return [
            row for row in self.group.rows if all(run.blocks for run in self.histories[row.label])
        ]

    @cached_property
    def detection(self) -> DetectionTable:
        """How well the changes of the stream were found; without rows if it knows none."""
        return DetectionTable(self.group, self.histories)

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""
        if not self.rows:
            return {}
        return {
            **growth_files(self.group, self.rows, self.histories),
            **worth_file(self.group, {row.label: self._asked(row) for row in self.rows}),
            **self.detection.files(),
        }

    def _asked(self, row: Row) -> list[tuple[int, Worth, History]]:
        # Seed, worth and history of each run that was asked what its grown adapters are worth.
        return [
            (run.record.seed, self.worths[run.folder], self.by_folder[run.folder])
            for run in row.runs
            if run.folder in self.worths
        ]

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures."""
        return {
            "grows": bool(self.rows),
            "bought": [
                bought(row.label, [worth for _, worth, _ in asked])
                for row in self.rows
                if (asked := self._asked(row))
            ],
            "detection": self.detection.scores if self.detection.rows else None,
        }

    def figures(self) -> Iterator[Drawing]:
        """Yields every drawing."""
        for number, row in enumerate(self.group.rows, start=1):
            if row in self.rows:
                yield from self._of_row(number, row)
        runs = [run for row in self.rows for run in self.histories[row.label]]
        if any(run.num_experiences > 1 for run in runs):
            is_whole = all(run.is_whole for run in runs)
            every = "one set of adapters an" if is_whole else "one adapter a block and"
            linear = (
                f"linear growth is {every} experience, at the mean cost of those that were grown"
                if any(run.growths for run in runs)
                else "no run recorded the growth of an adapter, whatever else adds parameters, so "
                "that the cost of linear growth is not known"
            )
            text = f"Parameters beside the backbone; {intervals_note(self.group)}; {linear}."
            figure = parameters_figure(self.group, self.histories)
            yield Drawing(kind="parameters", name="parameters", text=text, figure=figure)

    def _of_row(self, number: int, row: Row) -> Iterator[Drawing]:
        most, runs = self.most_seeds, self.histories[row.label]
        name = f"{number:02d}-{file_name(row.label)}"
        is_whole = all(run.is_whole for run in runs)
        what = "set of adapters" if is_whole else "adapter"
        counted = "Sets" if is_whole else "Adapters"
        blocks = "" if is_whole else ", blocks from 0"
        text = (
            f"Growth of {row.label}: colour is the highest score of any window over its "
            f"threshold, of the {what} that fits best; above 1 it fires. {counted} are counted "
            f"from 1{blocks}.{first_seeds(len(runs), most)}"
        )
        yield Drawing(
            kind="timeline",
            name=f"growth-{name}",
            text=text,
            figure=timeline_figure(self.group, row, runs, most),
            table="growth",
            row=number,
        )
        num_routed = sum(bool(run.router) for run in runs)
        if num_routed:
            text = (
                f"Paths of {row.label}: which share of the test images of each experience takes "
                "each path"
                if is_whole
                else f"Router of {row.label}: mean weight of each adapter on the test images of "
                "each experience"
            )
            which = "path" if is_whole else "adapter"
            text += (
                f", after the last one; blank: a seed has no such {which}."
                f"{first_seeds(num_routed, most)}"
            )
            figure = router_figure(self.group, row, runs, most)
            yield Drawing(
                kind="router", name=f"router-{name}", text=text, figure=figure, row=number
            )
        asked = self._asked(row)
        if asked:
            text = (
                f"What growth bought {row.label}: points of accuracy at the end that are lost "
                "without an adapter, on the test images of each experience and on all; nothing is "
                f"trained again.{first_seeds(len(asked), most)}"
            )
            figure = worth_figure(self.group, row, asked, most)
            yield Drawing(
                kind="worth",
                name=f"worth-{name}",
                text=text,
                figure=figure,
                table="ablation",
                row=number,
            )
