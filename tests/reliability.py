"""What the tests of reliability have tried and lost, kept in `tests/reliability.json`.

A test says what it tried by `record_property("reliability: kills survived", 6)`. Where `RELIABILITY`
names the file, a run of pytest puts its counts in the place of earlier ones of the same tests.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["COUNTS", "Counts", "read_rows", "write_rows"]

COUNTS: Final = Path(__file__).parent / "reliability.json"
_PREFIX: Final = "reliability: "


class Counts:
    """Adds up what tests have recorded, and which of those that record were lost."""

    def __init__(self) -> None:
        self.tried: Counter[tuple[str, str]] = Counter()  # by test file and what was tried
        self.lost: Counter[str] = Counter()  # by test file

    def add(self, test: str, outcome: str, properties: Iterable[tuple[str, Any]]) -> None:
        """Takes in a test: its file, how it ended, and what it recorded."""
        self.lost[test] += outcome == "failed"
        for name, value in properties:
            if name.startswith(_PREFIX):
                self.tried[test, name.removeprefix(_PREFIX)] += value

    def sentence(self) -> str:
        """Returns a line that tells all of it; empty if nothing was recorded."""
        totals: Counter[str] = Counter()
        for (_, what), count in self.tried.items():
            totals[what] += count
        told = ", ".join(f"{count} {what}" for what, count in sorted(totals.items()))
        return f"reliability: {told}; losses: {sum(self.losses().values())}" if told else ""

    def losses(self) -> dict[str, int]:
        """Returns how many tests failed, by file, of files that record something."""
        files = {test for test, _ in self.tried}
        known = files | {each["test"] for each in read_rows()}
        return {test: count for test, count in self.lost.items() if test in known}

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each thing that was tried, of each test file."""
        losses = self.losses()
        return [
            {"what": what, "count": count, "losses": losses.get(test, 0), "test": test}
            for (test, what), count in self.tried.items()
        ]


def read_rows(path: Path = COUNTS) -> list[dict[str, Any]]:
    """Returns what the file holds, nothing where there is none."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return found


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path = COUNTS) -> None:
    """Puts rows into the file, in place of those of the same tests for the same thing."""
    kept = {(each["what"], each["test"]): dict(each) for each in [*read_rows(path), *rows]}
    lines = [json.dumps(kept[key], ensure_ascii=False) for key in sorted(kept)]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")
