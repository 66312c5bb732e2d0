"""Published numbers: one a row of a CSV file, and the options under which a method computes it.

A method's settings differ by data set and variant, so a row names its own. They are those of the
publication, whatever our defaults are; `cl-adapters run` takes each as `--set name=value`.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.running.protocols import protocol_names
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import options_of

__all__ = ["REFERENCE", "Reference", "other_options", "read_references", "references"]

REFERENCE: Final = Path(__file__).parent.parent / "reference"
METRICS: Final = (
    "a_last_micro", "a_last_task_mean", "a_avg_micro", "a_avg_task_mean", "forgetting_from_best",
    "forgetting_from_best_before", "forgetting_from_first",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One published number.

    Attributes:
        method: The method as its authors call it.
        strategy: Our strategy that does the same, empty if none does.
        options: What of its options decides which number it computes, as `name=value` separated by
            spaces; empty where every run of it counts. A file may leave the column out.
        protocol: Its protocol, empty if none of ours describes its setting.
        backbone: timm architecture and tag, empty where it is not stated.
        metric: Column of the report that it means.
        value: The number in percent.
        tolerance: Largest gap that still counts as the same result, in points.
        source: Where it was read.
        unverified: What about it is not certain; such a number is shown and decides nothing.
        note: What a reader should know.

    Example:
        >>> next(each for each in references() if each.method == "APER-SSF").settings["variant"]
        'ssf'
    """

    method: str
    strategy: str
    options: str = ""
    protocol: str
    backbone: str
    metric: str
    value: float
    tolerance: float
    source: str
    unverified: str
    note: str

    @property
    def settings(self) -> dict[str, str]:
        """The options by name."""
        return {name: value for name, _, value in _pairs(self.options)}

    @property
    def unset(self) -> dict[str, str]:
        """The options that `--fidelity official` does not already give."""
        usual = options_of(self.strategy, "official", {})
        wanted = options_of(self.strategy, "official", self.settings)
        return {
            name: value
            for name, value in self.settings.items()
            if getattr(usual, name) != getattr(wanted, name)
        }


def _pairs(options: str) -> list[tuple[str, str, str]]:
    return [each.partition("=") for each in options.split()]


@cache
def references() -> tuple[Reference, ...]:
    """Returns every published number that the package ships."""
    return tuple(row for path in sorted(REFERENCE.glob("*.csv")) for row in read_references(path))


def read_references(path: Path) -> list[Reference]:
    """Reads and checks published numbers from a CSV file.

    Raises:
        InputError: If the file cannot be read, or a row breaks a rule; the text names the line.
    """
    names = [field.name for field in fields(Reference)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"references {str(path)!r} must be a CSV file, got: {error}") from error
    if reader.fieldnames not in (names, [name for name in names if name != "options"]):
        raise InputError(
            f"references {str(path)!r} must have the columns {', '.join(names)}, "
            f"got {reader.fieldnames}"
        )
    return [_reference(row, f"line {line} of {path.name}") for line, row in enumerate(rows, 2)]


def _reference(row: Mapping[str, str], place: str) -> Reference:
    if row["protocol"] and row["protocol"] not in protocol_names():
        raise InputError(f"{place}: protocol must exist, got {row['protocol']!r}")
    if row["metric"] not in METRICS:
        raise InputError(f"{place}: metric must be one of {', '.join(METRICS)}, got {row}")
    if not row["source"] or not row["method"]:
        raise InputError(f"{place}: method and source must not be empty")
    _check_options(row, place)
    try:
        value, tolerance = float(row["value"]), float(row["tolerance"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: value and tolerance must be numbers, got {error}") from error
    if not (0 <= value <= 100 and 0 < tolerance <= 100):
        raise InputError(
            f"{place}: value must lie in 0 to 100 and tolerance be positive, "
            f"got {value} and {tolerance}"
        )
    return Reference(**{**row, "value": value, "tolerance": tolerance})  # type: ignore[arg-type]


def _check_options(row: Mapping[str, str], place: str) -> None:
    options = row.get("options", "")
    pairs = _pairs(options)
    names = [name for name, _, _ in pairs]
    if not all(name and value for name, _, value in pairs) or len(set(names)) < len(names):
        raise InputError(
            f"{place}: options must be name=value, each name once, separated by spaces, "
            f"got {options!r}"
        )
    if options and not row["strategy"]:
        raise InputError(f"{place}: options must belong to a strategy, got {options!r} and none")


def other_options(row: Reference, record: RunRecord) -> list[str]:
    """Returns the options of a row that a run of its strategy has otherwise; empty if none.

    What a run was not told has its default, under the fidelity of the run.
    """
    if not row.settings:
        return []
    fidelity = str(record.config.get("fidelity", "default"))
    wanted = options_of(row.strategy, "official", row.settings)
    try:
        found = options_of(record.strategy, fidelity, record.config.get("options", {}))
    except InputError as error:  # of another version
        return [str(error)]
    return [
        f"{name}: {_shown(getattr(found, name))} instead of {_shown(getattr(wanted, name))}"
        for name in row.settings
        if getattr(found, name) != getattr(wanted, name)
    ]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
