"""How figures look and how they are stored: SVG and PNG, the same bytes for the same records."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

__all__ = ["embed", "figure_style", "save_figure"]

PNG_DPI: Final = 200

_STYLE: Final[dict[RcKeyType, Any]] = {
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
    # The names of clip paths and markers must not change from run to run.
    "svg.hashsalt": "cl-adapters",
    # A method called `a$b` is a name, not a formula.
    "text.parse_math": False,
    "text.usetex": False,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draws and saves in the style of the report whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A name in another script is a box in the PNG and right in the SVG; no reason to shout.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save_figure(figure: Figure, stem: Path) -> str:
    """Writes `<stem>.svg` and `<stem>.png` and returns the SVG; needs `figure_style`."""
    layout = figure.get_layout_engine()
    if layout is not None:  # found once and kept, which saves a third of the time
        layout.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    Path(f"{stem}.svg").write_text(svg, "utf-8")
    figure.savefig(
        Path(f"{stem}.png"),
        format="png",
        dpi=PNG_DPI,
        metadata={"Software": None},
        pil_kwargs={"compress_level": 4},
    )
    return svg


def embed(svg: str, prefix: str) -> str:
    """Returns an SVG file as an element for a page that holds several.

    Args:
        svg: Text of an SVG file that matplotlib wrote.
        prefix: Start of every id, unique on the page.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    body = body.replace('<style type="text/css">*{', '<style type="text/css">.drawing *{')
    return body.replace("<svg ", '<svg class="drawing" aria-hidden="true" ', 1)
