"""The tables of the page on speed.

    python -m cl_adapters.benchmarks.maintenance.bench_page speed.json

With a second argument, a page, what stands between its marks is replaced: `tables of speed`, or
whatever the file is called.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.bench.metrics import metric_table, read_metrics
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.errors import InputError

__all__ = ["page_tables", "with_tables"]

START: Final = "<!-- tables of {} -->"
END: Final = "<!-- end of tables -->"


def page_tables(stored: Path) -> str:
    """Returns the tables of a file that `cl-adapters bench` wrote, in Markdown."""
    found = json.loads(stored.read_text("utf-8"))
    metrics, rows = read_metrics(stored), found["rows"]
    settings, machine = found["settings"], found["machine"]
    about = (
        f"{settings['backbone']} at {settings['image_size']} pixels, {settings['precision']}, on "
        f"{machine['device']} ({machine['cpu']}), {machine['threads']} thread, torch "
        f"{machine['torch']}."
    )
    tables = [markdown_table(metric_table(metrics)), markdown_table(_phases(rows))]
    return "\n\n".join([about, *(each.rstrip("\n") for each in tables)])


def with_tables(page: str, stored: Path) -> str:
    """Returns a page with the tables of a file between its marks, in place of any that stand there.

    Raises:
        InputError: If the page has no such marks.
    """
    start = START.format(stored.stem)
    before, found, rest = page.partition(start)
    if not found:
        raise InputError(f"the page must have a line {start!r}, got none")
    return f"{before}{start}\n\n{page_tables(stored)}\n\n{END}{rest.partition(END)[2]}"


def _phases(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns floors an image by strategy and phase, a column for each length."""
    lengths = sorted({row["experiences"] for row in rows})
    header = ["strategy", "phase", *(f"{each} experiences" for each in lengths), "images/s"]
    table = [header]
    for strategy, phase in dict.fromkeys((row["strategy"], row["phase"]) for row in rows):
        own = {
            row["experiences"]: row
            for row in rows
            if (row["strategy"], row["phase"]) == (strategy, phase)
        }
        floors = [f"{own[each]['floors']:.2f}" if each in own else "" for each in lengths]
        table.append([strategy, phase, *floors, f"{own[max(own)]['images/s']:,.0f}"])
    return table


if __name__ == "__main__":
    file = Path(sys.argv[1])
    if len(sys.argv) > 2:
        target = Path(sys.argv[2])
        target.write_text(with_tables(target.read_text("utf-8"), file), "utf-8")
    else:
        sys.stdout.write(f"{page_tables(file)}\n")
