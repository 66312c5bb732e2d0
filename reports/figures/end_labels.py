"""The names of curves at their right ends, none over another."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from cl_adapters.reports.figures.parts import short_label
from cl_adapters.reports.groups import Group
from cl_adapters.reports.looks import CurveStyle

__all__ = ["LINE_HEIGHT", "End", "end_texts", "label_ends", "spread"]

LINE_HEIGHT: Final = 0.155  # inches from one name to the next
_MARK, _TEXT = 0.14, 0.22  # inches from the axes


class End(NamedTuple):
    """The end of a curve.

    Attributes:
        place: Its last point, in units of the axes.
        text: Its name.
        style: How the curve looks.
        gid: Start of the identifiers of all that is drawn here of it.
    """

    place: tuple[float, float]
    text: str
    style: CurveStyle
    gid: str


def end_texts(group: Group, length: int = 34) -> list[str]:
    """Returns the name of each curve of a group, short where that leaves them unlike.

    Args:
        group: The methods.
        length: Letters of a short name.
    """
    names = [group.name_among(row) for row in group.rows]
    short = [short_label(name, length) for name in names]
    return short if len(set(short)) == len(short) else [short_label(name, 72) for name in names]


def label_ends(axes: Axes, ends: Sequence[End], height: float) -> None:
    """Writes names beside the axes, each as near to the end of its curve as others let it.

    Args:
        axes: Whose limits are set.
        ends: Of the curves, in any order.
        height: Of the axes in inches, or less.
    """
    (_, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    wanted = np.array([(end.place[1] - low) / (high - low) for end in ends])
    shares = spread(np.clip(wanted, 0, 1), LINE_HEIGHT / height)
    inch = axes.figure.dpi_scale_trans
    for end, share in zip(ends, shares.tolist(), strict=True):
        look: dict[str, Any] = {"color": end.style.colour}
        line = ([end.place[0], right], [end.place[1], low + share * (high - low)])
        mark: dict[str, Any] = {
            "marker": end.style.marker,
            "fillstyle": end.style.fill,
            "linestyle": "none",
        }
        beside = axes.transAxes + ScaledTranslation(_MARK, 0, inch)
        for part in (
            Line2D(
                *line,
                linewidth=0.8,
                alpha=0.7,
                transform=axes.transData,
                gid=f"{end.gid}-line",
                **look,
            ),
            Line2D([1], [share], transform=beside, gid=f"{end.gid}-mark", **mark, **look),
        ):
            axes.figure.add_artist(part)
        axes.text(
            1, share, end.text, transform=axes.transAxes + ScaledTranslation(_TEXT, 0, inch),
            va="center_baseline", fontsize=8.5, gid=f"{end.gid}-name",
        )  # fmt: skip


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Returns places between 0 and 1 at least a gap apart, as near to those wanted as can be.

    Nearest in the sum of squares, and in the same order, of level ones the first above; if there is
    no room for all gaps they are as wide as there is.

    Args:
        wanted: Where each would stand.
        gap: Between two.

    Shape:
        (N,) in and out.

    Example:
        >>> spread(np.array([0.5, 0.5, 0.9]), 0.25).round(3).tolist()
        [0.625, 0.375, 0.9]
    """
    order = np.argsort(-wanted, kind="stable")[::-1]
    steps = min(gap, 1 / max(len(wanted) - 1, 1)) * np.arange(len(wanted))
    blocks: list[list[float]] = []  # of places without the gaps that must not fall
    for value in (wanted[order] - steps).tolist():
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    places = np.empty(len(wanted))
    places[order] = np.clip(level, 0, 1 - steps[-1]) + steps
    return places
