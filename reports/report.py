"""Writes the report: `report.html`, `figures/` and `tables/`."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

from markupsafe import Markup

from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.files import atomic_path
from cl_adapters.reports.ablation import Worth, read_worths
from cl_adapters.reports.boundaries import BoundaryReport
from cl_adapters.reports.examples import Example
from cl_adapters.reports.figures.files import (
    FORMATS,
    Drawing,
    check_formats,
    embed,
    figure_style,
    save_figure,
)
from cl_adapters.reports.figures.interactive import chart_data
from cl_adapters.reports.figures.paper import save_paper_figures
from cl_adapters.reports.figures.parts import MOST_SEEDS
from cl_adapters.reports.groups import Group, group_runs, stream_names
from cl_adapters.reports.growth import History
from cl_adapters.reports.load import LoadedRuns, load_runs
from cl_adapters.reports.notes import check_any_is_whole, reader_notes
from cl_adapters.reports.page import Picture, render_page, section_context, swatch
from cl_adapters.reports.paired import check_baseline
from cl_adapters.reports.paper import Paper
from cl_adapters.reports.retrieval import Retrieval
from cl_adapters.reports.sections.comparison import ComparisonSection
from cl_adapters.reports.sections.depth import DepthSection
from cl_adapters.reports.sections.examples import ExamplesSection, read_all_examples
from cl_adapters.reports.sections.growth import GrowthSection, read_histories
from cl_adapters.reports.sections.paper import PaperSection
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from cl_adapters.reports.sections.votes import VotesSection, read_all_votes
from cl_adapters.reports.tables.short import short_rows
from cl_adapters.reports.votes import Votes

__all__ = ["MOST_IN_FULL", "ReportSummary", "write_report"]

# Methods up to which everything about each, which takes 1 to 2 s, comes unasked.
MOST_IN_FULL: Final = 3

_BRIEF_NOTE: Final = (
    f"More than {MOST_IN_FULL} methods: figures of one method are written as SVG alone and show "
    "one seed where there is a panel a seed; --formats svg,png,pdf writes all."
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
    run_folders: Sequence[str | Path],
    out: str | Path,
    *,
    force: bool = False,
    baseline: str | None = None,
    formats: Sequence[str] | None = None,
    paper: Paper | None = None,
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
            all three; with more than `MOST_IN_FULL` methods it writes svg alone of the figures
            that are about one method, with one seed where there is a panel a seed, and says so:
            the rest would take most of a minute.
        paper: What is made for a paper; None makes a table of three columns, and no figures.

    Raises:
        InputError: If a folder does not exist, none holds a run that can be read, `out` is a file,
            or a baseline or format is unknown.
    """
    kinds = check_formats(formats or FORMATS)
    out = _folder(out)
    loaded = load_runs(run_folders)
    parts, boundaries = _Parts.read(loaded), BoundaryReport(loaded)
    check_any_is_whole(loaded)
    groups = group_runs(loaded.finished, force=force)
    check_baseline(groups, baseline)
    is_brief = formats is None and sum(len(group.rows) for group in groups) > MOST_IN_FULL
    most_seeds, kinds_of_one = (1, FORMATS[:1]) if is_brief else (MOST_SEEDS, kinds)
    paper = paper or Paper()
    sections = [(each, parts.sections(each, baseline, most_seeds, paper)) for each in groups]
    contexts, files = _write_groups(sections, out, (kinds, kinds_of_one))
    contexts = [context | {"is_brief": is_brief} for context in contexts]
    files += _write_paper_figures(contexts, paper, out / "figures", kinds)
    files += _write_tables(boundaries.files(), out)
    page = _write_page(render_page(contexts, loaded, out, boundaries), out)
    told = chain.from_iterable(map(_told, stream_names(groups), groups, contexts))
    return ReportSummary(
        html=page,
        files=(page, *files),
        table=tuple(short_rows(groups)),
        sentences=(*told, *boundaries.sentences()),
        notes=(*reader_notes(groups, loaded), *([_BRIEF_NOTE] if is_brief else [])),
        num_finished=len(loaded.finished),
    )


