"""A table of text for a paper: LaTeX with the booktabs package, as wide as one column or both."""

import re
from typing import Final

from cl_adapters.reports.tables.markup import Cell, Sheet

__all__ = ["COLUMN_POINTS", "PAGE_POINTS", "escape_latex", "latex_table", "width_in_points"]

# The narrowest of the usual formats of two columns: ACL's, 7.7 and 16 cm.
COLUMN_POINTS: Final = 219.0
PAGE_POINTS: Final = 455.0
_GAP_POINTS: Final = 3.0  # on each side of a column

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # as LaTeX's first encoding has no other
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "\u00a0": "~",
    "\u00ad": r"\-",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u221e": r"$\infty$",
    "\u202f": r"\,",
    "\ufffd": "?",
    **{letter: f"\\{letter}" for letter in "#%&_{}"},
    "$": r"$\mathdollar$",  # in text it would come from another font, as a bitmap
}
# Of the Latin letters up to U+017F, what LaTeX's first encoding lacks.
_RARE: Final = frozenset("«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
# Pairs of letters that fonts join to another one.
_JOINED: Final = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=`)(?=`)|(?<=[?!])(?=`)|(?<=,)(?=,)")
_SYMBOLS: Final = {"A\\_last": r"$A_{\mathrm{last}}$", "A\\_avg": r"$A_{\mathrm{avg}}$"}


def escape_latex(text: str) -> str:
    r"""Returns text that LaTeX shows as it is, also at the beginning of a row.

    Example:
        >>> escape_latex("a_b & 50 %"), escape_latex("[x] a--b")
        ('a\\_b \\& 50 \\%', '{}[x] a-{}-b')
    """
    apart = _JOINED.sub("\0", text)
    shown = "".join("{}" if letter == "\0" else _SPECIAL.get(letter, letter) for letter in apart)
    # What follows the end of a row in brackets, or a star, would be taken for an argument of it.
    return f"{{}}{shown}" if shown[:1] in ("[", "*") else shown


def latex_table(sheet: Sheet) -> str:
    """Returns a LaTeX table with caption and label, which needs the booktabs package.

    It is set in `footnotesize`, 8 points of a document in 10; it stands in one column if it fits
    `COLUMN_POINTS`, else across both, and says so if it is wider still.
    """
    rows = [
        sheet.shown([escape_latex(label), seeds, *map(_cell, cells)])
        for label, seeds, cells in sheet.rows
    ]
    headings = [_heading(text) for text in sheet.shown(sheet.headings)]
    width = width_in_points(sheet)
    kind = "table" if width <= COLUMN_POINTS else "table*"
    lines = [
        *_remarks(sheet, width),
        rf"\begin{{{kind}}}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(sheet.caption)}}}",
        *([rf"\label{{tab:{sheet.name}}}"] if sheet.name else []),
        r"\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{_GAP_POINTS:g}pt}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        f"{' & '.join(headings)} \\\\",
        r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in rows),
        *(r"\bottomrule", r"\end{tabular}", rf"\end{{{kind}}}"),
    ]
    return "\n".join(lines) + "\n"


def _remarks(sheet: Sheet, width: float) -> list[str]:
    remarks = [r"Needs \usepackage{booktabs}.", *(" ".join(note.split()) for note in sheet.notes)]
    if width > PAGE_POINTS:
        remarks.append(
            f"About {width:.0f} pt wide, more than a page: `report --columns` takes fewer."
        )
    letters = set("".join([sheet.caption, *(label for label, _, _ in sheet.rows)])) - set(_SPECIAL)
    if letters & _RARE or any(ord(letter) > 0x17F for letter in letters):
        remarks.append("Holds letters that pdflatex may not know: use xelatex or lualatex.")
    return [f"% {remark}" for remark in remarks]


def _heading(text: str) -> str:
    shown = escape_latex(text)
    for name, symbol in _SYMBOLS.items():
        shown = shown.replace(name, symbol)
    return shown


def _cell(cell: Cell) -> str:
    mean = escape_latex(cell.mean)
    parts = [rf"\textbf{{{mean}}}" if cell.is_best else mean]
    if cell.half_width:
        parts.append(rf"\,$\pm$\,{escape_latex(cell.half_width)}")
    return "".join(parts) + (f" {cell.sign}" if cell.sign else "")


# Points of letters at 8 points, rather too many than too few.
_NARROW: Final = frozenset("ijlft.,:;|!'`()[]-/ ")
_WIDE: Final = frozenset("mwMW%@&")


def width_in_points(sheet: Sheet) -> float:
    """Returns about how wide a table becomes in LaTeX's own font at 8 points."""
    lines = [list(sheet.headings)]
    for label, seeds, cells in sheet.rows:
        lines.append([label, seeds, *(cell.text for cell in cells)])
    columns = zip(*map(sheet.shown, lines), strict=True)
    return sum(max(map(_points, column)) + 2 * _GAP_POINTS for column in columns)


def _points(text: str) -> float:
    # The spaces around the sign are thin.
    return sum(
        2.8 if letter in _NARROW else 7.2 if letter in _WIDE or letter.isupper() else 4.5
        for letter in text.replace(" ± ", "±")
    )
