"""Where two experts differ: over experiences, and on which experience's images at the end."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_adapters.reports.figures.parts import draw_curve, legend_below, short_label, two_panels
from cl_adapters.reports.figures.ticks import set_experience_ticks
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.looks import COLOURS, CurveStyle
from cl_adapters.reports.seeds import mean_interval
from cl_adapters.reports.votes import Votes

__all__ = ["votes_figure"]

_LOOKS: Final = {
    "differ": ("experts differ", CurveStyle(COLOURS[6], "o", "-")),
    "online_right": ("online right", CurveStyle(COLOURS[1], "s", "--")),
    "offline_right": ("offline right", CurveStyle(COLOURS[0], "^", "-.")),
    "vote_right": ("vote right", CurveStyle(COLOURS[2], "D", ":")),
}
_PIECES: Final = {
    "online_right": ("online right", COLOURS[1], "///"),
    "offline_right": ("offline right", COLOURS[0], ""),
    "neither_right": ("neither right", "#BBBBBB", "..."),
}


def votes_figure(group: Group, row: Row, votes: Sequence[Votes]) -> Figure:
    """Draws how often the experts differ, who is right then, and on which images.

    Args:
        group: What the method is compared with.
        row: The method, with the runs that recorded it.
        votes: Of these runs.
    """
    title = f"{short_label(row.label, 44)}, {group.seeds_text(row)}"
    figure, left, right = two_panels(group, title)
    for name, (label, style) in _LOOKS.items():
        interval = mean_interval(np.stack([run.over_time[name] for run in votes]))
        x = np.arange(1, interval.mean.size + 1).tolist()
        draw_curve(left, x, interval, style, limits=(0, 100), label=label)
    left.set_xlabel("Number of experiences learned")
    left.set_ylabel("Test images (%)")
    left.set_title("Over experiences", fontsize=9, y=1.0)
    _stack(right, votes)
    right.set_xlabel("Experience of the test image")
    right.set_title("Where they differ at the end", fontsize=9, y=1.0)
    for axes in (left, right):
        legend_below(axes)
        axes.set_ylim(0, axes.get_ylim()[1])
    set_experience_ticks(left, len(votes[0].over_time["differ"]))
    set_experience_ticks(right, len(votes[0].by_experience["differ"]), row.experience_names, 2.7)
    return figure


def _stack(axes: Axes, votes: Sequence[Votes]) -> None:
    base = np.zeros(len(votes[0].by_experience["differ"]))
    places = np.arange(1, len(base) + 1)
    for name, (label, colour, hatch) in _PIECES.items():
        means = np.nan_to_num(np.stack([run.by_experience[name] for run in votes]).mean(axis=0))
        axes.bar(
            places, means, 0.8, base,
            color=colour, hatch=hatch, edgecolor="#FEFEFE", linewidth=0.4, label=label,
        )  # fmt: skip
        base = base + means
