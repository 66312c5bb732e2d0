"""How each method looks in every figure: a colour and a marker that belong to its name.

The colours are as dark as they may be to stand out from white and as light as they may be to stand
out from a dark page, 3 : 1 from both. So narrow a range of lightness leaves readers who see no red
or no green three sides of hues, each told from the others, and black; `SIDES` holds them. On one
side a marker belongs to one method: whoever takes two methods' colours for one sees two markers.

Built-in methods have their places in a table, also those that an installed version lacks. All other
names take a place that is left, by their digest. Variants of one method, which differ in options,
keep its colour and differ in how the line is broken and how the marker is filled.
"""

from collections.abc import Iterable, Iterator
from itertools import count, product
from typing import Any, Final, NamedTuple

from cl_adapters.records.files import digest

__all__ = ["COLOURS", "MARKERS", "SIDES", "CurveStyle", "Method", "method_looks"]

_BLUE, _VIOLET, _ORANGE, _GOLD = "#0F73C4", "#8E5BD8", "#D55E00", "#A07800"
_GREEN, _ROSE, _INK = "#008F68", "#C2558F", "#000000"
# For what is no method, such as a phase or an expert.
COLOURS: Final = (_BLUE, _ORANGE, _GREEN, _ROSE, _GOLD, _VIOLET, _INK)
SIDES: Final = ((_BLUE, _VIOLET), (_ORANGE, _GOLD), (_GREEN, _ROSE), (_INK,))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*", ">", "d", "<", "p")
_LINES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (9, 2)))
_FILLS: Final = ("full", "none", "left", "top", "right", "bottom")

_BUILT_IN: Final = {
    "finetune": (_ROSE, "v"),
    "joint": (_GOLD, "*"),
    "simplecil": (_INK, "s"),
    "lae": (_BLUE, "o"),
    "mos": (_ORANGE, "^"),
    "sema": (_GREEN, "D"),
    "ranpac": (_VIOLET, "P"),
    "aper": (_GOLD, "s"),
    "fecam": (_ROSE, "X"),
    "ease": (_BLUE, "v"),
    "loranpac": (_VIOLET, "d"),
    "l2p": (_ORANGE, ">"),
    "dualprompt": (_ORANGE, "<"),
    "coda_prompt": (_GOLD, "d"),
    "hide_prompt": (_GOLD, "X"),
    "inflora": (_GREEN, "p"),
    "sd_lora": (_GREEN, "<"),
    "cl_lora": (_GOLD, "v"),
    "slca": (_ROSE, "*"),
    "cofima": (_VIOLET, "*"),
    "ssiat": (_BLUE, "p"),
    "tuna": (_ORANGE, "o"),
    "acmap": (_GOLD, "P"),
}


class CurveStyle(NamedTuple):
    """How the curves of one method look.

    Attributes:
        colour: As `#RRGGBB`.
        marker: Matplotlib's sign of it.
        line: Matplotlib's line style.
        fill: How much of the marker is filled, in matplotlib's words.
    """

    colour: str
    marker: str
    line: Any
    fill: str = "full"


class Method(NamedTuple):
    """A strategy, and what tells its variants apart; empty where there is one."""

    strategy: str
    variant: str = ""


_Place = tuple[int, str]  # number of the side, and marker


def method_looks(methods: Iterable[Method]) -> dict[Method, CurveStyle]:
    """Returns the look of each method that stands in one report; no two are alike.

    Colour and marker of a built-in method are always the same. Those of another name are too,
    unless it meets one with the same place: then the second by name takes the next.

    Args:
        methods: Each at least once.
    """
    shown = set(methods)
    looks: dict[Method, CurveStyle] = {}
    taken: set[_Place] = set()
    # Built-in ones first: they never make room.
    for name in sorted(
        {each.strategy for each in shown}, key=lambda name: (not _known(name), name)
    ):
        colour, marker = _known(name) or _foreign(name, taken)
        side = _side(colour)
        others = {each for at, each in taken if at == side}
        for method in sorted(each for each in shown if each.strategy == name):
            styles = _styles(colour, marker, others)
            looks[method] = next(each for each in styles if each not in looks.values())
            taken.add((side, looks[method].marker))
    return looks


def _known(name: str) -> tuple[str, str] | None:
    return _BUILT_IN.get(name.lower().replace("-", "_"))


def _side(colour: str) -> int:
    return next(number for number, colours in enumerate(SIDES) if colour in colours)


def _styles(colour: str, marker: str, taken: set[str]) -> Iterator[CurveStyle]:
    # Beyond six variants free markers of the same side; beyond 72 whatever is left.
    start = MARKERS.index(marker)
    ring = [*MARKERS[start + 1 :], *MARKERS[:start]]
    for each in (marker, *(other for other in ring if other not in taken)):
        for line, fill in zip(_LINES, _FILLS, strict=True):
            yield CurveStyle(colour, each, line, fill)
    for each, line, fill in product((marker, *ring), _LINES, _FILLS):
        yield CurveStyle(colour, each, line, fill)
    yield from (CurveStyle(colour, marker, (0, (dash, 2)), "full") for dash in count(10))


def _foreign(name: str, taken: set[_Place]) -> tuple[str, str]:
    places = [(side, marker) for marker in MARKERS for side in range(len(SIDES))]
    held = {(_side(colour), marker) for colour, marker in _BUILT_IN.values()}
    free = [place for place in places if place not in held]
    number = int(digest(name, 8), 16)
    start = number % len(free)
    # Those of built-in methods that are not shown come after all others.
    ring = [*free[start:], *free[:start], *(place for place in places if place in held)]
    side, marker = next((place for place in ring if place not in taken), ring[0])
    return SIDES[side][number // len(free) % len(SIDES[side])], marker
