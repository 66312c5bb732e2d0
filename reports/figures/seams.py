"""Where a run goes on with another one: a thin line with a label, behind the curves."""

from collections.abc import Iterable
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from cl_adapters.reports.groups import Row

__all__ = ["SEAM", "SEAM_LOOK", "draw_seams", "experience_seams", "progress_seams", "seam_key"]

SEAM: Final = "continued"  # what stands at the line
SEAM_LOOK: Final = {"colors": "#777777", "linewidths": 0.8, "linestyles": (0, (5, 2))}


def progress_seams(rows: Iterable[Row]) -> list[float]:
    """Returns the places of the seams of methods on the axis of `Row.progress`, ascending.

    A seam lies in the middle between the last experience before and the first after it.
    """
    return sorted(
        {(row.progress[seam - 1] + row.progress[seam]) / 2 for row in rows for seam in row.seams}
    )


def experience_seams(rows: Iterable[Row]) -> list[float]:
    """Returns the places of the seams of methods on an axis of experiences counted from 1."""
    return sorted({seam + 0.5 for row in rows for seam in row.seams})


def draw_seams(axes: Axes, places: Iterable[float], label: str = SEAM) -> None:
    """Draws a thin line at each place; changes no limits.

    Args:
        axes: What to draw on.
        places: On its axis of experiences.
        label: Stands beside the foot of each line; empty for none.
    """
    lines = [[(place, 0.0), (place, 1.0)] for place in places]
    if not lines:
        return
    across = axes.get_xaxis_transform()
    drawn = LineCollection(
        lines,
        **SEAM_LOOK,
        transform=across,
        zorder=0.6,
        gid="seams",
        label="_seam",
    )
    axes.add_collection(drawn, autolim=False)
    for (place, _), _ in lines:
        axes.text(
            place, 0.06, label, transform=across, rotation=90, ha="right", va="bottom", fontsize=7,
            color="#777777", zorder=0.6,
        )  # fmt: skip


def seam_key() -> Line2D:
    """Returns what a legend shows of the lines."""
    return Line2D([], [], color="#777777", linewidth=0.8, linestyle=(0, (5, 2)), label=SEAM)
