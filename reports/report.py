"""Writes the report: `report.html`, `figures/` and `tables/`."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cl_adapters.errors import InputError
from cl_adapters.records import atomic_path
from cl_adapters.reports import figures, tables
from cl_adapters.reports.definitions import COLUMNS, DETECTION_COLUMNS, Column
from cl_adapters.reports.figure_files import embed, figure_style, save_figure
from cl_adapters.reports.groups import Group, Row, clean_text, file_name, group_runs
from cl_adapters.reports.growth_section import GrowthSection, read_histories
from cl_adapters.reports.growth_tables import LETTERS
from cl_adapters.reports.load import LoadedRuns, load_runs
from cl_adapters.reports.markup import Cell
from cl_adapters.reports.recipes import recipe_text
from cl_adapters.reports.retrieval_section import RetrievalSection, read_retrievals
from cl_adapters.reports.retrieval_tables import RETRIEVAL_MEASURES
from cl_adapters.reports.summary import sentences

__all__ = ["ReportSummary", "write_report"]

_SHORT_COLUMNS: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "added_parameters",
    "train_seconds",
)


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


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    name: str
    kind: str
    text: str
    svg: Markup


def write_report(run_folders: Sequence[Path], out: Path, *, force: bool = False) -> ReportSummary:
    """Reads all runs below the folders and writes one page, its figures and its tables.

    The same records give the same bytes. Unfinished runs are listed and not compared, damaged ones
    are named and skipped.

    Args:
        run_folders: Run directories, or folders that hold some at any depth.
        out: Folder to write into; made if it is missing, files of the same names are replaced.
        force: Whether runs of different protocols are drawn together, with a mark on each figure.

    Raises:
        InputError: If a folder does not exist, none holds a run, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"report folder {str(out)!r} must be a directory, got a file")
    loaded = load_runs(run_folders)
    histories, retrievals = read_histories(loaded), read_retrievals(loaded)
    groups = group_runs(loaded.finished, force=force)
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    sections = []
    for number, group in enumerate(groups, start=1):
        growth = GrowthSection(group, histories)
        retrieval = RetrievalSection(group, retrievals)
        found = chain(_figures(group), growth.figures(), retrieval.figures())
        drawings = _draw(group, found, out / "figures", f"s{number}")
        texts = tables.table_files(group) | growth.files() | retrieval.files()
        for name, text in texts.items():
            (out / "tables" / name).write_text(text, "utf-8", "replace")
        files += [
            out / "figures" / f"{item.name}.{kind}" for item in drawings for kind in ("svg", "png")
        ]
        files += [out / "tables" / name for name in texts]
        sections.append(
            _section(group, drawings, sorted(texts), out)
            | {"grows": bool(growth.rows), "detection": _detection(growth)}
            | {"retrieval": _scores(retrieval.rows, RETRIEVAL_MEASURES, retrieval.table.cells)}
        )
    page = out / "report.html"
    with atomic_path(page) as path:
        path.write_text(_render(sections, loaded, out), "utf-8", "replace")
    return ReportSummary(
        html=page,
        files=(page, *files),
        table=tuple(_short_rows(groups)),
        sentences=tuple(text for group in groups for text in sentences(group)),
        notes=tuple(_notes(groups, loaded)),
        num_finished=len(loaded.finished),
    )


def _draw(
    group: Group, found: Iterable[tuple[str, str, str, Figure]], folder: Path, prefix: str
) -> list[_Drawing]:
    drawings: list[_Drawing] = []
    with figure_style():
        for kind, name, text, figure in found:
            stem = f"{group.slug}-{name}"
            svg = save_figure(figure, folder / stem)
            element = Markup(embed(svg, f"{prefix}f{len(drawings)}"))
            drawings.append(_Drawing(name=stem, kind=kind, text=text, svg=element))
    return drawings


