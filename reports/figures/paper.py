"""Figures as wide as a column of a paper, with letters of 8 points."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from cl_adapters.reports.figures.curves import CurveName, draw_curves
from cl_adapters.reports.figures.files import figure_style, save_figure
from cl_adapters.reports.figures.pareto import pareto_figure, shown_costs
from cl_adapters.reports.figures.parts import new_figure, short_label
from cl_adapters.reports.groups import Group

if TYPE_CHECKING:  # matplotlib 3.9 and 3.10 have no such name
    from matplotlib.typing import RcKeyType

__all__ = ["save_paper_figures"]

_POINTS: Final = 8
_USUAL: Final = 3.25  # inches, until the figure is fitted
_STYLE: Final[dict["RcKeyType", Any]] = {
    "axes.labelsize": _POINTS,
    "axes.linewidth": 0.6,
    "axes.titlesize": _POINTS,
    "font.size": _POINTS,
    "grid.linewidth": 0.5,
    "legend.fontsize": _POINTS,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
_SHAPE: Final = 0.66  # height of all but the legend to the width of the figure
_LINE: Final = 0.165  # inches that a line of the legend takes
_LETTER, _HANDLE = 0.068, 0.55  # inches of a letter, and of what stands before a label


def save_paper_figures(
    group: Group, width: float, folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Writes accuracy, forgetting and accuracy against each cost; returns the files.

    Args:
        group: The methods.
        width: Of each figure, in inches.
        folder: Where `<slug>-<name>-paper.<format>` are written.
        formats: In which, svg among them. In PDF and SVG text is text.
    """
    files = []
    with figure_style(_STYLE):
        for name, figure in _figures(group):
            _fit(figure, width)
            stem = f"{group.slug}-{name}-paper"
            save_figure(figure, folder / stem, formats)
            files += [folder / f"{stem}.{kind}" for kind in formats]
    return files


def _figures(group: Group) -> Iterator[tuple[str, Figure]]:
    yield "accuracy", _curves(group, "seen")
    if any(len(row.classes_seen) > 1 for row in group.rows):
        yield "forgetting", _curves(group, "forgetting")
    if len(group.rows) > 1:
        for cost in shown_costs(group):
            yield f"pareto-{cost.name.replace('_', '-')}", pareto_figure(group, [cost])


def _curves(group: Group, name: CurveName) -> Figure:
    # A column has no room for names at the ends of curves: here they stand below.
    figure = new_figure(_USUAL, _SHAPE * _USUAL, group)
    lines = draw_curves(figure.subplots(), group, name)
    figure.legend(lines, [group.name_among(row) for row in group.rows])
    return figure


def _fit(figure: Figure, width: float) -> None:
    (legend,) = figure.legends
    handles = figure.axes[0].get_legend_handles_labels()[0]
    if len(handles) != len(legend.get_texts()):
        handles = [each for each in legend.legend_handles if each is not None]
    texts = [text.get_text() for text in legend.get_texts()]
    legend.remove()
    texts = [short_label(text, int((width - _HANDLE) / _LETTER)) for text in texts]
    num_columns = int(width / (_LETTER * max(map(len, texts)) + _HANDLE))
    num_columns = min(max(num_columns, 1), len(texts))
    num_lines = -(-len(texts) // num_columns)
    figure.set_size_inches(width, _SHAPE * width + _LINE * num_lines)
    figure.legend(handles, texts, loc="outside lower center", ncols=num_columns, columnspacing=1.2)
    for axes in figure.axes:
        axes.set_title("", loc="left")  # how many seeds there are is said by the caption
        axes.set_ylabel(fill(axes.get_ylabel(), int(0.5 * width / _LETTER)))
    for mark in figure.texts:
        most = width / (_LETTER * len(mark.get_text()))
        mark.set_fontsize(_POINTS * min(1.0, most))
