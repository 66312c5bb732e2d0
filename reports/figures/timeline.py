"""The timeline of growth: which block grew at which experience, score against threshold.

Call inside `files.figure_style()`. Experiences and adapters are counted from 1 in figures,
blocks from 0, as timm counts them.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cl_adapters.reports.figures.parts import (
    COLOURS,
    ON_DARK,
    ON_LIGHT,
    mark_mixed,
    short_label,
)
from cl_adapters.reports.groups import Group, Row, clean_text
from cl_adapters.reports.growth import History, strain

__all__ = ["MOST_SEEDS", "timeline_figure"]

MOST_SEEDS: Final = 6  # panels of a timeline
_MOST_NUMBERED: Final = 24  # experiences up to which each marker carries its adapter
_STRAINS: Final = colormaps["PuOr_r"]
_NOT_SCANNED: Final = "#DDDDDD"
_SHADES: Final = 24  # between no strain and firing
_KEYS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "grown",
        "block grew; number: adapter used",
        {"marker": "s", "markeredgecolor": "#000000", "markeredgewidth": 1.9},
    ),
    ("kept", "block did not grow; number: adapter used", {"marker": "o", "markersize": 8}),
    ("refused", "all detectors fired, yet not grown", {"marker": "D"}),
    ("first", "first adapter", {"marker": "s", "markerfacecolor": _NOT_SCANNED}),
    ("blind", "not scanned", {"marker": "_", "markeredgecolor": "#777777"}),
    (
        "left",
        "detector of the active adapter fired",
        {"marker": "v", "markerfacecolor": "#000000", "markeredgecolor": "#000000"},
    ),
)
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _ROW, _GAP = 8.6, 1.0, 1.05, 1.28, 0.34, 0.14  # inches


def timeline_figure(group: Group, row: Row, histories: Sequence[History]) -> Figure:
    """Draws one panel a seed: score against threshold and growth of each block, over experiences.

    Args:
        group: What the method is compared with.
        row: The method.
        histories: Of the runs of the method; of more than `MOST_SEEDS` the first are drawn.
    """
    shown = list(zip(row.seeds, histories, strict=True))[:MOST_SEEDS]
    heads = _heads([history for _, history in shown])
    sizes = [_ROW * (len(history.blocks) + 1) for _, history in shown]
    top = 0.62 if group.mixed else 0.34
    depth = sum(sizes) + sum(heads) + _GAP * (len(shown) - 1)
    height = top + depth + _BOTTOM
    figure = Figure((_WIDTH, height))
    mark_mixed(figure, group)
    title = f"{short_label(row.label, 60)}, {group.seeds_text(row)}"
    figure.text(_LEFT / _WIDTH, 1 - (top - 0.06) / height, title, fontsize=10, va="bottom")
    place = height - top
    width = _WIDTH - _LEFT - _RIGHT
    for (seed, history), size, head in zip(shown, sizes, heads, strict=True):
        place -= head + size
        box = (_LEFT / _WIDTH, place / height, width / _WIDTH, size / height)
        axes = figure.add_axes(box)
        _panel(axes, history, is_last=seed == shown[-1][0])
        axes.set_ylabel(f"seed {seed}", fontsize=9)
        if head:
            _name_domains(axes, history, size)
        place -= _GAP
    if any(history.scans for _, history in shown):
        _strain_bar(figure, height - top - heads[0], float(np.clip(sum(sizes), 1.05, 1.9)))
    _legend(figure, [history for _, history in shown])
    return figure


def _heads(histories: Sequence[History]) -> list[float]:
    # Inches above each panel for the names of its domains: once if they are those of all seeds.
    is_shared = len({_names(history) for history in histories}) == 1
    return [
        _head(history) if number == 0 or not is_shared else 0.0
        for number, history in enumerate(histories)
    ]


def _names(history: History) -> tuple[tuple[int, str], ...]:
    return tuple((t, event.domain) for t, event in sorted(history.domains.items()))


def _spans(history: History) -> list[tuple[int, int, str]]:
    # First and last experience of each stretch of one domain.
    found = []
    for name, stretch in groupby(_names(history), key=lambda pair: pair[1]):
        times = [t for t, _ in stretch]
        found.append((times[0], times[-1], clean_text(name, 20)))
    return found


def _is_flat(history: History) -> bool:
    cell = (_WIDTH - _LEFT - _RIGHT) / history.num_experiences
    return all(0.075 * len(name) < (end - start + 1) * cell for start, end, name in _spans(history))


def _head(history: History) -> float:
    # Inches above a panel for the names of its domains.
    if not history.domains or _is_flat(history):
        return 0.2 * bool(history.domains)
    return 0.15 + 0.052 * max(len(name) for _, _, name in _spans(history))


def _name_domains(axes: Axes, history: History, size: float) -> None:
    is_flat = _is_flat(history)
    kwargs: dict[str, Any] = {"ha": "center"} if is_flat else {"ha": "left", "rotation": 45}
    if not is_flat:
        kwargs["rotation_mode"] = "anchor"
    for start, end, name in _spans(history):
        axes.annotate(
            name,
            ((start + end) / 2, 1 + 0.05 / size),
            xycoords=("data", "axes fraction"),
            va="bottom",
            fontsize=8,
            annotation_clip=False,
            **kwargs,
        )


def _panel(axes: Axes, history: History, *, is_last: bool) -> None:
    blocks = history.blocks
    _bands(axes, history)
    _cells(axes, history)
    left = [t for t in range(1, history.num_experiences) if history.has_left(t)]
    if left:
        axes.plot(left, [0] * len(left), "v", color="#000000", markersize=5, label="_left")
    axes.set_ylim(len(blocks) + 0.5, -0.5)
    axes.set_xlim(-0.5, history.num_experiences - 0.5)
    axes.set_yticks(
        range(len(blocks) + 1), ["change seen", *(f"block {block}" for block in blocks)]
    )
    step = 1 if history.num_experiences <= _MOST_NUMBERED else -(-history.num_experiences // 20)
    places = range(step - 1, history.num_experiences, step)
    axes.set_xticks(places, [str(place + 1) for place in places] if is_last else [])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(visible=False)
    if is_last:
        axes.set_xlabel("Experience")


def _bands(axes: Axes, history: History) -> None:
    order = list(dict.fromkeys(name for _, name in _names(history)))
    for t, event in history.domains.items():
        number = order.index(event.domain)
        axes.axvspan(
            t - 0.5,
            t + 0.5,
            facecolor=COLOURS[number % len(COLOURS)],
            alpha=0.1 + 0.16 * float(np.clip(event.severity * event.share, 0, 1)),
            hatch=("", "///", "...", "xxx")[number // len(COLOURS) % 4],
            edgecolor="#FFFFFF",
            linewidth=0,
            zorder=0,
            label=f"_domain {number}",
        )
        if event.changed and t > 0:
            axes.axvline(t - 0.5, color="#333333", linewidth=1.1, zorder=1, label="_change")


def _cells(axes: Axes, history: History) -> None:
    # Cells that look alike are drawn at once: one by one they would take most of the time.
    alike: dict[tuple[str, float], list[tuple[int, int]]] = {}
    for line, block in enumerate(history.blocks, start=1):
        for t in range(history.num_experiences):
            state, level = _look(history, t, block)
            alike.setdefault((state, level), []).append((t, line))
            if state != "blind":
                _number(axes, history, (t, block), line, level)
    for (state, level), places in alike.items():
        x, y = zip(*places, strict=True)
        axes.plot(x, y, linestyle="none", label=f"_{state}", **_marker(history, state, level))


def _look(history: History, t: int, block: int) -> tuple[str, float]:
    scans = history.cells.get((t, block), ())
    state = _state(history, t, block)
    if not scans:
        return state, math.nan if state == "blind" else -1.0
    strains = [strain(scan.scores[scan.adapter], scan.thresholds[scan.adapter]) for scan in scans]
    level = float(np.clip(max(strains), 0, 2))
    # Colours that no eye tells apart are one; 1, where a detector fires, stays exactly itself.
    return state, 1 + round((level - 1) * _SHADES) / _SHADES


def _marker(history: History, state: str, level: float) -> dict[str, Any]:
    if state == "blind":
        return {"marker": "_", "color": "#777777", "markersize": 6}
    shape, size = {"kept": ("o", 13.5), "refused": ("D", 10.5)}.get(state, ("s", 13.0))
    is_grown = state == "grown"
    return {
        "marker": shape,
        "markersize": size if history.num_experiences <= _MOST_NUMBERED else 0.55 * size,
        "markerfacecolor": _NOT_SCANNED if level < 0 else _STRAINS(level / 2),
        "markeredgecolor": "#000000" if is_grown else "#555555",
        "markeredgewidth": 1.9 if is_grown else 0.7,
        "zorder": 3,
    }


def _number(axes: Axes, history: History, cell: tuple[int, int], line: int, level: float) -> None:
    adapter = history.active.get(cell, (None, False))[0]
    if adapter is None or history.num_experiences > _MOST_NUMBERED:
        return
    ink = ON_DARK if level >= 0 and abs(level - 1) > 0.62 else ON_LIGHT
    kwargs: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": 7.5,
        "color": ink,
        "zorder": 4,
    }
    axes.text(cell[0], line + 0.03, str(adapter + 1), **kwargs)


def _state(history: History, t: int, block: int) -> str:
    if (t, block) in history.growths:
        return "grown"
    if t == 0:
        return "first"
    if (t, block) not in history.cells:
        return "blind"
    return "refused" if any(scan.fired for scan in history.cells[t, block]) else "kept"


def _strain_bar(figure: Figure, top: float, size: float) -> None:
    height = figure.get_figheight()
    box = ((_WIDTH - _RIGHT + 0.18) / _WIDTH, (top - size) / height, 0.15 / _WIDTH, size / height)
    bar_axes = figure.add_axes(box)
    scale = ScalarMappable(Normalize(0, 2), _STRAINS)
    bar = figure.colorbar(scale, cax=bar_axes, ticks=[0, 0.5, 1, 1.5, 2])
    bar.ax.set_yticklabels(["≤ 0", "0.5", "1", "1.5", "≥ 2"], fontsize=8)
    bar.set_label("Score / threshold", fontsize=8.5)
    bar.ax.axhline(1, color="#000000", linewidth=1)


def _legend(figure: Figure, histories: Sequence[History]) -> None:
    # Only what is drawn is explained.
    drawn = {artist.get_label() for axes in figure.axes for artist in axes.get_children()}
    plain: dict[str, Any] = {
        "markerfacecolor": "#FFFFFF",
        "markeredgecolor": "#555555",
        "color": "#000000",
    }
    handles = [
        Line2D([], [], linestyle="none", label=label, **{**plain, **look})
        for state, label, look in _KEYS
        if f"_{state}" in drawn
    ]
    if "_change" in drawn:
        change = Line2D([], [], color="#333333", linewidth=1.1, label="true change of the domain")
        handles.append(change)
    if any(history.domains for history in histories):
        tint = Line2D([], [], color=COLOURS[0], linewidth=7, alpha=0.26, label="one tint a domain")
        handles.append(tint)
    top = (_BOTTOM - 0.48) / figure.get_figheight()
    look = {"ncols": 2, "fontsize": 8, "handlelength": 1.6, "bbox_to_anchor": (0.5, top)}
    figure.legend(handles=handles, loc="upper center", **look)
