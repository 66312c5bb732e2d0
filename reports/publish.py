"""Writes the tables and figures that README and docs show, from run directories.

    python -m cl_adapters.reports.publish RUNS... --out reports/published

For each stream below the folders: `<stream>.md` and `<stream>.csv`, the short and the whole table;
`<stream>-detection` in both forms where the changes of the domain are known; and as PNG accuracy,
accuracy by experience, accuracy against cost, the growth of the best method that grows where
changes are known, and the retrieval of the best one that chooses adapters. Pictures of the same
names in `docs/figures`, where the site finds them, are replaced too. Tests compare README and docs
with what stands there.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

from cl_adapters.errors import InputError
from cl_adapters.records.files import atomic_path
from cl_adapters.reports.definitions import COLUMNS
from cl_adapters.reports.figures.files import figure_style, save_figure
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.growth import History
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.retrieval import Retrieval
from cl_adapters.reports.sections.comparison import ComparisonSection
from cl_adapters.reports.sections.growth import GrowthSection, read_histories
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from cl_adapters.reports.tables.comparison import comparison_table
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["publish"]

_COLUMNS: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "ece",
    "added_parameters",
    "passes_per_image",
)
# Name of each figure here by its name in the report, or by its kind if it is about one method.
_FIGURES: Final = {
    "accuracy": "accuracy",
    "experiences": "experiences",
    "pareto": "pareto",
    "timeline": "growth",
    "choice": "retrieval",
    "answers": "retrieval",
}


def publish(run_folders: Sequence[Path], out: Path) -> list[Path]:
    """Writes the files and returns their paths.

    Args:
        run_folders: Run directories, or folders that hold some at any depth; all must be finished.
        out: Folder to write into; files of the same names are replaced.

    Raises:
        InputError: If a folder holds no run, or one that is not finished or cannot be read.
    """
    loaded = load_runs(run_folders)
    histories, retrievals = read_histories(loaded), read_retrievals(loaded)
    left_out = [*(run.folder for run in loaded.broken), *(each for each, _ in loaded.unfinished)]
    if left_out:
        raise InputError(f"runs to publish must be finished and sound, got {str(left_out[0])!r}")
    out.mkdir(parents=True, exist_ok=True)
    groups = group_runs(loaded.finished)
    return [path for group in groups for path in _write(group, histories, retrievals, out)]


def _write(
    group: Group,
    histories: Mapping[Path, History],
    retrievals: Mapping[Path, Retrieval],
    out: Path,
) -> list[Path]:
    growth = GrowthSection(group, histories)
    sections: list[ComparisonSection | GrowthSection | RetrievalSection]
    sections = [ComparisonSection(group), RetrievalSection(group, retrievals)]
    sections += [growth] if growth.detection.rows else []
    texts = {
        f"{group.slug}.md": _short(group).sheet().markdown(),
        f"{group.slug}.csv": comparison_table(group).csv(),
    }
    detection = growth.detection.files()
    texts |= {name: text for name, text in detection.items() if not name.endswith(".tex")}
    for name, text in texts.items():
        with atomic_path(out / name) as path:
            path.write_text(text, "utf-8")
    stems: list[Path] = []
    with figure_style():
        for drawing in chain.from_iterable(section.figures() for section in sections):
            name = _FIGURES.get(drawing.kind if drawing.row else drawing.name, "")
            stem = out / f"{group.slug}-{name}"
            if name and stem not in stems:  # methods come best first
                save_figure(drawing.figure, stem, ("png",))
                Path(f"{stem}.svg").unlink()
                stems.append(stem)
    return [*(out / name for name in texts), *(Path(f"{stem}.png") for stem in stems)]


def _short(group: Group) -> ScoreTable:
    columns = [column for column in COLUMNS if column.name in _COLUMNS]
    return replace(
        comparison_table(group),
        columns=[replace(each, digits=min(each.digits, 1)) for each in columns],
        caption=f"protocol {', '.join(group.protocols)}, mean and 95 % interval over seeds "
        "(Student's t); best in bold, upper bounds aside.",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run directories or folders of them")
    parser.add_argument("--out", type=Path, default=Path("reports/published"))
    arguments = parser.parse_args()
    for published in publish(arguments.runs, arguments.out):
        shown = Path("docs/figures") / published.name
        if shown.is_file():
            shutil.copyfile(published, shown)
