"""The heat map of a router: how much the test images of each experience use each adapter, or path.

Call inside `files.figure_style()`. Counted as in `timeline`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.figures.cells import Box, Scale, draw_scale, inches
from cl_adapters.reports.figures.parts import (
    MOST_SEEDS,
    ON_DARK,
    ON_LIGHT,
    mark_mixed,
    short_label,
)
from cl_adapters.reports.groups import Group, Row, clean_text
from cl_adapters.reports.growth import Floats, History

__all__ = ["router_figure"]

_BLOCKS_A_LINE: Final = 4
_COLOURS: Final = colormaps["cividis"]
_BETWEEN, _BELOW, _BOTTOM, _RIGHT = 0.22, 0.42, 0.5, 0.95  # inches


@dataclass(frozen=True)
class _Layout:
    # Placed by hand, in inches: cells keep their size whatever the number of adapters.
    lines: list[tuple[int, History, list[int]]]
    labels: dict[int, list[str]]
    adapters: dict[int, int]
    cell: float
    size: float
    left: float
    top: float

    @property
    def widths(self) -> dict[int, float]:
        return {block: max(self.cell * most, 0.55) for block, most in self.adapters.items()}

    @property
    def body(self) -> float:
        pieces = (piece for _, _, piece in self.lines)
        return max(sum(self.widths[b] + _BETWEEN for b in piece) - _BETWEEN for piece in pieces)

    @property
    def depth(self) -> float:
        return len(self.lines) * (self.size + _BELOW) - _BELOW


def _layout(
    shown: Sequence[tuple[int, History]], labels: dict[int, list[str]], top: float
) -> _Layout:
    blocks = sorted({block for _, history in shown for block in history.router})
    pieces = [blocks[i : i + _BLOCKS_A_LINE] for i in range(0, len(blocks), _BLOCKS_A_LINE)]
    adapters = {
        block: max(
            history.router[block].shape[1] for _, history in shown if block in history.router
        )
        for block in blocks
    }
    num_rows = max(len(weights) for _, history in shown for weights in history.router.values())
    longest = max(len(label) for seed, _ in shown for label in labels[seed])
    most = max(sum(adapters[block] for block in piece) for piece in pieces)
    lines = [(seed, history, piece) for seed, history in shown for piece in pieces]
    size = float(np.clip(3.2 / num_rows, 0.15, 0.26)) * num_rows
    return _Layout(
        lines=lines,
        labels=labels,
        adapters=adapters,
        cell=float(np.clip(6.0 / most, 0.13, 0.3)),
        size=max(size, 1.1 if len(lines) == 1 else 0.5),  # room for the label of the colour bar
        left=0.75 + 0.062 * longest,
        top=top,
    )


def router_figure(
    group: Group, row: Row, histories: Sequence[History], most: int = MOST_SEEDS
) -> Figure:
    """Draws the mean router weights after the last experience, one panel a seed and block.

    Args:
        group: What the method is compared with.
        row: The method.
        histories: Of its runs, at least one with a router.
        most: Runs that are drawn; of more, the first.
    """
    routed = [pair for pair in zip(row.seeds, histories, strict=True) if pair[1].router]
    triples = zip(row.seeds, histories, row.runs, strict=True)
    labels = {seed: _labels(history, run.experience_names) for seed, history, run in triples}
    layout = _layout(routed[:most], labels, 0.8 if group.mixed else 0.56)
    width = max(layout.left + layout.body + _RIGHT, 4.6)
    height = layout.top + layout.depth + _BOTTOM
    figure = Figure((width, height))
    mark_mixed(figure, group)
    is_whole = all(history.is_whole for _, history in routed)
    shown = "paths" if is_whole else "router"
    title = f"{short_label(row.label, 44)}, {shown} after the last experience"
    figure.text(0.1 / width, 1 - (layout.top - 0.3) / height, title, fontsize=9.5, va="bottom")
    canvas = inches(figure)
    for number, (seed, history, piece) in enumerate(layout.lines):
        x, y = layout.left, layout.top + number * (layout.size + _BELOW)
        _name_rows(canvas, layout, (x, y), seed, history)
        for block in piece:
            box = (x, y, layout.widths[block], layout.size)
            _panel(canvas, history, block, layout.adapters[block], box)
            x += layout.widths[block] + _BETWEEN
    which = "Path" if is_whole else "Adapter"
    label = f"{which} (ring: where the experience was put in training)"
    canvas.text(width / 2, height - 0.1, label, ha="center", va="bottom", fontsize=9)
    scale = Scale(
        title="Share of images" if is_whole else "Mean weight",
        colours=_COLOURS,
        labels=[(share, f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        name="weights-scale",
    )
    x = layout.left + layout.body + 0.18
    draw_scale(canvas, (x, layout.top, 0.15, min(layout.depth, 2.6)), scale)
    return figure


def _labels(history: History, names: Sequence[str]) -> list[str]:
    # A test experience by number, and by domain where the truth is known, or else by its name.
    domains = {t: clean_text(event.domain, 14) for t, event in history.domains.items()}
    return [
        experience_label(t + 1, domains.get(t) or names[t]) for t in range(history.num_experiences)
    ]


def _name_rows(
    canvas: Axes, layout: _Layout, corner: tuple[float, float], seed: int, history: History
) -> None:
    (x, y), num_rows = corner, max(map(len, history.router.values()))
    labels = layout.labels[seed][:num_rows]
    step = 1 if len(labels) <= 20 else -(-len(labels) // 20)
    for t in range(0, len(labels), step):
        place = y + layout.size * (t + 0.5) / len(labels)
        canvas.text(x - 0.05, place, labels[t], ha="right", va="center_baseline", fontsize=7.5)
    title = f"seed {seed}\nTest experience"
    middle = y + layout.size / 2
    canvas.text(0.08, middle, title, rotation=90, ha="left", va="center", fontsize=8.5,
                multialignment="center")  # fmt: skip


def _panel(canvas: Axes, history: History, block: int, most: int, box: Box) -> None:
    x, y, width, height = box
    name = history.place(block)
    canvas.text(x + width / 2, y - 0.05, name, ha="center", va="bottom", fontsize=8.5)
    weights: Floats = history.router.get(block, np.empty((0, 0)))
    if not weights.size:
        return
    rows, columns = weights.shape
    cell = (width / most, height / rows)
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "none"}
    look["gid"] = f"weights-{len(canvas.images)}"  # equal images would share an id on the page
    edges = (x, x + columns * cell[0], y + height, y)
    canvas.imshow(weights, _COLOURS, Normalize(0, 1), extent=edges, **look)
    step = 1 if most <= 8 else 2 if most <= 20 else 5
    for place in range(0, columns, step):
        middle = x + (place + 0.5) * cell[0]
        canvas.text(middle, y + height + 0.05, str(place + 1), ha="center", va="top", fontsize=7.5)
    for ink, places in _rings(history, block).items():
        adapters, experiences = np.array(places).T + 0.5
        canvas.plot(
            x + adapters * cell[0],
            y + experiences * cell[1],
            linestyle="none",
            marker="o",
            markersize=3.5,
            markerfacecolor="none",
            markeredgecolor=ink,
        )


def _rings(history: History, block: int) -> dict[str, list[tuple[int, int]]]:
    # Adapter and experience of each ring, by its ink.
    weights = history.router[block]
    inks: dict[str, list[tuple[int, int]]] = {}
    for t in range(len(weights)):
        adapter = history.active.get((t, block), (None, False))[0]
        if adapter is not None and adapter < weights.shape[1]:
            ink = ON_LIGHT if weights[t, adapter] > 0.55 else ON_DARK
            inks.setdefault(ink, []).append((adapter, t))
    return inks
