"""The pictures of what each method forgot; nothing of runs that kept none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_adapters.reports.examples import Example, read_run_examples
from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.groups import Group
from cl_adapters.reports.load import LoadedRuns

__all__ = ["ExamplesSection", "read_all_examples"]


def read_all_examples(loaded: LoadedRuns) -> dict[Path, list[Example]]:
    """Returns the examples of each finished run by its folder.

    A run with a damaged table is moved to the broken ones, as `load_runs` does with other damage.
    """
    return loaded.read_all(read_run_examples)


@dataclass(frozen=True)
class ExamplesSection:
    """What the methods of one group forgot.

    Attributes:
        group: The methods that are compared.
        by_folder: Examples of each run.
    """

    group: Group
    by_folder: Mapping[Path, list[Example]]

    def files(self) -> dict[str, str]:
        """Returns no table: the pictures are in the run directories."""
        return {}

    def context(self) -> dict[str, Any]:
        """Returns, by number of the method, the examples of its first run that kept some."""
        found: dict[int, dict[str, Any]] = {}
        for number, row in enumerate(self.group.rows, start=1):
            runs = [run for run in row.runs if self.by_folder.get(run.folder)]
            if runs:
                examples = self.by_folder[runs[0].folder]
                found[number] = {"seed": runs[0].record.seed, "examples": examples}
        return {"examples": found}

    def figures(self) -> Iterator[Drawing]:
        """Yields no drawing."""
        yield from ()
