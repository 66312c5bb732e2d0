"""Draws the pictures of `docs/gallery.md`: `python docs/draw_gallery.py FOLDER`.

The folder holds the `runs` and the `report` that the commands of the page leave.
"""  # noqa: INP001 - no package

import os
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image

DOCS: Final = Path(__file__).resolve().parent
_SECTION: Final = re.compile(r"^#{2,3} ", re.MULTILINE)
_WIDEST: Final = 1200  # a page shows no more, twice as dense
_COLOURS: Final = 64


def drawn(page: str) -> Iterator[tuple[str, str, str]]:
    """Yields the name of each picture of a page, its lines of Python, and its file in a report.

    A picture is drawn by the Python of its section where that saves a figure of its name, else it
    is the file that the section names.
    """
    for section in _SECTION.split(page):
        for name in re.findall(r"!\[[^\]]*\]\(gallery/([\w-]+)\.png\)", section):
            blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
            code = next((each for each in blocks if f'savefig("{name}.png"' in each), "")
            files = re.findall(r"`(report/figures/[^`]+)`", section)
            yield name, code, files[0] if files else ""


def find(folder: Path, name: str, code: str, pattern: str) -> Path:
    """Returns the file of a picture, which its lines of Python draw first where there are some.

    Raises:
        FileNotFoundError: If the report holds no file of that pattern.
    """
    if not code:
        found = sorted(folder.glob(pattern))
        if not found:
            raise FileNotFoundError(f"{folder / pattern} for the picture {name!r}")
        return found[0]  # of several methods the best, whose place stands in the name
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        block = Path(place) / "block.py"
        block.write_text(code, "utf-8")
        os.chdir(folder)
        try:
            runpy.run_path(str(block))
        finally:
            os.chdir(before)
    return folder / f"{name}.png"


def reduce(source: Path, target: Path) -> None:
    """Writes a picture with fewer pixels, if it is wide, and fewer colours."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_WIDEST, 10 * _WIDEST), Image.Resampling.LANCZOS)
    picture.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        target, optimize=True
    )


def main(folder: Path) -> None:
    """Draws them all."""
    page = (DOCS / "gallery.md").read_text("utf-8")
    for name, code, pattern in drawn(page):
        reduce(find(folder, name, code, pattern), DOCS / "gallery" / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
