"""The heat map of a router: how much the test images of each experience use each adapter.

Call inside `files.figure_style()`. Counted as in `timeline`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cl_adapters.reports.figures.parts import ON_DARK, ON_LIGHT, mark_mixed, short_label
from cl_adapters.reports.groups import Group, Row, clean_text
from cl_adapters.reports.growth import Floats, History

__all__ = ["MOST_ROUTED_SEEDS", "router_figure"]

MOST_ROUTED_SEEDS: Final = 3
_BLOCKS_A_LINE: Final = 4
_COLOURS: Final = colormaps["cividis"]
_BETWEEN, _BELOW, _BOTTOM, _RIGHT = 0.22, 0.42, 0.5, 0.95  # inches


@dataclass(frozen=True)
class _Layout:
    # Placed by hand, in inches: cells keep their size whatever the number of adapters.
    lines: list[tuple[int, History, list[int]]]
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


def _layout(shown: Sequence[tuple[int, History]], top: float) -> _Layout:
    blocks = sorted({block for _, history in shown for block in history.router})
    pieces = [blocks[i : i + _BLOCKS_A_LINE] for i in range(0, len(blocks), _BLOCKS_A_LINE)]
    adapters = {
        block: max(
            history.router[block].shape[1] for _, history in shown if block in history.router
        )
        for block in blocks
    }
    num_rows = max(len(weights) for _, history in shown for weights in history.router.values())
    longest = max(len(label) for _, history in shown for label in _labels(history))
    most = max(sum(adapters[block] for block in piece) for piece in pieces)
    lines = [(seed, history, piece) for seed, history in shown for piece in pieces]
    size = float(np.clip(3.2 / num_rows, 0.15, 0.26)) * num_rows
    return _Layout(
        lines=lines,
        adapters=adapters,
        cell=float(np.clip(6.0 / most, 0.13, 0.3)),
        size=max(size, 1.1 if len(lines) == 1 else 0.5),  # room for the label of the colour bar
        left=0.75 + 0.062 * longest,
        top=top,
    )


def router_figure(group: Group, row: Row, histories: Sequence[History]) -> Figure:
    """Draws the mean router weights after the last experience, one panel a seed and block.

    Args:
        group: What the method is compared with.
        row: The method.
        histories: Of its runs, at least one with a router; of more than `MOST_ROUTED_SEEDS` the
            first are drawn.
    """
    routed = [pair for pair in zip(row.seeds, histories, strict=True) if pair[1].router]
    layout = _layout(routed[:MOST_ROUTED_SEEDS], 0.8 if group.mixed else 0.56)
    width = max(layout.left + layout.body + _RIGHT, 4.6)
    height = layout.top + layout.depth + _BOTTOM
    figure = Figure((width, height))
    mark_mixed(figure, group)
    title = f"{short_label(row.label, 44)}, router after the last experience"
    figure.text(0.1 / width, 1 - (layout.top - 0.3) / height, title, fontsize=9.5, va="bottom")
    for number, (seed, history, piece) in enumerate(layout.lines):
        base = height - layout.top - number * (layout.size + _BELOW) - layout.size
        x = layout.left
        for block in piece:
            size = (layout.widths[block] / width, layout.size / height)
            axes = figure.add_axes((x / width, base / height, *size))
            _panel(axes, history, block, layout.adapters[block])
            axes.set_title(f"block {block}", fontsize=8.5, pad=3)
            x += layout.widths[block] + _BETWEEN
            if block == piece[0]:
                axes.set_ylabel(f"seed {seed}\nTest experience", fontsize=8.5)
            else:
                axes.set_yticks([])
    for number, axes in enumerate(figure.axes):
        for image in axes.images:
            image.set_gid(f"weights-{number}")  # equal images would share an id on the page
    label = "Adapter (ring: where the experience was put in training)"
    figure.text(0.5, 0.1 / height, label, ha="center", fontsize=9)
    _weight_bar(figure, layout)
    return figure


def _weight_bar(figure: Figure, layout: _Layout) -> None:
    width, height = figure.get_size_inches()
    span, x = min(layout.depth, 2.6), layout.left + layout.body + 0.18
    place = (x / width, (height - layout.top - span) / height, 0.15 / width, span / height)
    scale = ScalarMappable(Normalize(0, 1), _COLOURS)
    bar = figure.colorbar(scale, cax=figure.add_axes(place), ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_label("Mean weight", fontsize=8.5)


def _labels(history: History) -> list[str]:
    # A test experience by number, and by domain where the truth is known.
    names = {t: clean_text(event.domain, 14) for t, event in history.domains.items()}
    return [
        f"{t + 1}: {names[t]}" if t in names else f"{t + 1}" for t in range(history.num_experiences)
    ]


def _panel(axes: Axes, history: History, block: int, most: int) -> None:
    weights: Floats = history.router.get(block, np.empty((0, 0)))
    if weights.size:
        axes.imshow(weights, cmap=_COLOURS, norm=Normalize(0, 1), aspect="auto")
        _rings(axes, history, block)
    axes.set_xlim(-0.5, max(most, 1) - 0.5)
    axes.set_ylim(max(len(weights), 1) - 0.5, -0.5)
    step = 1 if most <= 8 else 2 if most <= 20 else 5
    places = range(0, weights.shape[1], step)
    axes.set_xticks(places, [str(place + 1) for place in places])
    step = 1 if len(weights) <= 20 else -(-len(weights) // 20)
    rows = range(0, len(weights), step)
    labels = _labels(history)
    axes.set_yticks(rows, [labels[t] for t in rows])
    axes.tick_params(length=0, labelsize=7.5)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _rings(axes: Axes, history: History, block: int) -> None:
    weights = history.router[block]
    inks: dict[str, list[tuple[int, int]]] = {}
    for t in range(len(weights)):
        adapter = history.active.get((t, block), (None, False))[0]
        if adapter is not None and adapter < weights.shape[1]:
            ink = ON_LIGHT if weights[t, adapter] > 0.55 else ON_DARK
            inks.setdefault(ink, []).append((adapter, t))
    look: dict[str, Any] = {
        "marker": "o",
        "markersize": 3.5,
        "markerfacecolor": "none",
        "linestyle": "none",
    }
    for ink, places in inks.items():
        x, y = zip(*places, strict=True)
        axes.plot(x, y, markeredgecolor=ink, **look)
