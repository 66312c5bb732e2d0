"""The comparison of a group: who is best at what, by how much, how surely and at what cost."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cl_adapters.reports.figures.curves import (
    accuracy_figure,
    curve_chart,
    forgetting_figure,
    intervals_note,
)
from cl_adapters.reports.figures.experiences import experience_figure
from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.figures.pareto import pareto_chart, pareto_figure, shown_costs
from cl_adapters.reports.figures.phases import phases_figure, phases_sentence
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.paired import find_baseline
from cl_adapters.reports.summary import sentences
from cl_adapters.reports.tables.comparison import comparison_table, table_files
from cl_adapters.reports.tables.paired import difference_table, rank_table, too_few_seeds
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["ComparisonSection"]


@dataclass(frozen=True)
class ComparisonSection:
    """What a report shows of every group.

    Attributes:
        group: The methods that are compared.
        baseline_name: What the user wants them to be held against, if anything.
    """

    group: Group
    baseline_name: str | None = None

    @cached_property
    def table(self) -> ScoreTable:
        """The final table."""
        return comparison_table(self.group)

    @cached_property
    def differences(self) -> ScoreTable | None:
        """Differences to the baseline."""
        return difference_table(self.group, self.baseline)

    @cached_property
    def ranks(self) -> ScoreTable | None:
        """Mean ranks."""
        return rank_table(self.group)

    @cached_property
    def sentences(self) -> list[str]:
        """What the comparison comes to."""
        return sentences(self.group, self.baseline)

    @cached_property
    def baseline(self) -> Row | None:
        """The method that the others are held against."""
        return find_baseline(self.group, self.baseline_name)

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""
        files = table_files(self.group)
        for table in (self.differences, self.ranks):
            files |= table.files() if table else {}
        return files

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures."""
        return {
            "sentences": self.sentences,
            "table": self.table,
            "differences": self.differences,
            "ranks": self.ranks,
            "too_few_seeds": too_few_seeds(self.group, self.baseline),
            "baseline": self.baseline.label if self.baseline else "",
        }

    def figures(self) -> Iterator[Drawing]:
        """Yields every drawing."""
        yield from self._curves()
        yield from self._costs()
        if any(len(run.matrix) > 1 for row in self.group.rows for run in row.runs):
            yield Drawing(
                kind="panels",
                name="experiences",
                text="Accuracy on each experience from when it was learned; "
                f"{self.group.seeds_note}.",
                figure=experience_figure(self.group),
                table="matrix",
            )

    def _curves(self) -> Iterator[Drawing]:
        group, band = self.group, intervals_note(self.group)
        yield Drawing(
            kind="curve",
            name="accuracy",
            text=f"Accuracy over all classes seen; {band}.",
            figure=accuracy_figure(group),
            chart=curve_chart(group, "seen"),
            table="curves",
        )
        if any(not math.isnan(run.forgetting[-1]) for row in group.rows for run in row.runs):
            yield Drawing(
                kind="curve",
                name="forgetting",
                text=f"Forgetting from best, mean over the experiences learned before; {band}.",
                figure=forgetting_figure(group),
                chart=curve_chart(group, "forgetting"),
                table="curves",
            )

    def _costs(self) -> Iterator[Drawing]:
        group = self.group
        if len(group.rows) > 1 and shown_costs(group):
            yield Drawing(
                kind="pareto",
                name="pareto",
                text="Accuracy after the last experience against cost; "
                f"{intervals_note(group, 'cross')}. The dotted line joins the methods that no "
                "other beats on both; upper bounds take no part. Times depend on the machine.",
                figure=pareto_figure(group),
                chart=pareto_chart(group),
                table="comparison",
            )
        if any(run.detail.phases for row in group.rows for run in row.runs):
            yield Drawing(
                kind="phases",
                name="phases",
                text="Where the time went: seconds of each phase of training and of all "
                f"evaluations, {group.seeds_note}. {phases_sentence(group)}",
                figure=phases_figure(group),
                table="phases",
            )
