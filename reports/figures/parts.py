"""What all figures share: frames, curves, labels, and the mark of mixed protocols."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from cl_adapters.reports.groups import Group, clean_text
from cl_adapters.reports.looks import CurveStyle
from cl_adapters.reports.seeds import Interval

__all__ = [
    "MOST_SEEDS",
    "ON_DARK",
    "ON_LIGHT",
    "Titles",
    "draw_curve",
    "draw_frame",
    "first_seeds",
    "legend_below",
    "mark_mixed",
    "new_figure",
    "short_label",
    "two_panels",
]

# Inks on a coloured cell: not the page's black and white, which turn round on a dark page.
ON_LIGHT: Final = "#010101"
ON_DARK: Final = "#FEFEFE"
MOST_SEEDS: Final = 3  # of one method, in figures with a panel a seed

Place = tuple[float, float]


class Titles(NamedTuple):
    """What stands around axes."""

    above: str
    below: str
    left: str


def short_label(label: str, length: int = 44) -> str:
    """Returns a label of a bounded length that a legend shows."""
    # A leading underscore would hide a label from matplotlib's legend.
    shown = clean_text(label, length)
    return f" {shown}" if shown.startswith("_") else shown


def first_seeds(num_seeds: int, most: int) -> str:
    """Returns a sentence for a caption that says which seeds a figure shows; empty for all.

    Example:
        >>> first_seeds(5, 3), first_seeds(5, 1), first_seeds(3, 3)
        (' The first 3 of 5 seeds.', ' The first of 5 seeds.', '')
    """
    if num_seeds <= most:
        return ""
    return f" The first {f'{most} ' if most > 1 else ''}of {num_seeds} seeds."


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
    """Returns a figure with two axes side by side, a title above both and room for legends below.

    Placed by hand, since the layout engine would take longer than the drawing.

    Args:
        group: Says whether the figure needs a mark.
        title: Stands above both.
        share: Of the width, what the left axes take.
    """
    width, left, gap, right, bottom = 7.6, 0.62, 0.72, 0.12, 1.02  # inches
    top = 0.92 if group.mixed else 0.62
    height = 4.06 + (0.28 if group.mixed else 0)
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


def legend_below(axes: Axes, most_columns: int = 2) -> None:
    """Puts the legend of axes below them, where it covers nothing.

    Args:
        axes: Of `two_panels`.
        most_columns: How many texts stand side by side at most.
    """
    below = axes.transAxes + ScaledTranslation(0, -0.46, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=most_columns,
        fontsize=8, borderaxespad=0, columnspacing=1.2, handlelength=2.6,
    )  # fmt: skip


def draw_frame(axes: Axes, x: Sequence[float], y: Sequence[float], titles: Titles) -> None:
    """Draws grid, numbers and titles of axes whose limits are set, and switches off their own.

    Matplotlib's ticks would take longer than the curves.

    Args:
        axes: What to draw on.
        x: Where the numbers below stand.
        y: Where the numbers on the left stand.
        titles: Above the axes, below them, and on their left.
    """
    axes.set_axis_off()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    lines = [[(at, bottom), (at, top)] for at in x] + [[(left, at), (right, at)] for at in y]
    colours, widths = ["#E3E3E3"] * len(lines) + ["#444444"], [0.7] * len(lines) + [0.8]
    lines.append([(left, top), (left, bottom), (right, bottom)])
    frame = LineCollection(lines, colors=colours, linewidths=widths, zorder=0.5, clip_on=False)
    axes.add_collection(frame, autolim=False)

    def write(place: Place, away: Place, text: str, **look: Any) -> None:  # noqa: ANN401
        inch = axes.figure.dpi_scale_trans
        shift = ScaledTranslation(away[0], away[1], inch)
        axes.text(place[0], place[1], text, transform=axes.transAxes + shift, **look)

    for at in x:
        place = (at - left) / (right - left)
        write((place, 0), (0, -0.05), f"{at:g}", ha="center", va="top")
    for at in y:
        place = (at - bottom) / (top - bottom)
        write((0, place), (-0.05, 0), f"{at:g}", ha="right", va="center_baseline")
    write((0.5, 1), (0, 0.08), titles.above, ha="center", va="bottom")
    write((0.5, 0), (0, -0.26), titles.below, ha="center", va="top", size=10)
    write((0, 0.5), (-0.34, 0), titles.left, ha="right", va="center", rotation=90, size=10)


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    interval: Interval,
    style: CurveStyle,
    *,
    limits: tuple[float, float] = (-np.inf, np.inf),
    whiskers: float | None = None,
    **line: Any,  # noqa: ANN401 - whatever matplotlib's lines take
) -> tuple[Line2D, Collection | None]:
    """Draws a mean, and its 95 % interval as a band or as whiskers if there is one.

    Args:
        axes: What to draw on.
        x: Place of each value.
        interval: The values; what is not known is left out.
        style: Colour, marker and line.
        limits: What the interval is cut at.
        whiskers: How far beside the points thin whiskers stand, in units of `x`; None for a band.
        **line: Further properties of the line.
    """
    places = np.asarray(x, np.float64)
    known = ~np.isnan(interval.mean)
    (drawn,) = axes.plot(
        places[known],
        interval.mean[known],
        color=style.colour,
        marker=style.marker,
        fillstyle=style.fill,
        linestyle=style.line,
        **{"markevery": max(1, len(places) // 20), **line},
    )
    if interval.num_seeds < 2:
        return drawn, None
    ends = (interval.mean - interval.half_width, interval.mean + interval.half_width)
    low, high = (np.clip(end, *limits)[known] for end in ends)
    look: dict[str, Any] = {"color": style.colour}
    if whiskers is not None:
        beside = places[known] + whiskers
        return drawn, axes.vlines(beside, low, high, linewidth=0.8, alpha=0.8, **look)
    return drawn, axes.fill_between(places[known], low, high, alpha=0.12, linewidth=0, **look)
