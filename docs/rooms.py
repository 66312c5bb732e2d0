"""Draws the rooms of the code and what may import what, from the import contracts.

    python docs/rooms.py

reads `[tool.importlinter]` of `pyproject.toml` and the first sentence of each room's docstring, and
writes `docs/figures/rooms.svg`; a test holds the file to it.
"""  # noqa: INP001 - no package

import ast
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

__all__ = ["draw"]

ROOT: Final = Path(__file__).parent.parent
PICTURE: Final = ROOT / "docs" / "figures" / "rooms.svg"

WIDTH: Final = 400  # as a telephone shows it; a larger screen shows it as large
_LEFT: Final = 26  # right of the arrow
_RIGHT: Final = WIDTH - 10
_GAP: Final = 6
_LINE: Final = 14
_COLUMNS: Final = 3
_LETTER: Final = 6.3  # of a small letter on average, in pixels
_BOLD: Final = 8.3  # of a letter of a name

_RULE: Final = "A room imports from floors below its own, never from above, never from beside."
_STYLE: Final = """
    svg { --page: #ffffff; --floor: #eef1f6; --room: #ffffff; --line: #9aa5b8; --text: #1c2430;
          --soft: #4d596b; --mark: #2f5fb3 }
    @media (prefers-color-scheme: dark) {
      svg { --page: #161b22; --floor: #202833; --room: #2b3542; --line: #5d6b80; --text: #edf1f7;
            --soft: #b6c1d1; --mark: #8fb6f5 }
    }
    text { font: 11px system-ui, "Segoe UI", Arial, sans-serif; fill: var(--soft) }
    .name { font-size: 13px; font-weight: 600; fill: var(--text) }
    .head { font-size: 15px; font-weight: 600; fill: var(--mark) }
    .page { fill: var(--page) }
    .floor { fill: var(--floor) }
    .room { fill: var(--room); stroke: var(--line) }
    .arrow { stroke: var(--mark); stroke-width: 2; fill: none }
"""


@dataclass
class _Page:
    """What is drawn so far, from top to bottom."""

    y: float = 10
    shapes: list[str] = field(default_factory=list)

    def text(self, x: float, words: str, kind: str = "") -> None:
        """Writes a line and goes on below it."""
        self.y += _LINE if kind != "head" else _LINE + 4
        chosen = f' class="{kind}"' if kind else ""
        self.shapes.append(f'<text x="{x:g}" y="{self.y - 3:g}"{chosen}>{escape(words)}</text>')

    def paragraph(self, x: float, words: str, width: float) -> None:
        """Writes lines that are cut to a width."""
        for line in _wrapped(words, width):
            self.text(x, line)

    def box(self, x: float, y: float, size: tuple[float, float], kind: str) -> None:
        """Draws a rectangle."""
        wide, high = size
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="5" class="{kind}"/>'
        )


def draw(root: Path = ROOT) -> str:
    """Returns the picture as SVG.

    Args:
        root: The folder with `pyproject.toml` and the package beside it.
    """
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    contracts = table["contracts"]
    page = _Page()
    page.paragraph(10, _RULE, _RIGHT - 10)
    page.y += 8
    for contract in _of_type(contracts, "layers"):
        for container in contract.get("containers", [""]):
            _draw_house(page, root, container, contract["layers"])
    forbidden = _of_type(contracts, "forbidden")
    if forbidden:
        page.text(10, "Beside that", "head")
    for contract in forbidden:
        _draw_rule(page, contract, table["root_package"])
    return _svg(page)


def _of_type(contracts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in contracts if each["type"] == kind]


def _draw_house(page: _Page, root: Path, container: str, layers: list[str]) -> None:
    page.text(10, container or "All", "head")
    page.y += 4
    start = page.y
    for layer in layers:
        apart = ":" not in layer
        names = [each.strip(" ()") for each in re.split(r"[|:]", layer)]
        page.y += 4
        _draw_floor(page, {name: _sentence(root, container, name) for name in names}, apart=apart)
    middle, end = 14, page.y - 2
    page.shapes.append(f'<path class="arrow" d="M{middle} {start + 6:g}V{end:g}m-4 -6l4 6l4 -6"/>')
    page.y += 14


def _draw_floor(page: _Page, rooms: Mapping[str, str], *, apart: bool) -> None:
    """Draws rooms beside each other, as many lines of them as it takes."""
    top, names = page.y, list(rooms)
    place = len(page.shapes)
    page.y += _GAP
    if not apart:
        page.text(_LEFT + _GAP, "these may import one another:")
    lines = -(-len(names) // _COLUMNS)
    columns = -(-len(names) // lines)
    for first in range(0, len(names), columns):
        _draw_rooms(page, {name: rooms[name] for name in names[first : first + columns]})
    _Page.box(floor := _Page(), _LEFT, top, (_RIGHT - _LEFT, page.y - top), "floor")
    page.shapes[place:place] = floor.shapes


def _draw_rooms(page: _Page, rooms: Mapping[str, str]) -> None:
    wide = (_RIGHT - _LEFT - _GAP * (len(rooms) + 1)) / len(rooms)
    most = max(len(_wrapped(words, wide - 14)) for words in rooms.values())
    high, top = 8 + _LINE * (most + 1), page.y
    for number, (name, words) in enumerate(rooms.items()):
        x = _LEFT + _GAP + number * (wide + _GAP)
        page.box(x, top, (wide, high), "room")
        page.y = top + 3
        page.text(x + 7, name, "name")
        page.paragraph(x + 7, words, wide - 14)
    page.y = top + high + _GAP


def _draw_rule(page: _Page, contract: Mapping[str, Any], package: str) -> None:
    page.y += 4
    for line in _wrapped(contract["name"], (_RIGHT - 10) * _LETTER / _BOLD):
        page.text(10, line, "name")
    short = [each.removeprefix(package + ".") for each in contract["source_modules"]]
    words = f"{', '.join(short)}: never {', '.join(contract['forbidden_modules'])}."
    page.paragraph(10, words, _RIGHT - 10)


def _wrapped(words: str, width: float) -> list[str]:
    return textwrap.wrap(
        words, int(width / _LETTER), break_long_words=False, break_on_hyphens=False
    )


def _sentence(root: Path, container: str, name: str) -> str:
    """Returns the first sentence of a room's docstring, nothing if it has none."""
    place = root.joinpath(*f"{container}.{name}".strip(".").split("."))
    files = [place / "__init__.py", place.with_suffix(".py")]
    found = next((each for each in files if each.is_file()), None)
    doc = ast.get_docstring(ast.parse(found.read_text("utf-8"))) if found else None
    first = " ".join((doc or "").split("\n\n")[0].split()).replace("`", "")
    return re.split(r"(?<=\.)\s", first)[0]


def _svg(page: _Page) -> str:
    size = f"{WIDTH} {page.y + 12:g}"
    wide, high = size.split()
    shapes = "\n".join(page.shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{wide}" '
        f'height="{high}" role="img">\n<title>The rooms of the code, floor by floor</title>\n'
        f"<desc>{_RULE}</desc>\n"
        f"<style>{_STYLE}</style>\n"
        f'<rect width="{wide}" height="{high}" rx="8" class="page"/>\n{shapes}\n</svg>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
