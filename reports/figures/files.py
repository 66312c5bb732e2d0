"""How figures look and how they are stored: the same bytes for the same records."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from cl_adapters.errors import unknown_name
from cl_adapters.records.files import atomic_path
from cl_adapters.reports.figures.interactive import Chart

if TYPE_CHECKING:  # matplotlib 3.9 and 3.10 have no such name
    from matplotlib.typing import RcKeyType

__all__ = ["FORMATS", "Drawing", "check_formats", "embed", "figure_style", "save_figure"]

FORMATS: Final = ("svg", "png", "pdf")
PNG_DPI: Final = 200

_STYLE: Final[dict["RcKeyType", Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    # Text stays text: it can be searched, and edited in a paper's figure.
    "svg.fonttype": "none",
    # Publishers refuse the fonts (Type 3) that matplotlib embeds unless told otherwise.
    "pdf.fonttype": 42,
    # The names of clip paths and markers must not change from run to run.
    "svg.hashsalt": "cl-adapters",
    # A method called `a$b` is a name, not a formula.
    "text.parse_math": False,
    "text.usetex": False,
}
_METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}, "dpi": PNG_DPI},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
# What is white, black or grey in a file takes the page's colours, light or dark. The inks that
# stand on a coloured cell, `parts.ON_LIGHT` and `parts.ON_DARK`, are none of these.
_PAGE_COLOURS: Final = {
    "#ffffff": "var(--card)",
    "#000000": "var(--ink)",
    "#333333": "var(--ink)",
    "#444444": "var(--quiet)",
    "#555555": "var(--quiet)",
    "#777777": "var(--quiet)",
    "#e3e3e3": "var(--line)",
    "#b00020": "var(--warn-ink)",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure for the page and for files.

    Attributes:
        kind: Where the page shows it, and how wide.
        name: End of its file names.
        text: What it shows, for the caption and for who cannot see it.
        figure: The figure.
        chart: Its curves, if they can be switched on and off.
        table: End of the name of the CSV file that holds its numbers; empty for none.
        row: Number of the method that it is about, counted from 1; 0 for all of them.
    """

    kind: str
    name: str
    text: str
    figure: Figure
    chart: Chart | None = None
    table: str = ""
    row: int = 0


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Returns the formats in the order of `FORMATS`; the page needs SVG, so it is always one.

    Raises:
        InputError: If one of them is unknown.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("figure format", name, FORMATS)
    return tuple(name for name in FORMATS if name == "svg" or name in formats)


@contextmanager
def figure_style(changes: Mapping["RcKeyType", Any] | None = None) -> Iterator[None]:
    """Draws and saves in the style of the report whatever the user's matplotlibrc says.

    Args:
        changes: What is otherwise, such as for a paper.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | dict(changes or {}))
        # A name in another script is a box in the PNG and right in the SVG; no reason to shout.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> str:
    """Writes `<stem>.<format>` in each format and returns the SVG; needs `figure_style`."""
    layout = figure.get_layout_engine()
    if layout is not None:  # found once and kept, which saves a third of the time
        layout.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    with atomic_path(Path(f"{stem}.svg")) as path:
        path.write_text(svg, "utf-8")
    for kind in formats:
        if kind != "svg":
            with atomic_path(Path(f"{stem}.{kind}")) as path:
                figure.savefig(path, format=kind, **_METADATA[kind])
    return svg


_TAG: Final = re.compile(r"<(?!!)[^>]*>")  # matplotlib writes `>` in values as `&gt;`


def _of_page(tag: str, prefix: str) -> str:
    tag = re.sub(r'\bid="', f'id="{prefix}-', tag)
    tag = tag.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _PAGE_COLOURS.get(found[0], found[0]), tag)


def embed(svg: str, prefix: str) -> str:
    """Returns an SVG file as an element for a page that holds several, in the page's colours.

    Args:
        svg: Text of an SVG file that matplotlib wrote.
        prefix: Start of every id, unique on the page.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace('<style type="text/css">*{', '<style type="text/css">.drawing *{', 1)
    # What stands between tags is text of a record, such as a class called `#000000`.
    body = _TAG.sub(lambda found: _of_page(found[0], prefix), body)
    # Its size comes from the page and its shape from the view box.
    body = re.sub(r'(<svg [^>]*?) ?\b(?:width|height)="[^"]*pt"', r"\1", body, count=1)
    body = re.sub(r'(<svg [^>]*?) ?\b(?:width|height)="[^"]*pt"', r"\1", body, count=1)
    return body.replace("<svg ", '<svg class="drawing" aria-hidden="true" ', 1)
