"""Puts sections into `report.html`: one file that opens from a disk and loads nothing."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cl_adapters.reports.boundaries import BoundaryReport
from cl_adapters.reports.definitions import COLUMNS, MAIN_COLUMNS
from cl_adapters.reports.groups import Group, clean_text
from cl_adapters.reports.load import LoadedRuns
from cl_adapters.reports.recipes import recipe_text
from cl_adapters.reports.tables.growth import LETTERS
from cl_adapters.reports.tables.paired import DIFFERENCES_TEXT, RANKS_TEXT

__all__ = ["Picture", "render_page", "section_context"]

_PAGE_COLOURS: Final = {"#000000": "var(--ink)"}
# What is left of a half that is filled: from above, the right, below and the left.
_HALVES: Final = {
    "left": "0 50% 0 0",
    "right": "0 0 0 50%",
    "top": "0 0 50% 0",
    "bottom": "50% 0 0 0",
}
# Shapes of matplotlib's markers around (16, 6).
_MARKS: Final = {
    "o": "M12.5 6a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "s": "M13 3h6v6h-6z",
    "^": "M16 2l4 7h-8z",
    "v": "M16 10l4-7h-8z",
    "<": "M12 6l7-4v8z",
    ">": "M20 6l-7-4v8z",
    "d": "M16 1l2.7 5l-2.7 5l-2.7-5z",
    "p": "M16 2l4 2.9l-1.5 4.7h-5l-1.5-4.7z",
    "D": "M16 1.5l4.5 4.5l-4.5 4.5l-4.5-4.5z",
    "P": "M14.6 2h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "X": "M13 1.5l3 3l3-3l1.5 1.5l-3 3l3 3l-1.5 1.5l-3-3l-3 3l-1.5-1.5l3-3l-3-3z",
    "*": "M16 1l1.4 3.4l3.6.3l-2.8 2.4l.9 3.6l-3.1-2l-3.1 2l.9-3.6l-2.8-2.4l3.6-.3z",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing as the page shows it.

    Attributes:
        name: Start of its file names.
        kind: Where it stands, and how wide.
        text: What it shows.
        svg: The drawing.
        formats: In which it was written.
        table: File name of the CSV with its numbers; empty for none.
        row: Number of the method that it is about; 0 for all of them.
        chart: What `interactive.chart_data` returned; None if it cannot be played with.
    """

    name: str
    kind: str
    text: str
    svg: Markup
    formats: Sequence[str]
    table: str
    row: int
    chart: Mapping[str, Any] | None

    @property
    def is_by_x(self) -> bool:
        """Whether its curves are read along the x axis."""
        return self.chart is not None and bool(json.loads(self.chart["json"])["by"] == "x")


def swatch(look: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a button of the legend shows of a curve.

    Args:
        look: One of the labels of `interactive.chart_data`.
    """
    style = look["look"]
    colour = _PAGE_COLOURS.get(style.colour, style.colour)
    return {
        "label": clean_text(look["label"]),
        "colour": colour,
        "dash": look["dash"],
        "mark": _mark(_MARKS[style.marker], colour, style.fill),
    }


def _mark(shape: str, colour: str, fill: str) -> Markup:
    full = Markup('<path d="{}" fill="{}"{}/>')
    if fill == "full":
        return full.format(shape, colour, "")
    cut = _HALVES.get(fill)
    part = full.format(shape, colour, Markup(f' style="clip-path: inset({cut})"')) if cut else ""
    edge = Markup('<path d="{}" fill="var(--head)" stroke="{}" stroke-width="1.2"/>')
    return edge.format(shape, colour) + part


def section_context(
    group: Group, pictures: Sequence[Picture], files: Sequence[str], out: Path
) -> dict[str, Any]:
    """Returns what the page shows of every group, beside what its sections add.

    Args:
        group: The methods.
        pictures: All drawings.
        files: Names of the tables.
        out: Folder of the page.
    """
    rivals = [row.label for row in group.rows if not row.is_upper_bound]
    first = rivals[0] if rivals else group.rows[0].label
    return {
        "group": group,
        "rows": [
            {
                "label": row.label,
                "name": group.name_of(row),
                "number": number,
                "is_open": row.label == first,
                "recipe": recipe_text([run.record for run in row.runs]),
            }
            for number, row in enumerate(group.rows, start=1)
        ],
        "links": [
            [{"seed": run.record.seed, **link(run.folder, out)} for run in row.runs]
            for row in group.rows
        ],
        "drawings": pictures,
        "files": files,
        "protocols": {
            name: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
            for name, value in group.protocols.items()
        },
    }


def link(folder: Path, out: Path) -> dict[str, str]:
    """Returns address and text of a link from the page to a run directory."""
    relative = Path(os.path.relpath(folder, out.resolve())).as_posix()
    return {"href": quote(relative, errors="replace"), "text": clean_text(relative)}


def render_page(
    sections: Sequence[Mapping[str, Any]], loaded: LoadedRuns, out: Path, boundaries: BoundaryReport
) -> str:
    """Returns the page.

    Args:
        sections: Of each group, what `section_context` and its sections returned.
        loaded: All runs, also those that are not compared.
        out: Folder of the page.
        boundaries: The task-free runs.
    """
    script, style = (
        Path(__file__).with_name(f"report.{kind}").read_text("utf-8") for kind in ("js", "css")
    )
    streams = ", ".join(dict.fromkeys(section["group"].stream for section in sections))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=streams or "no finished run",
            sections=sections,
            num_finished=len(loaded.finished),
            unfinished=_unfinished(loaded, out),
            broken=[
                {"link": link(run.folder, out), "reason": clean_text(run.reason)}
                for run in loaded.broken
            ],
            continued=[
                {"link": link(folder, out), "by": link(by, out)} for folder, by in loaded.continued
            ],
            definitions=COLUMNS,
            main_columns=MAIN_COLUMNS,
            boundaries=boundaries,
            detection_letters=LETTERS,
            differences_text=DIFFERENCES_TEXT,
            ranks_text=RANKS_TEXT,
            script=Markup(script),
            style=Markup(style),
            policy=_policy(script),
        )
    )


# Where a long word of a heading may be broken, for columns of a telephone.
_BROKEN_WORDS: Final = {
    "Forgetting": "Forget\u00adting",
    "parameters": "para\u00admeters",
    "Training": "Train\u00ading",
}


def _hyphenated(heading: str) -> str:
    for word, broken in _BROKEN_WORDS.items():
        heading = heading.replace(word, broken)
    return heading


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cl_adapters.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["hyphenated"] = _hyphenated
    return environment


def _unfinished(loaded: LoadedRuns, out: Path) -> list[dict[str, Any]]:
    return [
        {
            "link": link(folder, out),
            "run": clean_text(f"{record.stream} / {record.strategy}, seed {record.seed}"),
            "state": clean_text(str(record.state), 40),
            "done": f"{record.experiences_done} of {len(record.experiences)}",
            "error": clean_text(str(record.error or "\u2013")),
        }
        for folder, record in loaded.unfinished
    ]


def _policy(script: str) -> str:
    # The browser itself then refuses any other script and anything from a network.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
