"""Numbers with targets: kept, compared with earlier ones, and laid out as tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cl_adapters.errors import InputError
from cl_adapters.paths import read_text

__all__ = ["TOLERANCE", "Metric", "best_of", "compare", "metric_table", "read_metrics"]

TOLERANCE: Final = 0.15  # share of a stored ratio that may be lost


@dataclass(frozen=True)
class Metric:
    """A number for one machine against itself.

    Attributes:
        name: What it is.
        value: The ratio, or the number in the unit that the name ends with.
        target: What is asked for.
        better: Whether more or less is better.
        is_ratio: Whether it means the same on another machine.
        bound: What arithmetic allows at best; None where it sets no limit short of the target.
    """

    name: str
    value: float
    target: float
    better: Literal["more", "less"]
    is_ratio: bool = True
    bound: float | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the value is at least as good as the target."""
        return self.value >= self.target if self.better == "more" else self.value <= self.target

    @property
    def verdict(self) -> str:
        """Whether the target is reached, and what could be at best where it cannot."""
        limit = "" if self.bound is None or self.is_reached else f", at best {self.bound:g}"
        return ("yes" if self.is_reached else "no") + limit


def best_of(runs: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Returns each metric at its best: what disturbs a measurement only makes it worse.

    Example:
        >>> once, again = (Metric("gain", value, 7.0, "more") for value in (6.0, 8.0))
        >>> best_of([[once], [again]])[0].value
        8.0
    """
    best: dict[str, Metric] = {}
    for metric in (each for run in runs for each in run):
        before = best.setdefault(metric.name, metric)
        is_more = metric.value > before.value
        if is_more if metric.better == "more" else not is_more:
            best[metric.name] = metric
    return list(best.values())


def compare(
    now: Sequence[Metric], stored: Sequence[Metric], tolerance: float = TOLERANCE
) -> list[str]:
    """Returns a sentence for each ratio that is worse than the stored one by more than `tolerance`.

    Only ratios are compared: times mean nothing on another machine. The tolerance is the share of
    the stored ratio that may be lost; another kind of processor needs more than 15 %.

    Example:
        >>> old, new = (Metric("gain", value, 7.0, "more") for value in (8.0, 6.0))
        >>> compare([new], [old])
        ['gain was 8.00 and is 6.00, a loss of 25 %']
    """
    before = {each.name: each for each in stored if each.is_ratio}
    found = []
    for each in now:
        old = before.get(each.name)
        if old is None or not each.is_ratio:
            continue
        kept = each.value / old.value if each.better == "more" else old.value / each.value
        if kept < 1 - tolerance:
            found.append(
                f"{each.name} was {old.value:.2f} and is {each.value:.2f}, "
                f"a loss of {100 * (1 - kept):.0f} %"
            )
    return found


def read_metrics(path: Path) -> list[Metric]:
    """Returns the metrics that `Bench.write` wrote.

    Raises:
        InputError: If the file holds none.
    """
    try:
        return [Metric(**each) for each in json.loads(read_text(path))["metrics"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} must hold what `bench` wrote, got: {error}") from error


def metric_table(metrics: Sequence[Metric]) -> list[list[str]]:
    """Returns a row a metric, the header first."""
    rows = [
        [
            each.name,
            f"{each.value:.2f}",
            f"{'≥' if each.better == 'more' else '≤'} {each.target:g}",
            each.verdict,
        ]
        for each in metrics
    ]
    return [["measure", "value", "target", "reached"], *rows]
