"""Draws the pictures of `docs/family.md` from its tables: `python docs/draw_family.py`.

`figures/family.png` shows how accurate each method ends on each stream, with its interval, and
`figures/family-cost.png` what that costs in numbers beside the frozen network.
"""  # noqa: INP001 - no package

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from matplotlib.figure import Figure

from cl_adapters.reports.figures.files import figure_style, save_figure
from cl_adapters.reports.looks import CurveStyle, Method, method_looks
from cl_adapters.reports.pareto import frontier

DOCS: Final = Path(__file__).resolve().parent
_TABLE: Final = re.compile(r"^\| Method \|.*\n\|[ :|-]+\n((?:\|.*\n)+)", re.MULTILINE)
_SECTION: Final = re.compile(r"^## (.*)$", re.MULTILINE)
_NOTE: Final = "Bars: 95 % intervals over class orders. Filled: the default; hollow: an option."


Box = tuple[float, float, float, float]  # left, bottom, right, top


class Entry(NamedTuple):
    """A row of a table.

    Attributes:
        name: As the table writes it, without italics.
        method: The strategy, and what tells its rows apart.
        accuracy: A_last in per cent.
        half: Half of its interval; 0 without one.
        numbers: What it adds to the frozen network.
    """

    name: str
    method: Method
    accuracy: float
    half: float
    numbers: float


def entries(table: str) -> list[Entry]:
    """Returns the rows of a table of `docs/family.md`, without its heading."""
    found = []
    for line in table.splitlines():
        name, last, _, _, numbers, *_ = (cell.strip(" *") for cell in line.strip("|").split("|"))
        middle, _, half = last.partition(" ± ")
        plain = name.replace(", one seed", "")
        strategy, _, variant = plain.partition(" ")
        method = Method(strategy, "" if "bound" in variant else variant)
        found.append(
            Entry(plain, method, float(middle), float(half or 0), float(re.sub(r"\D", "", numbers)))
        )
    return found


def streams(page: str) -> dict[str, list[Entry]]:
    """Returns the rows of each stream's table, by the heading above it."""
    headings = list(_SECTION.finditer(page))
    found: dict[str, list[Entry]] = {}
    for table in _TABLE.finditer(page):
        above = [each[1] for each in headings if each.start() < table.start()]
        found[above[-1]] = entries(table[1])
    return found


def _looks(shown: dict[str, list[Entry]]) -> dict[Method, CurveStyle]:
    return method_looks({each.method for rows in shown.values() for each in rows})


def _mark(entry: Entry, looks: dict[Method, CurveStyle]) -> dict[str, Any]:
    look = looks[entry.method]
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": 6,
        "linestyle": "none",
        "markerfacecolor": "none" if entry.method.variant else look.colour,
    }


def accuracy_figure(shown: dict[str, list[Entry]]) -> Figure:
    """Returns how accurate each method ends, best first, a column for each stream."""
    looks, most = _looks(shown), max(len(rows) for rows in shown.values())
    figure = Figure(figsize=(5 * len(shown), 0.9 + 0.23 * most), layout="constrained")
    for place, (stream, rows) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(1, len(shown), place)
        ordered = sorted(rows, key=lambda each: each.accuracy)
        for height, each in enumerate(ordered, start=most - len(ordered)):
            axes.errorbar(
                each.accuracy, height, xerr=each.half or None, elinewidth=1, **_mark(each, looks)
            )
        heights = range(most - len(ordered), most)
        axes.set_yticks(heights, [each.name for each in ordered], fontsize=8)
        axes.set_ylim(-0.7, most - 0.3)
        axes.set_xlabel("A_last (%)")
        axes.set_title(stream, fontsize=10, loc="left")
        axes.grid(visible=True, axis="x", alpha=0.3)
    figure.supxlabel(_NOTE, fontsize=8)
    return figure


def cost_figure(stream: str, rows: Sequence[Entry]) -> Figure:
    """Returns accuracy against added numbers; a line joins what nothing beats in both."""
    looks = _looks({stream: list(rows)})
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(each.numbers for each in rows) / 2, max(each.numbers for each in rows) * 8
    axes.set_xlim(low, high)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    for each in rows:
        axes.plot(each.numbers, each.accuracy, **_mark(each, looks))
    best = frontier([each.numbers for each in rows], [each.accuracy for each in rows])
    line = [rows[number] for number in best]
    axes.plot(
        [each.numbers for each in line], [each.accuracy for each in line],
        color="#777777", linewidth=1, zorder=0,
    )  # fmt: skip
    axes.set_xlabel("numbers added to the frozen network")
    axes.set_ylabel("A_last (%)")
    axes.set_title(stream, fontsize=10, loc="left")
    axes.grid(visible=True, alpha=0.3)
    figure.draw_without_rendering()
    boxes = [_box(axes.transData.transform((each.numbers, each.accuracy)), 4, 4) for each in rows]
    for each in sorted(rows, key=lambda row: -row.accuracy):
        _label(axes, each, boxes)
    return figure


def _label(axes: Any, entry: Entry, boxes: list[Box]) -> None:  # noqa: ANN401 - matplotlib's
    """Writes a name where nothing is yet: to the right, else further up or down, else left."""
    scale = axes.figure.dpi / 72
    x, y = axes.transData.transform((entry.numbers, entry.accuracy))
    half = 0.5 * 3.9 * len(entry.name)  # of a letter at 7 points, about
    for aside, up in ((8, 0), (8, 8), (8, -8), (-8, 0), (8, 16), (8, -16), (-8, 9), (-8, -9)):
        middle = aside + (half if aside > 0 else -half)
        box = _box((x + scale * middle, y + scale * up), scale * half, scale * 3.8)
        if not any(_meet(box, other) for other in boxes):
            break
    boxes.append(box)
    axes.annotate(
        entry.name, (entry.numbers, entry.accuracy), (aside, up), fontsize=7,
        textcoords="offset points", va="center", ha="left" if aside > 0 else "right",
    )  # fmt: skip


def _box(middle: Sequence[float], width: float, height: float) -> Box:
    return middle[0] - width, middle[1] - height, middle[0] + width, middle[1] + height


def _meet(one: Box, other: Box) -> bool:
    return all(one[k] < other[k + 2] and other[k] < one[k + 2] for k in (0, 1))


def main() -> None:
    """Draws them."""
    found = streams((DOCS / "family.md").read_text("utf-8"))
    shown = {name: rows for name, rows in found.items() if any(each.half for each in rows)}
    name, rows = next(iter(shown.items()))
    is_bound = {"joint", "finetune"}
    with figure_style():
        save_figure(accuracy_figure(shown), DOCS / "figures" / "family", ["png"])
        learned = [each for each in rows if each.method.strategy not in is_bound]
        save_figure(cost_figure(name, learned), DOCS / "figures" / "family-cost", ["png"])
    for each in ("family", "family-cost"):
        (DOCS / "figures" / f"{each}.svg").unlink()


if __name__ == "__main__":
    main()
