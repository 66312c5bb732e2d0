"""Reports that several tests read, written once."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib import rcParams

from cl_adapters.reports.report import ReportSummary, write_report


def style() -> dict[str, object]:
    return {name: rcParams[name] for name in rcParams if not name.startswith(("_", "backend"))}


@dataclass(frozen=True)
class Written:
    """A report that several tests read, and the global style before and after it was drawn."""

    folder: Path
    summary: ReportSummary
    before: dict[str, object]
    after: dict[str, object]


def write_once(root: Path) -> Written:
    before = style()
    summary = write_report([root / "runs"], root / "report", formats=["svg"])
    return Written(root / "report", summary, before, style())
