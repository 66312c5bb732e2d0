"""What the page needs to switch the curves of a figure on and off and to show their values.

The picture is the same SVG that is written to disk. Beside it the page gets, for every curve, the
identifier of its artists in the SVG and each point with its place in it and its value as text, so
that the script on the page only moves and shows what was computed here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cl_adapters.reports.looks import CurveStyle

__all__ = ["Chart", "ChartPoint", "Curve", "chart_data", "curve_id"]

_POINTS_AN_INCH = 72  # what matplotlib's SVG counts in


class ChartPoint(NamedTuple):
    """A point of a curve.

    Attributes:
        axes: Number of the axes in the figure.
        x: Place in units of the axes.
        y: Place in units of the axes.
        at: Where it is, in words.
        text: Its value, in words.
    """

    axes: int
    x: float
    y: float
    at: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve that can be switched off; its artists have the identifiers of `curve_id`."""

    number: int
    label: str
    look: CurveStyle
    points: Sequence[ChartPoint]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The curves of one figure.

    Attributes:
        by: Whether all curves are read at one place along the x axis, or the nearest point alone.
        curves: The curves.
    """

    by: Literal["x", "point"]
    curves: Sequence[Curve]


def curve_id(number: int, part: str) -> str:
    """Returns the identifier of an artist that belongs to a curve, for `set_gid`."""
    return f"curve-{number}-{part}"


def chart_data(chart: Chart, figure: Figure, prefix: str) -> dict[str, Any]:
    """Returns the labels of the curves and, as JSON, all that the script needs.

    Args:
        chart: The curves.
        figure: Drawn and laid out.
        prefix: Start of every id of its SVG on the page.
    """
    scale = _POINTS_AN_INCH / figure.dpi
    height = figure.get_figheight() * _POINTS_AN_INCH
    boxes = [axes.get_window_extent() for axes in figure.axes]
    curves = [
        {"id": f"{prefix}-{curve_id(curve.number, '')}", "points": _places(curve, figure, scale)}
        for curve in chart.curves
    ]
    tops = [legend.get_window_extent().y1 * scale for legend in figure.legends]
    script = {
        "by": chart.by,
        "curves": curves,
        "boxes": [_flipped(box, scale, height) for box in boxes],
        # The buttons below the figure are its legend.
        "height": round(height - max(tops) - 2, 1) if tops else None,
    }
    labels = [
        {"label": curve.label, "look": curve.look, "dash": _dash(curve.look)}
        for curve in chart.curves
    ]
    return {"labels": labels, "json": json.dumps(script, separators=(",", ":"))}


def _places(curve: Curve, figure: Figure, scale: float) -> list[list[object]]:
    height = figure.get_figheight() * _POINTS_AN_INCH
    places: list[list[object]] = []
    for point in curve.points:
        axes = figure.axes[point.axes]
        x, y = axes.transData.transform((point.x, point.y)) * scale
        if np.isfinite(x) and np.isfinite(y):
            place = [round(float(x), 1), round(float(height - y), 1)]
            places.append([point.axes, *place, point.at, point.text])
    return places


def _flipped(box: Bbox, scale: float, height: float) -> list[float]:
    # Left, top, right and bottom as SVG counts them.
    edges = (box.x0 * scale, height - box.y1 * scale, box.x1 * scale, height - box.y0 * scale)
    return [round(float(edge), 1) for edge in edges]


def _dash(look: CurveStyle) -> str:
    named = {"-": "", "--": "6 3", "-.": "7 2 1.5 2", ":": "1.5 2.5"}
    if isinstance(look.line, str):
        return named[look.line]
    return " ".join(str(1.5 * part) for part in look.line[1])
