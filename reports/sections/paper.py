"""What a reader of the report takes into a paper."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cl_adapters.reports.groups import Group
from cl_adapters.reports.paper import Paper
from cl_adapters.reports.tables.paper import paper_table

__all__ = ["PaperSection"]


@dataclass(frozen=True)
class PaperSection:
    """The table for a paper, and its text.

    Attributes:
        group: The methods that are compared.
        paper: What is made.
    """

    group: Group
    paper: Paper

    @cached_property
    def _files(self) -> dict[str, str]:
        return paper_table(self.group, self.paper.columns).files()

    def files(self) -> dict[str, str]:
        """Returns the text of the table by file name."""
        return self._files

    def context(self) -> dict[str, Any]:
        """Returns what the page shows."""
        latex = next(text for name, text in self._files.items() if name.endswith(".tex"))
        return {"paper": self.paper, "paper_files": sorted(self._files), "paper_latex": latex}

    def figures(self) -> tuple[()]:
        """Returns none: those for a paper look otherwise than the page's, see `figures.paper`."""
        return ()