def _told(stream: str, group: Group, context: Mapping[str, Any]) -> list[str]:
    # Two groups of one stream may say the same of the same method.
    start = "" if stream == group.stream else f"{stream}: "
    return [f"{start}{sentence}" for sentence in context["sentences"]]


def _folder(out: str | Path) -> Path:
    folder = user_path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"report folder {str(folder)!r} must be a directory, got a file")
    return folder


def _write_page(text: str, out: Path) -> Path:
    page = out / "report.html"
    with atomic_path(page) as path:
        path.write_text(text, "utf-8", "replace")
    return page


@contextmanager
def _records_left_alone() -> Iterator[None]:
    # Matplotlib makes so much garbage that Python goes through all that was read again and again,
    # which takes a quarter of the time; none of it is garbage.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Parts(NamedTuple):
    # What the records hold beside predictions, by folder.
    histories: dict[Path, History]
    retrievals: dict[Path, Retrieval]
    votes: dict[Path, Votes]
    examples: dict[Path, list[Example]]
    worths: dict[Path, Worth]

    @classmethod
    def read(cls, loaded: LoadedRuns) -> Self:
        # A run of which one of these cannot be read is broken, so all are read before any is used.
        return cls(
            read_histories(loaded),
            read_retrievals(loaded),
            read_all_votes(loaded),
            read_all_examples(loaded),
            read_worths(loaded),
        )

    def sections(
        self, group: Group, baseline: str | None, most_seeds: int, paper: Paper
    ) -> list[Section]:
        return [
            ComparisonSection(group, baseline),
            DepthSection(group),
            GrowthSection(group, self.histories, most_seeds, self.worths),
            RetrievalSection(group, self.retrievals, most_seeds),
            VotesSection(group, self.votes),
            ExamplesSection(group, self.examples),
            PaperSection(group, paper),
        ]


def _write_groups(
    groups: Sequence[tuple[Group, Sequence[Section]]],
    out: Path,
    formats: tuple[Sequence[str], Sequence[str]],
) -> tuple[list[dict[str, Any]], list[Path]]:
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    contexts: list[dict[str, Any]] = []
    files: list[Path] = []
    with _records_left_alone():
        for number, (group, sections) in enumerate(groups, start=1):
            context, written = _write_group(group, sections, out, f"s{number}", formats)
            contexts.append(context)
            files += written
    return contexts, files


def _write_tables(texts: Mapping[str, str], out: Path) -> list[Path]:
    for name, text in texts.items():
        with atomic_path(out / "tables" / name) as path:
            path.write_text(text, "utf-8", "replace")
    return [out / "tables" / name for name in texts]


def _write_paper_figures(
    contexts: Sequence[dict[str, Any]], paper: Paper, folder: Path, formats: Sequence[str]
) -> list[Path]:
    written: list[Path] = []
    for context in contexts:
        width, group = paper.column_width, context["group"]
        figures = [] if width is None else save_paper_figures(group, width, folder, formats)
        context["paper_figures"] = {path.stem: formats for path in figures}
        written += figures
    return written


def _write_group(
    group: Group,
    sections: Sequence[Section],
    out: Path,
    prefix: str,
    formats: tuple[Sequence[str], Sequence[str]],
) -> tuple[dict[str, Any], list[Path]]:
    texts = {name: text for section in sections for name, text in section.files().items()}
    tables = _write_tables(texts, out)
    pictures: list[Picture] = []
    with figure_style():
        for drawing in chain.from_iterable(section.figures() for section in sections):
            kinds = formats[bool(drawing.row)]
            ids = f"{prefix}f{len(pictures)}"
            pictures.append(_save(group, drawing, out / "figures", ids, kinds))
    files = [out / "figures" / f"{each.name}.{kind}" for each in pictures for kind in each.formats]
    context = section_context(group, pictures, sorted(texts), out)
    for section in sections:
        context |= section.context()
    return context, [*files, *tables]


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
