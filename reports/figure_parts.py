"""What all figures share: the look of each method, labels, and the mark of mixed protocols.

Colours are Okabe and Ito's; every curve also has its own marker and line style, so that it can be
told apart in grey.
"""

from itertools import cycle, islice
from typing import Any, Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cl_adapters.reports.groups import Group, clean_text

__all__ = ["COLOURS", "CurveStyle", "curve_styles", "mark_mixed", "new_figure", "short_label"]

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
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
