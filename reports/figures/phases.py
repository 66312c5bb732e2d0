"""Where the time of each method went: a bar a method, a piece a phase."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cl_adapters.reports.definitions import PHASES, format_number
from cl_adapters.reports.figures.parts import new_figure, short_label
from cl_adapters.reports.groups import Group, Row, clean_text
from cl_adapters.reports.looks import COLOURS

__all__ = ["mean_phases", "phases_figure", "phases_sentence"]

# The last colour is black, in which a hatch would not show.
_COLOURS: Final = COLOURS[:-1]
_OWN: Final = "a phase of a method's own, which its documentation explains"
_HATCHES: Final = ("", "///", "...", "xxx", "\\\\\\", "ooo", "---")


def mean_phases(row: Row) -> dict[str, float]:
    """Returns the mean seconds of each phase over the seeds; 0 for a seed without it."""
    names = dict.fromkeys(name for run in row.runs for name in run.detail.phases)
    return {
        name: float(np.mean([run.detail.phases.get(name, 0.0) for run in row.runs]))
        for name in names
    }


def _draw_bar(
    axes: Axes, place: int, phases: Mapping[str, float], looks: Mapping[str, tuple[str, str]]
) -> float:
    """Draws the bar of a method; returns where it ends."""
    start = 0.0
    for name, (colour, hatch) in looks.items():
        seconds = phases.get(name, 0.0)
        if seconds:
            axes.barh(
                place, seconds, 0.66, start,
                color=colour, hatch=hatch, edgecolor="#FEFEFE", linewidth=0.6,
            )  # fmt: skip
        start += seconds
    return start


def phases_sentence(group: Group) -> str:
    """Returns what each phase is that the figure shows; one of a plug-in is said to be its own."""
    names = dict.fromkeys(name for row in group.rows for name in mean_phases(row))
    ordered = [*(name for name in names if name != "evaluation"), "evaluation"]
    said = [f"{clean_text(name, 40)}: {PHASES.get(name, _OWN)}" for name in ordered]
    return f"{'; '.join(said)}."


def phases_figure(group: Group) -> Figure:
    """Draws the mean seconds of each phase of training and of all evaluations, by method."""
    bars = [(row, mean_phases(row)) for row in group.rows]
    names = list(dict.fromkeys(name for _, phases in bars for name in phases))
    names = [*(name for name in names if name != "evaluation"), "evaluation"]
    looks = {
        name: (_COLOURS[number % len(_COLOURS)], _HATCHES[number % len(_HATCHES)])
        for number, name in enumerate(names)
    }
    lines = -(-len(names) // 4)
    figure = new_figure(7.2, 0.95 + 0.34 * len(bars) + 0.24 * lines, group)
    axes = figure.subplots()
    longest = max(sum(phases.values()) for _, phases in bars) or 1.0
    for place, (_, phases) in enumerate(bars):
        start = _draw_bar(axes, place, phases, looks)
        axes.text(start + 0.01 * longest, place, f"{format_number(start, 0)} s", va="center")
    axes.set_yticks(
        range(len(bars)), [short_label(group.name_among(row), 44) for row, _ in bars], fontsize=8
    )
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.13 * longest)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"Seconds, {group.seeds_note}")
    axes.grid(visible=False, axis="y")
    patches = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="#FEFEFE", label=short_label(name, 24))
        for name, (colour, hatch) in looks.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)))
    return figure
