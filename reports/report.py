"""Writes the report: `report.html`, `figures/` and `tables/`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

from markupsafe import Markup

from cl_adapters.errors import InputError
from cl_adapters.records import atomic_path
from cl_adapters.reports.boundaries import BoundaryReport
from cl_adapters.reports.definitions import COLUMNS
from cl_adapters.reports.figures.files import (
    FORMATS,
    Drawing,
    check_formats,
    embed,
    figure_style,
    save_figure,
)
from cl_adapters.reports.figures.interactive import chart_data
from cl_adapters.reports.groups import Group, clean_text, group_runs
from cl_adapters.reports.load import LoadedRuns, load_runs
from cl_adapters.reports.page import Picture, render_page, section_context, swatch
from cl_adapters.reports.paired import check_baseline
from cl_adapters.reports.sections.comparison import ComparisonSection
from cl_adapters.reports.sections.depth import DepthSection
from cl_adapters.reports.sections.examples import ExamplesSection, read_all_examples
from cl_adapters.reports.sections.growth import GrowthSection, read_histories
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from cl_adapters.reports.sections.votes import VotesSection, read_all_votes
from cl_adapters.reports.tables.comparison import comparison_table

__all__ = ["ReportSummary", "write_report"]

_SHORT_COLUMNS: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "added_parameters",
    "train_seconds",
)


class Section(Protocol):
    """A topic of the page, for one group."""

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures."""

    def figures(self) -> Iterable[Drawing]:
        """Yields every drawing; called inside `figure_style`."""


@dataclass(frozen=True, kw_only=True)
class ReportSummary:
    """What was written, and a compact table for a terminal.

    Attributes:
        html: Path of `report.html`.
        files: Every file written, the page first.
        table: The compact table; the first row is the header.
        sentences: Who leads and who forgets least, a line each.
        notes: What was left out and why: unfinished and broken runs, missing seeds.
        num_finished: Number of finished runs that were read.
    """

    html: Path
    files: tuple[Path, ...]
    table: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    num_finished: int


