"""One screen for a sweep: what is running and how good it is so far, what is done, how long yet."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cl_adapters.benchmarks.running.progress import say
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.sweep import differing, folder_of, title
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions

__all__ = ["SweepView", "progress_of"]


class SweepView:
    """Shows a sweep on a terminal; elsewhere a line for a run's start, experiences and end.

    Args:
        configs: The runs that were left when the sweep began.
        seconds: What these runs were estimated to take in all; None if unknown.
    """

    def __init__(
        self, console: Console, out: Path, configs: Sequence[RunConfig], seconds: float | None
    ) -> None:
        self._console, self._out, self._total = console, out, len(configs)
        self._keys = differing(configs)
        self._seconds = seconds
        self._most = 1  # runs at once, so far
        self._noted: set[str] = set()
        self._since = time.monotonic()
        self._told = 0
        self._learned: dict[str, int] = {}  # experiences of each run that were told of
        shown = console.is_terminal and not console.quiet
        self._live = Live(console=console, auto_refresh=False, transient=True) if shown else None

    def __enter__(self) -> "SweepView":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, under_way: Sequence[RunConfig], ended: Sequence[Outcome]) -> None:
        """Tells what is under way and what has ended."""
        for outcome in ended[self._told :]:
            end = outcome.error or str(outcome.folder)
            self._say(f"{title(outcome.config, self._keys)}: {end}")
            for note in outcome.notes:
                self._say(f"note: {title(outcome.config, self._keys)}: {note}")
            if outcome.trouble is not None and outcome.trouble not in self._noted:
                self._noted.add(outcome.trouble)
                self._say(f"note: {outcome.trouble}")
        self._told = len(ended)
        self._most = max(self._most, len(under_way))
        if self._live:
            self._live.update(self._screen(under_way, ended), refresh=True)
        elif not self._console.quiet:
            for config in under_way:
                self._tell(config)

    def _tell(self, config: RunConfig) -> None:
        name = title(config, self._keys)
        if name not in self._learned:
            self._learned[name] = -1
            self._say(f"{name}: starts")
        done, whole, accuracy = progress_of(config, self._out)
        if whole and self._learned[name] < 0:
            self._learned[name] = 0
            if not done:
                self._say(f"{name}: experience 1 of {whole} begins")
        if accuracy is not None and done > self._learned[name]:
            self._learned[name] = done
            self._say(f"{name}: experience {done} of {whole}, {accuracy:.1%} right so far")

    def _say(self, line: str) -> None:
        say(self._console, line)

    def _screen(self, under_way: Sequence[RunConfig], ended: Sequence[Outcome]) -> Group:
        failed = sum(outcome.error is not None for outcome in ended)
        table = Table(box=None, pad_edge=False)
        for header in ("running", "experience", "accuracy so far"):
            table.add_column(Text(header))
        for config in under_way:
            done, whole, accuracy = progress_of(config, self._out)
            share = "" if accuracy is None else f"{accuracy:.1%}"
            table.add_row(
                Text(title(config, self._keys)), f"{done}/{whole}" if whole else "", share
            )
        line = f"{len(ended) - failed} done, {failed} failed, {len(under_way)} running, "
        line += f"{self._total - len(ended) - len(under_way)} to come; {self._left(len(ended))}"
        return Group(table, Text(line))

    def _left(self, ended: int) -> str:
        passed = time.monotonic() - self._since
        if ended:
            left: float | None = passed / ended * (self._total - ended)
        else:
            left = None if self._seconds is None else self._seconds / self._most - passed
        return "time left unknown" if left is None else f"about {max(left, 0) / 60:.0f} min left"


def progress_of(config: RunConfig, out: Path) -> tuple[int, int, float | None]:
    """Returns experiences done, experiences in all, and accuracy after the last one done."""
    folder = folder_of(config, out)
    try:
        record = RunRecord.read(folder) if folder else None
        if folder is None or record is None:
            return 0, 0, None
        done, whole = record.experiences_done, len(record.experiences)
        rows = read_predictions(folder)
    except InputError:  # between two writes of another process
        return 0, 0, None
    rows = rows[rows["experience"] == done - 1]
    accuracy = float((rows["prediction"] == rows["target"]).mean()) if len(rows) else None
    return done, whole, accuracy
