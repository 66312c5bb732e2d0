"""The figures of retrieval: which adapter answered, how far adapters lie apart, what it brought.

Call inside `files.figure_style()`. Experiences and adapters are counted from 1 in figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.figures.parts import (
    MOST_SEEDS,
    ON_DARK,
    ON_LIGHT,
    draw_curve,
    mark_mixed,
    new_figure,
    short_label,
)
from cl_adapters.reports.figures.seams import SEAM, draw_seams, experience_seams
from cl_adapters.reports.figures.ticks import set_experience_ticks
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.looks import COLOURS, CurveStyle
from cl_adapters.reports.retrieval import Floats, Retrieval
from cl_adapters.reports.seeds import mean_interval

__all__ = ["choice_figure", "correction_figure", "has_distances"]

_MOST_NUMBERED: Final = 10  # experiences up to which a heat map carries its numbers
_COLOURS: Final = colormaps["cividis"].with_extremes(bad="none")
_LEFT, _BETWEEN, _RIGHT, _BELOW, _BOTTOM = 0.86, 1.5, 0.78, 0.34, 0.5  # inches
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SHARES: Final = {
    "right_adapter": ("right adapter", CurveStyle(COLOURS[0], "o", "-")),
    "right_first_adapter": ("right first adapter", CurveStyle(COLOURS[4], "D", "-.")),
    "saved": ("saved", CurveStyle(COLOURS[2], "^", "--")),
    "spoiled": ("spoiled", CurveStyle(COLOURS[1], "v", ":")),
}


@dataclass(frozen=True)
class _Column:
    # One kind of heat map, the same for all seeds.
    title: str
    labels: tuple[str, str]
    bar: str
    most: float
    digits: int
    maps: list[Floats | None]


def choice_figure(group: Group, row: Row, retrievals: Sequence[Retrieval]) -> Figure:
    """Draws which adapter answered beside the distances of the frozen ones, a line a seed.

    Args:
        group: What the method is compared with.
        row: The method.
        retrievals: Of its runs; of more than `MOST_SEEDS` the first are drawn.
    """
    # Placed by hand, in inches: cells keep their size, and it is faster than the layout engine.
    shown = retrievals[:MOST_SEEDS]
    names = [run.experience_names for run in row.runs[:MOST_SEEDS]]
    left = _LEFT + 0.06 * max(len(label) for each in names for label in _row_labels(each)) - 0.06
    columns = [_answers(shown), *([_distances(shown)] if has_distances(shown) else [])]
    side = float(np.clip(0.36 * max(run.num_experiences for run in shown), 1.5, 3.3))
    top = 0.82 if group.mixed else 0.6
    title = f"{short_label(row.label, 44)}, after the last experience"
    body = left + len(columns) * (side + _BETWEEN) - _BETWEEN + _RIGHT
    width = max(body, 0.2 + 0.085 * len(title), 5.2 if group.mixed else 0)
    height = top + len(shown) * (side + _BELOW) - _BELOW + _BOTTOM
    figure = Figure((width, height))
    mark_mixed(figure, group)
    figure.text(0.1 / width, 1 - (top - 0.36) / height, title, fontsize=9.5, va="bottom")
    for number, column in enumerate(columns):
        x = left + number * (side + _BETWEEN)
        for line, values in enumerate(column.maps):
            if values is None:
                continue
            base = height - top - line * (side + _BELOW) - side
            place = (x / width, base / height, side / width, side / height)
            axes = figure.add_axes(place, gid=f"choice-{number}-{line}")
            _heat_map(axes, column, values)
            if number == 0:
                _name_rows(axes, names[line])
            axes.set_title(column.title if line == 0 else "", fontsize=9, pad=4)
            axes.set_xlabel(column.labels[0] if line == len(shown) - 1 else "", fontsize=8.5)
        bar = (x + side + 0.1) / width, (height - top - side) / height, 0.13 / width, side / height
        _colour_bar(figure, bar, column)
    for line, seed in enumerate(row.seeds[: len(shown)]):
        middle = height - top - line * (side + _BELOW) - side / 2
        _write_seed(figure, (0.14 / width, middle / height), seed)
    return figure


def _write_seed(figure: Figure, place: tuple[float, float], seed: int) -> None:
    figure.text(*place, f"seed {seed}", rotation=90, va="center", fontsize=9)


def has_distances(retrievals: Sequence[Retrieval]) -> bool:
    """Whether there are distances to draw: of one adapter alone there are none."""
    shown = retrievals[:MOST_SEEDS]
    return any(run.drift is not None and run.num_experiences > 1 for run in shown)


def _answers(shown: Sequence[Retrieval]) -> _Column:
    return _Column(
        title="Which adapter answered",
        labels=("Adapter that answered", "Experience of\nthe test image"),
        bar="Images of the row (%)",
        most=100.0,
        digits=0,
        maps=[run.confusion for run in shown],
    )


def _distances(shown: Sequence[Retrieval]) -> _Column:
    known = [run.drift for run in shown if run.drift is not None]
    most = max((float(value) for drift in known for value in drift[~np.isnan(drift)]), default=0.0)
    # Adapters that were merged time and again may lie a millionth apart.
    power = math.floor(math.log10(most)) if most > 0 else 0
    power = 0 if -1 <= power <= 1 else power
    unit = f" / 10{str(power).translate(_RAISED)}" if power else ""
    return _Column(
        title="Adapter distances",
        labels=("To frozen adapter", "From frozen\nadapter"),
        bar=f"Relative distance{unit}",
        most=most / 10.0**power or 1.0,
        digits=1 if power or most >= 10 else 2,
        maps=[None if run.drift is None else run.drift / 10.0**power for run in shown],
    )


def _heat_map(axes: Axes, column: _Column, values: Floats) -> None:
    image = axes.imshow(values, cmap=_COLOURS, norm=Normalize(0, column.most), aspect="auto")
    image.set_gid(f"{axes.get_gid()}-cells")  # equal images would share an id on the page
    size = len(values)
    if size <= _MOST_NUMBERED:
        _write_numbers(axes, column, values)
    step = 1 if size <= _MOST_NUMBERED else -(-size // 10)
    places = range(step - 1, size, step)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, [str(place + 1) for place in places])
    axes.tick_params(length=0, labelsize=7.5)
    axes.grid(visible=False)
    axes.set_ylabel(column.labels[1], fontsize=8.5)


def _row_labels(names: Sequence[str]) -> list[str]:
    return [experience_label(number, name, 12) for number, name in enumerate(names, start=1)]


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    labels = _row_labels(names)
    places = [int(place) for place in axes.get_yticks()]
    axes.set_yticks(places, [labels[place] for place in places])


def _write_numbers(axes: Axes, column: _Column, values: Floats) -> None:
    for i, k in np.argwhere(~np.isnan(values)):
        ink = ON_LIGHT if values[i, k] > 0.55 * column.most else ON_DARK
        text = f"{values[i, k]:.{column.digits}f}" if values[i, k] else "0"
        axes.text(k, i, text, ha="center", va="center", color=ink, fontsize=7)


def _colour_bar(figure: Figure, place: tuple[float, float, float, float], column: _Column) -> None:
    # A colour bar of matplotlib's own has no name of its own: two would share an id on the page.
    axes = figure.add_axes(place)
    levels = np.linspace(0, column.most, 256)[:, None]
    extent = (0, 1, 0, column.most)
    image = axes.imshow(levels, cmap=_COLOURS, aspect="auto", origin="lower", extent=extent)
    image.set_gid(f"levels of {column.title}")
    axes.set_xticks([])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(labelsize=7.5)
    axes.set_ylabel(column.bar, fontsize=8.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def correction_figure(group: Group, row: Row, retrievals: Sequence[Retrieval]) -> Figure:
    """Draws over experiences what correction brought, and how many adapters it asked.

    Args:
        group: What the method is compared with.
        row: The method.
        retrievals: Of its runs.
    """
    figure = new_figure(6.4, 4.7, group)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name, (label, style) in _SHARES.items():
        _curve(upper, retrievals, name, style, label)
    _curve(lower, retrievals, "rounds", CurveStyle("#000000", "s", "-"), "")
    upper.set_title(f"{short_label(row.label, 44)}, {group.seeds_text(row)}", fontsize=9.5)
    upper.set_ylabel("Test images (%)")
    upper.set_ylim(-2, 102)
    lower.set_ylabel("Adapters asked\n(mean)")
    most = max(float(lower.dataLim.y1), 2.0)
    lower.set_ylim(1 - 0.04 * (most - 1), 1 + 1.08 * (most - 1))
    lower.set_xlabel("Number of experiences learned")
    set_experience_ticks(lower, retrievals[0].num_experiences)
    figure.align_ylabels()
    for axes, label in ((upper, SEAM), (lower, "")):
        draw_seams(axes, experience_seams([row]), label)
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _curve(
    axes: Axes, retrievals: Sequence[Retrieval], name: str, style: CurveStyle, label: str
) -> None:
    interval = mean_interval(np.stack([run.shares[name] for run in retrievals]))
    x = np.arange(1, interval.mean.size + 1).tolist()
    limits = (1.0, np.inf) if name == "rounds" else (0.0, 100.0)
    draw_curve(axes, x, interval, style, limits=limits, label=label)
