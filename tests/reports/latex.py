"""A strict reader of the LaTeX tables, which knows nothing of how they are written."""

import re

_PLAIN = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\ldots{}": "…",
    r"$\uparrow$": "↑", r"$\downarrow$": "↓", r"\,$\pm$\,": " ± ", r"$\pm$": "±", "$-$": "\u2212",
    r"$\infty$": "∞", "--": "\u2013", r"\,": "\u202f", "''": '"',
    r"$\mathdollar$": "$", r"$A_{\mathrm{last}}$": "A_last", r"$A_{\mathrm{avg}}$": "A_avg",
    **{f"\\{letter}": letter for letter in "#%&_{}"}, "{}": "",
}  # fmt: skip
_TOKEN = re.compile(r"\\textbf\{|" + "|".join(map(re.escape, sorted(_PLAIN, key=len)[::-1])))


def plain(text: str) -> str:
    """Returns what LaTeX would show of a text; anything that it would refuse is an error."""
    shown, place, open_braces = "", 0, 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found:
            is_bold = found[0].endswith("f{")
            open_braces += is_bold
            shown += "" if is_bold else _PLAIN[found[0]]
            place = found.end()
        elif text[place] == "}" and open_braces:
            open_braces, place = open_braces - 1, place + 1
        else:
            assert text[place] not in '\\{}$&#_^~%"', f"{text!r} at {place}"
            shown, place = shown + text[place], place + 1
    assert not open_braces, text
    return shown


def read_table(text: str) -> tuple[dict[str, str], list[list[str]]]:
    """Returns caption, label and kind of a table, and its lines, headings first, bold with stars."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    begin, end = re.fullmatch(r"\\begin\{(table\*?)\}\[t\]", lines[0]), lines[-1]
    assert begin
    assert end == rf"\end{{{begin[1]}}}"
    spec = next(
        found for line in lines if (found := re.fullmatch(r"\\begin\{tabular\}\{(l?r*)\}", line))
    )
    places = [lines.index(name) for name in (spec[0], r"\toprule", r"\midrule", r"\bottomrule")]
    assert places[1:3] == [places[0] + 1, places[0] + 3]
    assert lines[places[3] + 1 :] == [r"\end{tabular}", end]
    rows = [lines[places[1] + 1], *lines[places[2] + 1 : places[3]]]
    said = {"kind": begin[1]}
    for line in lines[1 : places[0]]:
        found = re.fullmatch(r"\\(caption|label)\{(.*)\}", line)
        if found:
            said[found[1]] = plain(found[2]) if found[1] == "caption" else found[2]
        else:
            assert line in {r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"}, line
    table = []
    for row in rows:
        assert row.endswith(r" \\")
        assert not row.lstrip().startswith(("[", "*"))
        cells = re.split(r"(?<!\\)&", row.removesuffix(r" \\"))
        assert len(cells) == len(spec[1])
        table.append([plain(cell.strip()) + "*" * (r"\textbf" in cell) for cell in cells])
    return said, table
