"""Writes the tables and figures that the README shows, from run directories.

    python -m cl_adapters.reports.publish RUNS... --out reports/published

For each stream below the folders: `<stream>.md` and `<stream>.csv`, the short and the whole table,
and as PNG accuracy, accuracy by experience, and accuracy against cost. A test compares the tables
of the README with what stands there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cl_adapters.errors import InputError
from cl_adapters.reports.definitions import COLUMNS
from cl_adapters.reports.figures.files import figure_style, save_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.sections.comparison import ComparisonSection
from cl_adapters.reports.tables.comparison import comparison_table

__all__ = ["publish"]

_COLUMNS: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "ece",
    "added_parameters",
    "passes_per_image",
)
_FIGURES: Final = ("accuracy", "experiences", "pareto")


def publish(run_folders: Sequence[Path], out: Path) -> list[Path]:
    """Writes the files and returns their paths.

    Args:
        run_folders: Run directories, or folders that hold some at any depth; all must be finished.
        out: Folder to write into; files of the same names are replaced.

    Raises:
        InputError: If a folder holds no run, or one that is not finished or cannot be read.
    """
    loaded = load_runs(run_folders)
    left_out = [*(run.folder for run in loaded.broken), *(each for each, _ in loaded.unfinished)]
    if left_out:
        raise InputError(f"runs to publish must be finished and sound, got {str(left_out[0])!r}")
    out.mkdir(parents=True, exist_ok=True)
    return [path for group in group_runs(loaded.finished) for path in _write(group, out)]


def _write(group: Group, out: Path) -> list[Path]:
    whole = comparison_table(group)
    columns = [column for column in COLUMNS if column.name in _COLUMNS]
    short = replace(
        whole,
        columns=[replace(each, digits=min(each.digits, 1)) for each in columns],
        caption=f"protocol {', '.join(group.protocols)}, mean and 95 % interval over seeds "
        "(Student's t); best in bold, upper bounds aside.",
    )
    texts = {"md": short.sheet().markdown(), "csv": whole.csv()}
    paths = [out / f"{group.slug}.{kind}" for kind in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, "utf-8")
    with figure_style():
        for drawing in ComparisonSection(group).figures():
            if drawing.name in _FIGURES:
                stem = out / f"{group.slug}-{drawing.name}"
                save_figure(drawing.figure, stem, ("png",))
                Path(f"{stem}.svg").unlink()
                paths.append(Path(f"{stem}.png"))
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run directories or folders of them")
    parser.add_argument("--out", type=Path, default=Path("reports/published"))
    arguments = parser.parse_args()
    publish(arguments.runs, arguments.out)
