"""What all figures share: the look of each method, labels, and the mark of mixed protocols.

Colours are Okabe and Ito's; every curve also has its own marker and line style, so that it can be
told apart in grey.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from cl_adapters.reports.groups import Group, clean_text
from cl_adapters.reports.seeds import Interval

__all__ = [
    "COLOURS",
    "ON_DARK",
    "ON_LIGHT",
    "CurveStyle",
    "curve_styles",
    "draw_curve",
    "mark_mixed",
    "new_figure",
    "short_label",
    "two_panels",
]

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Inks on a coloured cell: not the page's black and white, which turn round on a dark page.
ON_LIGHT: Final = "#010101"
ON_DARK: Final = "#FEFEFE"
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


class CurveStyle(NamedTuple):
    """How the curves of one method look."""

    colour: str
    marker: str
    line: Any


def curve_styles(group: Group) -> dict[str, CurveStyle]:
    """Returns the look of each method by label."""
    # By name, not by rank: a method keeps its colour when the order of the results changes.
    labels = sorted(row.label for row in group.rows)
    triples = zip(cycle(COLOURS), cycle(_MARKERS), cycle(_LINES), strict=False)
    return {
        label: CurveStyle(*triple)
        for label, triple in zip(labels, islice(triples, len(labels)), strict=True)
    }


def short_label(label: str, length: int = 44) -> str:
    """Returns a label of a bounded length that a legend shows."""
    # A leading underscore would hide a label from matplotlib's legend.
    shown = clean_text(label, length)
    return f" {shown}" if shown.startswith("_") else shown


def mark_mixed(figure: Figure, group: Group) -> None:
    """Writes at the top which protocols a figure mixes, if it does."""
    if group.mixed:
        figure.text(0.01, 0.99, clean_text(group.mixed, 90), color="#B00020", va="top", fontsize=8)


def new_figure(width: float, height: float, group: Group) -> Figure:
    """Returns a figure with constrained layout that leaves room for the mark."""
    top = 1 - 0.28 / height if group.mixed else 1.0
    figure = Figure((width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, top)))
    mark_mixed(figure, group)
    return figure


def two_panels(group: Group, title: str, share: float = 0.5) -> tuple[Figure, Axes, Axes]:
    """Returns a figure with two axes side by side and a title above both.

    Placed by hand, since the layout engine would take longer than the drawing.

    Args:
        group: Says whether the figure needs a mark.
        title: Stands above both.
        share: Of the width, what the left axes take.
    """
    width, left, gap, right, bottom = 7.6, 0.62, 0.72, 0.12, 0.56  # inches
    top = 0.92 if group.mixed else 0.62
    height = 3.6 + (0.28 if group.mixed else 0)
    figure = Figure((width, height))
    mark_mixed(figure, group)
    body = width - left - gap - right
    places = ((left, share * body), (left + share * body + gap, (1 - share) * body))
    one, two = (
        figure.add_axes((x / width, bottom / height, w / width, (height - bottom - top) / height))
        for x, w in places
    )
    figure.text(0.1 / width, 1 - (top - 0.36) / height, title, fontsize=9.5, va="bottom")
    return figure, one, two


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    interval: Interval,
    style: CurveStyle,
    *,
    limits: tuple[float, float] = (-np.inf, np.inf),
    **line: Any,  # noqa: ANN401 - whatever matplotlib's lines take
) -> tuple[Line2D, PolyCollection | None]:
    """Draws a mean, and its 95 % interval as a band if there is one.

    Args:
        axes: What to draw on.
        x: Place of each value.
        interval: The values; what is not known is left out.
        style: Colour, marker and line.
        limits: What the band is cut at.
        **line: Further properties of the line.
    """
    places = np.asarray(x, np.float64)
    known = ~np.isnan(interval.mean)
    (drawn,) = axes.plot(
        places[known],
        interval.mean[known],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        **{"markevery": max(1, len(places) // 20), **line},
    )
    if interval.num_seeds < 2:
        return drawn, None
    low, high = interval.mean - interval.half_width, interval.mean + interval.half_width
    band = (np.clip(low, *limits)[known], np.clip(high, *limits)[known])
    return drawn, axes.fill_between(
        places[known], *band, color=style.colour, alpha=0.12, linewidth=0
    )
