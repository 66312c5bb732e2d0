"""The timeline of growth: which block grew at which experience, score against threshold.

Call inside `files.figure_style()`. Experiences and adapters are counted from 1 in figures,
blocks from 0, as timm counts them.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from cl_adapters.reports.figures.cells import Scale, draw_scale, inches
from cl_adapters.reports.figures.parts import MOST_SEEDS, ON_DARK, ON_LIGHT, mark_mixed, short_label
from cl_adapters.reports.figures.seams import draw_seams, seam_key
from cl_adapters.reports.figures.ticks import data_ticks
from cl_adapters.reports.groups import Group, Row, clean_text
from cl_adapters.reports.growth import History, strain
from cl_adapters.reports.looks import COLOURS

__all__ = ["timeline_figure"]

_MOST_NUMBERED: Final = 24  # experiences up to which each marker carries its adapter
_STRAINS: Final = colormaps["PuOr_r"]
_NOT_SCANNED: Final = "#DDDDDD"
_SHADES: Final = 24  # between no strain and firing
_KEYS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "grown",
        "grew; number: {} used",
        {"marker": "s", "markeredgecolor": "#000000", "markeredgewidth": 1.9},
    ),
    ("kept", "did not grow; number: {} used", {"marker": "o", "markersize": 8}),
    ("refused", "all detectors fired, yet not grown", {"marker": "D"}),
    ("first", "first {}", {"marker": "s", "markerfacecolor": _NOT_SCANNED}),
    ("blind", "not scanned", {"marker": "_", "markeredgecolor": "#777777"}),
    (
        "left",
        "detector of the active {} fired",
        {"marker": "v", "markerfacecolor": "#000000", "markeredgecolor": "#000000"},
    ),
)
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _ROW, _GAP = 8.6, 1.0, 1.05, 1.28, 0.34, 0.14  # inches


def timeline_figure(
    group: Group, row: Row, histories: Sequence[History], most: int = MOST_SEEDS
) -> Figure:
    """Draws one panel a seed: score against threshold and growth of each block, over experiences.

    Args:
        group: What the method is compared with.
        row: The method.
        histories: Of the runs of the method.
        most: Runs that are drawn; of more, the first.
    """
    shown = list(zip(row.seeds, histories, strict=True))[:most]
    heads = _heads([history for _, history in shown])
    sizes = [_ROW * (len(history.blocks) + 1) for _, history in shown]
    top = 0.62 if group.mixed else 0.34
    depth = sum(sizes) + sum(heads) + _GAP * (len(shown) - 1)
    height = top + depth + _BOTTOM
    figure = Figure((_WIDTH, height))
    mark_mixed(figure, group)
    title = f"{short_label(row.label, 60)}, {group.seeds_text(row)}"
    title += f"; here the first{f' {most}' * (most > 1)}" if len(shown) < len(histories) else ""
    figure.text(_LEFT / _WIDTH, 1 - (top - 0.06) / height, title, fontsize=10, va="bottom")
    place = height - top
    width = _WIDTH - _LEFT - _RIGHT
    for (seed, history), size, head in zip(shown, sizes, heads, strict=True):
        place -= head + size
        box = (_LEFT / _WIDTH, place / height, width / _WIDTH, size / height)
        axes = figure.add_axes(box, label=f"seed {seed}")
        _panel(axes, history, seed, is_last=seed == shown[-1][0])
        draw_seams(axes, [seam - 0.5 for seam in row.seams], label="")
        if head:
            _name_domains(axes, history, size)
        place -= _GAP
    if any(history.scans for _, history in shown):
        _strain_bar(figure, top + heads[0], float(np.clip(sum(sizes), 1.05, 1.9)))
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


def _panel(axes: Axes, history: History, seed: int, *, is_last: bool) -> None:
    # Labels and frame are drawn by hand: ticks would take longer than all the rest.
    lines, length = len(history.blocks) + 1, history.num_experiences
    axes.set_axis_off()
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(lines - 0.5, -0.5)
    cell = (_WIDTH - _LEFT - _RIGHT) / length  # inches
    _bands(axes, history)
    _cells(axes, history)
    left = [t for t in range(1, length) if history.has_left(t)]
    if left:
        axes.plot(left, [0] * len(left), "v", color="#000000", markersize=5, label="_left")
    frame = ([-0.5, -0.5, length - 0.5], [-0.5, lines - 0.5, lines - 0.5])
    axes.plot(*frame, color="#444444", linewidth=0.8, clip_on=False)
    names = ["change seen", *(history.place(block) for block in history.blocks)]
    for line, name in enumerate(names):
        axes.text(
            -0.5 - 0.05 / cell, line, name, ha="right", va="center_baseline", fontsize=8
        )  # fmt: skip
    middle = (lines - 1) / 2
    axes.text(-0.5 - 0.93 / cell, middle, f"seed {seed}", rotation=90, va="center", fontsize=9)
    if not is_last:
        return
    below = lines - 0.5
    for number in data_ticks(range(1, length + 1), _MOST_NUMBERED):
        axes.text(number - 1, below + 0.15, str(number), ha="center", va="top", fontsize=8)
    axes.text((length - 1) / 2, below + 0.62, "Experience", ha="center", va="top", fontsize=10)


def _bands(axes: Axes, history: History) -> None:
    order = list(dict.fromkeys(name for _, name in _names(history)))
    tints = {
        t: (order.index(event.domain), float(np.clip(event.severity * event.share, 0, 1)))
        for t, event in sorted(history.domains.items())
    }
    for (number, strength), stretch in groupby(tints, key=tints.__getitem__):
        times = list(stretch)
        axes.axvspan(
            times[0] - 0.5,
            times[-1] + 0.5,
            facecolor=COLOURS[number % len(COLOURS)],
            alpha=0.1 + 0.16 * strength,
            hatch=("", "///", "...", "xxx")[number // len(COLOURS) % 4],
            edgecolor="#FFFFFF",
            linewidth=0,
            zorder=0,
            label=f"_domain {number}",
        )
    changes = [t - 0.5 for t, event in sorted(history.domains.items()) if event.changed and t > 0]
    if changes:
        ends = axes.get_ylim()
        axes.vlines(changes, *ends, color="#333333", linewidth=1.1, zorder=1, label="_change")


def _cells(axes: Axes, history: History) -> None:
    # Cells that look alike are drawn at once: one by one they would take most of the time.
    alike: dict[tuple[str, float], list[tuple[int, int]]] = {}
    numbers: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for line, block in enumerate(history.blocks, start=1):
        for t in range(history.num_experiences):
            state, level = _look(history, t, block)
            alike.setdefault((state, level), []).append((t, line))
            adapter = history.active.get((t, block), (None, False))[0]
            if adapter is not None and state != "blind":
                ink = ON_DARK if level >= 0 and abs(level - 1) > 0.62 else ON_LIGHT
                numbers.setdefault((adapter + 1, ink), []).append((t, line))
    for (state, level), places in alike.items():
        x, y = zip(*places, strict=True)
        axes.plot(x, y, linestyle="none", label=f"_{state}", **_marker(history, state, level))
    if history.num_experiences <= _MOST_NUMBERED:
        for (number, ink), places in numbers.items():
            x, y = zip(*places, strict=True)
            shape, size = _numeral(number)
            look: dict[str, Any] = {"marker": shape, "markersize": size, "color": ink, "zorder": 4}
            axes.plot(x, y, linestyle="none", markeredgewidth=0, label=f"_{number}", **look)


@cache
def _numeral(number: int) -> tuple[Path, float]:
    # A number as a marker, and the size that makes it 7.5 points high: many of them are drawn in
    # the time of a few texts.
    outline = TextPath((0, 0), str(number), size=7.5, prop=FontProperties(family="DejaVu Sans"))
    points = outline.vertices - outline.get_extents().get_points().mean(axis=0)
    return Path(points, outline.codes), 2 * float(np.abs(points).max())


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


def _state(history: History, t: int, block: int) -> str:
    if (t, block) in history.growths:
        return "grown"
    if t == 0:
        return "first"
    if (t, block) not in history.cells:
        return "blind"
    return "refused" if any(scan.fired for scan in history.cells[t, block]) else "kept"


def _strain_bar(figure: Figure, top: float, size: float) -> None:
    box = (_WIDTH - _RIGHT + 0.18, top, 0.15, size)
    axes = inches(figure, box)
    labels = [(0.0, "≤ 0"), (0.25, "0.5"), (0.5, "1"), (0.75, "1.5"), (1.0, "≥ 2")]
    title = "Score / threshold"
    draw_scale(axes, box, Scale(title=title, colours=_STRAINS, labels=labels, name="strain"))
    axes.plot([box[0], box[0] + box[2]], [top + size / 2] * 2, color="#010101", linewidth=1)


def _legend(figure: Figure, histories: Sequence[History]) -> None:
    # Only what is drawn is explained.
    drawn = {artist.get_label() for axes in figure.axes for artist in axes.get_children()}
    plain: dict[str, Any] = {
        "markerfacecolor": "#FFFFFF",
        "markeredgecolor": "#555555",
        "color": "#000000",
    }
    unit = "set" if all(history.is_whole for history in histories) else "adapter"
    handles = [
        Line2D([], [], linestyle="none", label=label.format(unit), **{**plain, **look})
        for state, label, look in _KEYS
        if f"_{state}" in drawn
    ]
    if "_change" in drawn:
        change = Line2D([], [], color="#333333", linewidth=1.1, label="true change of the domain")
        handles.append(change)
    if "_seam" in drawn:
        handles.append(seam_key())
    if any(history.domains for history in histories):
        tint = Line2D([], [], color=COLOURS[0], linewidth=7, alpha=0.26, label="one tint a domain")
        handles.append(tint)
    top = (_BOTTOM - 0.48) / figure.get_figheight()
    look = {"ncols": 2, "fontsize": 8, "handlelength": 1.6, "bbox_to_anchor": (0.5, top)}
    figure.legend(handles=handles, loc="upper center", **look)
