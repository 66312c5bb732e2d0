"""Finished runs as tables of pandas and figures of matplotlib, for notebooks and scripts.

The same numbers as in the report, from the same functions. Accuracies are in percent; experiences
are counted from 0, as in the files, and from 1 in figures.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cl_adapters.errors import InputError, listed, unknown_name
from cl_adapters.reports.definitions import COLUMNS, MAIN_COLUMNS, Column
from cl_adapters.reports.groups import Group, Row, group_runs
from cl_adapters.reports.load import LoadedRuns, Run
from cl_adapters.reports.load import load_runs as load
from cl_adapters.reports.notes import check_any_is_whole, reader_notes
from cl_adapters.reports.tables.comparison import comparison_table, shown_columns
from cl_adapters.reports.tables.scores import score_header

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Runs", "load_runs"]

Folder = str | PathLike[str]


@dataclass(frozen=True, repr=False)
class Runs:
    """Finished runs, side by side; iterating gives each `Run`, with `folder`, `record`, `values`.

    Attributes:
        groups: The methods, best first, by stream and protocol: runs of different protocols are
            never compared.
        loaded: What was found, with unfinished and damaged runs.
    """

    groups: Sequence[Group]
    loaded: LoadedRuns = field(default_factory=LoadedRuns)

    def __iter__(self) -> Iterator[Run]:
        return (run for group in self.groups for row in group.rows for run in row.runs)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, number: int) -> Run:
        return list(self)[number]

    def __repr__(self) -> str:
        said = [f"{self._name(group)}: {', '.join(_counted(group))}" for group in self.groups]
        return "\n".join([f"<Runs: {len(self)} finished>", *said])

    @property
    def notes(self) -> list[str]:
        """What to know before comparing: missing seeds, runs that were left out and why."""
        return list(reader_notes(self.groups, self.loaded))

    def select(
        self,
        *,
        stream: str | None = None,
        protocol: str | None = None,
        methods: str | Iterable[str] | None = None,
    ) -> "Runs":
        """Returns some of the runs; methods keep their names.

        Args:
            stream: Name of the stream, as in the column `stream` of `table`; None for all.
            protocol: Digest, as in the column `protocol`; None for all.
            methods: One name or several, as in the column `method`; None for all.

        Raises:
            InputError: If there is no such stream, protocol or method among these runs.
        """
        groups = list(self.groups)
        if stream is not None:
            _check_name("stream", stream, [group.stream for group in groups])
            groups = [group for group in groups if group.stream == stream]
        if protocol is not None:
            _check_name(
                "protocol", protocol, [each for group in groups for each in group.protocols]
            )
            groups = [group for group in groups if protocol in group.protocols]
        if methods is not None:
            names = [methods] if isinstance(methods, str) else list(methods)
            for name in names:
                _check_name("method", name, _methods(groups))
            groups = [_only(group, names) for group in groups]
        return Runs([group for group in groups if group.rows], self.loaded)

    def table(self, columns: str | Iterable[str] | None = MAIN_COLUMNS) -> pd.DataFrame:
        """Returns what each method reaches, forgets and costs: one row a method, best first.

        The columns are `stream`, `protocol`, `method`, `num_seeds`, `seeds` and, for each metric,
        `<metric>_mean` over seeds and `<metric>_ci95`, half its 95 % interval by Student's t (NaN
        for one seed). `cl_adapters.reports.definitions.COLUMNS` says what each metric is.

        Args:
            columns: Metrics by name; as said nothing, the main ones of the report. None takes all
                that some run has a value for.

        Raises:
            InputError: If a metric is unknown.
        """
        chosen = self._columns(columns)
        rows = [
            replace(comparison_table(group), columns=chosen).numbers(row)
            for group in self.groups
            for row in group.rows
        ]
        frame = pd.DataFrame(rows, columns=score_header(chosen))
        return frame.drop(columns="mixed_protocols")

    def curve(self) -> pd.DataFrame:
        """Returns what each run knew after each experience, one row a run and experience.

        The columns are `stream`, `protocol`, `method`, `seed`, `experience` (from 0),
        `classes_seen`, `accuracy` over all classes seen, and `forgetting`, from best; both in
        percent, NaN where nothing was evaluated.
        """
        names = ["stream", "protocol", "method", "seed", "experience", "classes_seen"]
        rows = [
            (group.stream, row.protocol, row.label, run.record.seed, t, classes, seen, forgetting)
            for group in self.groups
            for row in group.rows
            for run in row.runs
            for t, (classes, seen, forgetting) in enumerate(
                zip(row.classes_seen, run.seen, run.forgetting, strict=True)
            )
        ]
        return pd.DataFrame(rows, columns=[*names, "accuracy", "forgetting"])

    def matrix(self, run: Run | str) -> pd.DataFrame:
        """Returns the accuracy on each experience after each experience, in percent.

        Args:
            run: One of these runs, such as `runs[0]`, or the name of a method for the mean over
                its seeds.

        Shape:
            Experiences trained as rows, experiences tested as columns, both from 0; NaN where
            nothing was evaluated, as before an experience was learned.

        Raises:
            InputError: If no method has that name, or several streams have it.
        """
        values = run.matrix if isinstance(run, Run) else self._row(run)[1].interval("matrix").mean
        rows, columns = map(range, values.shape)
        return pd.DataFrame(
            values,
            index=pd.Index(rows, name="trained"),
            columns=pd.Index(columns, name="tested"),
        )

    def plot_curve(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the accuracy after each experience, a curve a method, with its interval over seeds.

        Args:
            ax: Axes of matplotlib's to draw on; None makes a figure in the report's style.

        Raises:
            InputError: If there is no run, or they are of several streams or protocols.
        """
        from cl_adapters.reports.figures.axes import plot_accuracy  # noqa: PLC0415 - slow to load

        if len(self.groups) != 1:
            streams = listed(self._name(group) for group in self.groups)
            raise InputError(
                "runs must be of one stream and protocol to be drawn together, got "
                f"{f'{streams}; `select` chooses' if streams else 'none'}"
            )
        return plot_accuracy(self.groups[0], ax)

    def plot_matrix(self, run: Run | str, ax: "Axes | None" = None) -> "Axes":
        """Draws what `matrix` returns as a heat map.

        Args:
            run: One of these runs, or the name of a method for the mean over its seeds.
            ax: Axes of matplotlib's to draw on; None makes a figure in the report's style.

        Raises:
            InputError: If no method has that name, or several streams have it.
        """
        from cl_adapters.reports.figures.axes import plot_cells  # noqa: PLC0415 - slow to load

        if isinstance(run, Run):
            title = f"{run.record.strategy}, seed {run.record.seed}"
            names = run.experience_names if any(run.experience_names) else []
        else:
            group, row = self._row(run)
            title, names = group.name_of(row), row.experience_names
        return plot_cells(self.matrix(run).to_numpy(np.float64), title, ax, names)

    def _name(self, group: Group) -> str:
        return f"{group.stream} @{next(iter(group.protocols))}"

    def _columns(self, names: str | Iterable[str] | None) -> list[Column]:
        known = {column.name: column for column in COLUMNS}
        if names is None:
            shown = {column.name for group in self.groups for column in shown_columns(group)}
            return [column for column in COLUMNS if column.name in shown]
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            _check_name("metric", name, known)
        return [known[name] for name in chosen]

    def _row(self, method: str) -> tuple[Group, Row]:
        found = [(group, row) for group in self.groups for row in group.rows if row.label == method]
        if not found:
            _check_name(
                "method", method, [row.label for group in self.groups for row in group.rows]
            )
        if len(found) > 1:
            places = listed(self._name(group) for group, _ in found)
            raise InputError(
                f"method must stand in one stream and protocol, got {method!r} in {places}; "
                "`select` chooses"
            )
        return found[0]