def write_report(
    run_folders: Sequence[Path],
    out: Path,
    *,
    force: bool = False,
    baseline: str | None = None,
    formats: Sequence[str] | None = None,
) -> ReportSummary:
    """Reads all runs below the folders and writes one page, its figures and its tables.

    The same records give the same bytes. Unfinished runs are listed and not compared, damaged ones
    are named and skipped.

    Args:
        run_folders: Run directories, or folders that hold some at any depth.
        out: Folder to write into; made if it is missing, files of the same names are replaced.
        force: Whether runs of different protocols are drawn together, with a mark on each figure.
        baseline: The method that others are held against; None chooses, see `paired`.
        formats: In which every figure is written, of svg, png and pdf; svg always is. None writes
            all three of the comparison's figures and, for the sake of time, svg of those of one
            method.

    Raises:
        InputError: If a folder does not exist, none holds a run, `out` is a file, or a baseline or
            format is unknown.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"report folder {str(out)!r} must be a directory, got a file")
    kinds = formats and check_formats(formats)
    loaded = load_runs(run_folders)
    topics, boundaries = _read_topics(loaded), BoundaryReport(loaded)
    groups = group_runs(loaded.finished, force=force)
    check_baseline(groups, baseline)
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    contexts: list[dict[str, Any]] = []
    for number, group in enumerate(groups, start=1):
        sections: list[Section] = [ComparisonSection(group, baseline), DepthSection(group)]
        sections += [topic(group) for topic in topics]
        context, written = _write_group(group, sections, out, f"s{number}", kinds)
        contexts.append(context)
        files += written
    for name, text in boundaries.files().items():
        (out / "tables" / name).write_text(text, "utf-8", "replace")
        files.append(out / "tables" / name)
    page = out / "report.html"
    with atomic_path(page) as path:
        path.write_text(render_page(contexts, loaded, out, boundaries), "utf-8", "replace")
    return ReportSummary(
        html=page,
        files=(page, *files),
        table=tuple(_short_rows(groups)),
        sentences=(
            *(text for context in contexts for text in context["sentences"]),
            *boundaries.sentences(),
        ),
        notes=tuple(_notes(groups, loaded)),
        num_finished=len(loaded.finished),
    )


def _read_topics(loaded: LoadedRuns) -> list[Callable[[Group], Section]]:
    # A run of which one of these cannot be read is broken, so all are read before any is used.
    return [
        partial(GrowthSection, by_folder=read_histories(loaded)),
        partial(RetrievalSection, by_folder=read_retrievals(loaded)),
        partial(VotesSection, by_folder=read_all_votes(loaded)),
        partial(ExamplesSection, by_folder=read_all_examples(loaded)),
    ]


def _write_group(
    group: Group,
    sections: Sequence[Section],
    out: Path,
    prefix: str,
    formats: Sequence[str] | None,
) -> tuple[dict[str, Any], list[Path]]:
    texts = {name: text for section in sections for name, text in section.files().items()}
    for name, text in texts.items():
        (out / "tables" / name).write_text(text, "utf-8", "replace")
    pictures: list[Picture] = []
    with figure_style():
        for drawing in chain.from_iterable(section.figures() for section in sections):
            kinds = formats or (FORMATS[:1] if drawing.row else FORMATS)
            ids = f"{prefix}f{len(pictures)}"
            pictures.append(_save(group, drawing, out / "figures", ids, kinds))
    files = [out / "figures" / f"{each.name}.{kind}" for each in pictures for kind in each.formats]
    context = section_context(group, pictures, sorted(texts), out)
    for section in sections:
        context |= section.context()
    return context, [*files, *(out / "tables" / name for name in texts)]


def _save(
    group: Group, drawing: Drawing, folder: Path, prefix: str, formats: Sequence[str]
) -> Picture:
    stem = f"{group.slug}-{drawing.name}"
    svg = save_figure(drawing.figure, folder / stem, formats)
    chart: dict[str, Any] | None = None
    if drawing.chart is not None:
        chart = chart_data(drawing.chart, drawing.figure, prefix)
        chart["labels"] = [swatch(each) for each in chart["labels"]]
    return Picture(
        name=stem,
        kind=drawing.kind,
        text=drawing.text,
        svg=Markup(embed(svg, prefix)),
        formats=formats,
        table=f"{group.slug}-{drawing.table}.csv" if drawing.table else "",
        row=drawing.row,
        chart=chart,
    )


def _short_rows(groups: Sequence[Group]) -> Iterable[tuple[str, ...]]:
    columns = [column for column in COLUMNS if column.name in _SHORT_COLUMNS]
    headings = (f"{item.heading} ({item.unit})" if item.unit else item.heading for item in columns)
    yield ("Stream", "Method", "Seeds", *headings)
    streams = [group.stream for group in groups]
    for group in groups:
        is_alone = streams.count(group.stream) == 1
        stream = group.stream if is_alone else f"{group.stream} @{next(iter(group.protocols))}"
        table = comparison_table(group)
        by_column = [table.cells(column) for column in columns]
        for number, row in enumerate(group.rows):
            texts = [cells[number].text for cells in by_column]
            yield (stream, row.label, group.seeds_of(row), *texts)


def _notes(groups: Sequence[Group], loaded: LoadedRuns) -> Iterable[str]:
    for group in groups:
        yield from (f"{group.stream}: {note}" for note in group.notes)
        if group.mixed:
            yield f"{group.stream}: {group.mixed}"
    for folder, record in loaded.unfinished:
        done = f"{record.experiences_done} of {len(record.experiences)} experiences"
        yield clean_text(f"Not compared: {folder} is {record.state}, {done} done.")
    for run in loaded.broken:
        yield clean_text(f"Skipped: {run.folder}: {run.reason}")