def _figures(group: Group) -> Iterable[tuple[str, str, str, Figure]]:
    band = "bands are 95 % intervals over seeds, none with one seed"
    text = f"Accuracy over all classes seen; {band}."
    yield "curve", "accuracy", text, figures.accuracy_figure(group)
    if any(not math.isnan(run.forgetting[-1]) for row in group.rows for run in row.runs):
        text = f"Forgetting from best, mean over the experiences learned before; {band}."
        yield "curve", "forgetting", text, figures.forgetting_figure(group)
        text = "Accuracy on each experience from when it was learned; mean over seeds."
        yield "panels", "experiences", text, figures.experience_figure(group)
    for number, row in enumerate(group.rows, start=1):
        text = f"Accuracy matrix R[t, i] of {row.label}; mean over seeds."
        name = f"matrix-{number:02d}-{file_name(row.label)}"
        yield "matrix", name, text, figures.matrix_figure(group, row)


def _section(group: Group, drawings: list[_Drawing], files: list[str], out: Path) -> dict[str, Any]:
    columns = tables.shown_columns(group)
    by_column = [tables.cells(group, column) for column in columns]
    rows = [
        {
            "label": row.label,
            "seeds": row.seeds,
            "is_upper_bound": row.is_upper_bound,
            "cells": [cells[number] for cells in by_column],
            "links": [{"seed": run.record.seed, **_link(run.folder, out)} for run in row.runs],
            "recipe": _recipes(row),
        }
        for number, row in enumerate(group.rows)
    ]
    return {
        "group": group,
        "columns": columns,
        "rows": rows,
        "sentences": sentences(group),
        "drawings": drawings,
        "files": files,
        "protocols": {
            name: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
            for name, value in group.protocols.items()
        },
    }


def _detection(growth: GrowthSection) -> list[dict[str, Any]]:
    return _scores(growth.detection.rows, DETECTION_COLUMNS, growth.detection.cells)


def _scores(
    rows: Sequence[Row], columns: Sequence[Column], cells: Callable[[Column], list[Cell]]
) -> list[dict[str, Any]]:
    by_column = [cells(column) for column in columns]
    return [
        {"label": row.label, "seeds": row.seeds, "cells": [column[number] for column in by_column]}
        for number, row in enumerate(rows)
    ]


def _recipes(row: Row) -> str:
    return recipe_text([run.record for run in row.runs])


def _link(folder: Path, out: Path) -> dict[str, str]:
    relative = Path(os.path.relpath(folder, out.resolve())).as_posix()
    return {"href": quote(relative, errors="replace"), "text": clean_text(relative)}


def _render(sections: list[dict[str, Any]], loaded: LoadedRuns, out: Path) -> str:
    environment = Environment(
        loader=PackageLoader("cl_adapters.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    unfinished = [
        {
            "link": _link(folder, out),
            "run": clean_text(f"{record.stream} / {record.strategy}, seed {record.seed}"),
            "state": clean_text(str(record.state), 40),
            "done": f"{record.experiences_done} of {len(record.experiences)}",
            "error": clean_text(str(record.error or "\u2013")),
        }
        for folder, record in loaded.unfinished
    ]
    broken = [
        {"link": _link(run.folder, out), "reason": clean_text(run.reason)} for run in loaded.broken
    ]
    streams = ", ".join(dict.fromkeys(section["group"].stream for section in sections))
    return environment.get_template("report.html.j2").render(
        title=streams or "no finished run",
        sections=sections,
        num_finished=len(loaded.finished),
        unfinished=unfinished,
        broken=broken,
        definitions=COLUMNS,
        detection_columns=DETECTION_COLUMNS,
        detection_letters=LETTERS,
        retrieval_columns=RETRIEVAL_MEASURES,
    )


def _short_rows(groups: Sequence[Group]) -> Iterable[tuple[str, ...]]:
    columns = [column for column in COLUMNS if column.name in _SHORT_COLUMNS]
    headings = (f"{item.heading} ({item.unit})" if item.unit else item.heading for item in columns)
    yield ("Stream", "Method", "Seeds", *headings)
    streams = [group.stream for group in groups]
    for group in groups:
        is_alone = streams.count(group.stream) == 1
        stream = group.stream if is_alone else f"{group.stream} @{next(iter(group.protocols))}"
        by_column = [tables.cells(group, column) for column in columns]
        for number, row in enumerate(group.rows):
            texts = [cells[number].text for cells in by_column]
            yield (stream, row.label, str(len(row.seeds)), *texts)


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