def load_runs(folders: Folder | Iterable[Folder] = "runs") -> Runs:
    """Reads all runs at or below one folder, or several.

    Unfinished runs are left out and stand in `Runs.notes`; so are damaged ones, with a warning.

    Args:
        folders: Run directories, or folders that hold some at any depth.

    Raises:
        InputError: If a folder does not exist or is none, or none holds a run that can be read.
    """
    loaded = load(_several(folders))
    check_any_is_whole(loaded)
    if loaded.broken:
        first, count = loaded.broken[0], len(loaded.broken)
        warnings.warn(
            f"left out as damaged: {first.folder}: {first.reason}"
            f"{f' (and {count - 1} more)' if count > 1 else ''}; all stand in `notes`",
            stacklevel=2,
        )
    return Runs(group_runs(loaded.finished), loaded)


def _several(folders: Folder | Iterable[Folder]) -> list[str]:
    try:
        several = [folders] if isinstance(folders, str | PathLike) else list(folders)
        return [fspath(folder) for folder in several]
    except TypeError as error:
        raise InputError(f"run folders must be paths, got {folders!r}") from error


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise unknown_name(kind, str(name), set(names))


def _methods(groups: Iterable[Group]) -> list[str]:
    return [row.label for group in groups for row in group.rows]


def _counted(group: Group) -> list[str]:
    return [f"{row.label} ({group.seeds_text(row)})" for row in group.rows]


def _only(group: Group, labels: Sequence[str]) -> Group:
    return replace(group, rows=tuple(row for row in group.rows if row.label in labels))
