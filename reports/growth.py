"""What a growing strategy wrote into `events.jsonl`: scans, growth, active adapters, router, truth.

Experiences, blocks, windows and adapters are counted from 0 here, as in the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import (
    Active,
    Domain,
    Event,
    Growth,
    Parameters,
    Router,
    Scan,
)
from cl_adapters.records.events import name_event
from cl_adapters.reports.events import check_finite, event_error

__all__ = ["Domain", "History", "Scan", "linear_growth", "read_history", "strain"]

Floats = NDArray[np.float64]
OfBlock = TypeVar("OfBlock", Active, Domain, Growth, Router)

_ROUNDING: Final = 1e-6
_KINDS: Final = (Active, Domain, Growth, Parameters, Router, Scan)


@dataclass(frozen=True)
class History:
    """The events of one run that tell of its growth.

    Attributes:
        num_experiences: T, the experiences of the run.
        scans: All scans, in the order in which they were made.
        growths: (experience, block) -> (adapters of the block after it, parameters it added).
        active: (experience, block) -> (adapter that the data belongs to, whether the detector of
            the adapter that was active before fired at any window).
        router: Block -> mean weights (test experiences, adapters) after the last evaluation.
        domains: Experience -> the truth, if the stream knows it.
        added: Parameters beside the backbone after each experience, NaN where not recorded.
    """

    num_experiences: int
    scans: tuple[Scan, ...]
    growths: dict[tuple[int, int], tuple[int, int]]
    active: dict[tuple[int, int], tuple[int, bool]]
    router: dict[int, Floats]
    domains: dict[int, Domain]
    added: Floats

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Blocks that some event names, ascending."""
        pairs = {block for _, block in (*self.growths, *self.active)}
        return tuple(sorted({scan.block for scan in self.scans} | pairs | set(self.router)))

    @property
    def is_whole(self) -> bool:
        """Whether the network grows as a whole, which events call block 0."""
        return self.blocks == (0,)

    def place(self, block: int) -> str:
        """Returns what a block is called."""
        return "network" if self.is_whole else f"block {block}"

    @cached_property
    def cells(self) -> dict[tuple[int, int], tuple[Scan, ...]]:
        """(experience, block) -> its scans in order."""
        found: dict[tuple[int, int], list[Scan]] = {}
        for scan in self.scans:
            found.setdefault((scan.experience, scan.block), []).append(scan)
        return {key: tuple(scans) for key, scans in found.items()}

    def has_left(self, experience: int) -> bool:
        """Whether, in any block, the detector of the adapter active before fired at any window."""
        pairs = ((experience, block) for block in self.blocks)
        return any(self.active[pair][1] for pair in pairs if pair in self.active)

    def has_grown(self, experience: int) -> bool:
        """Whether any block grew in an experience."""
        return any((experience, block) in self.growths for block in self.blocks)


def read_history(events: Sequence[Event], num_experiences: int) -> History:
    """Returns the growth of a run; everything is empty if its strategy does not grow.

    Raises:
        InputError: If one of these events is damaged, does not fit the run, or stands twice.
    """
    events = [event for event in events if isinstance(event, _KINDS)]
    for event in events:
        _check(event, num_experiences)
    added = np.full(num_experiences, np.nan)
    for event in events:
        if isinstance(event, Parameters):
            added[event.experience] = event.added
    growths, active = _once(Growth, events), _once(Active, events)
    last = [event for event in events if event.experience == num_experiences - 1]
    return History(
        num_experiences=num_experiences,
        scans=tuple(event for event in events if isinstance(event, Scan)),
        growths={key: (event.adapters, event.parameters) for key, event in growths.items()},
        active={key: (event.adapter, event.changed) for key, event in active.items()},
        router={block: np.array(each.weights) for (_, block), each in _once(Router, last).items()},
        domains={t: event for (t, _), event in _once(Domain, events).items()},
        added=added,
    )


def _check(event: Event, num_experiences: int) -> None:
    check_finite(event)
    if event.experience >= num_experiences:
        raise InputError(
            f"events.jsonl: experience of {name_event(event.event)} event must lie in "
            f"[0, {num_experiences}), got {event.experience}"
        )
    if isinstance(event, Router):
        for row in event.weights:
            for weight in row:
                if not -_ROUNDING <= weight <= 1 + _ROUNDING:
                    raise event_error(event, "weights", "must lie in [0, 1]", weight)


def _once(kind: type[OfBlock], events: Sequence[Event]) -> dict[tuple[int, int], OfBlock]:
    found: dict[tuple[int, int], OfBlock] = {}
    for event in events:
        if not isinstance(event, kind):
            continue
        key = (event.experience, getattr(event, "block", 0))
        if key in found:
            raise InputError(
                f"events.jsonl: {name_event(event.event)} event must stand once per experience "
                f"and block, got two for experience {key[0]}"
            )
        found[key] = event
    return found


def strain(score: float, threshold: float) -> float:
    """Returns how far a score is on the way to its threshold: above 1 exactly if it fires.

    1 + (score - threshold) / |threshold|, which is score / threshold for thresholds above 0.

    Example:
        >>> strain(3.0, 2.0), strain(-3.0, -2.0), strain(1.0, 0.0)
        (1.5, 0.5, inf)
    """
    margin = score - threshold
    if threshold:
        return 1 + margin / abs(threshold)
    return 1.0 if margin == 0 else float(np.copysign(np.inf, margin))


def linear_growth(histories: Sequence[History]) -> Floats:
    """Returns what each run would have added with one adapter a block and experience.

    line[t] = added[t] - (parameters of all growth in experiences <= t) + t · Σ_b c_b

    with c_b the mean `parameters` of the growth events of block b over all the runs; a block that
    never grew costs the mean over all growth events. What grows anyway, such as the head, stays
    in; experience 0 brings the first adapters.

    Args:
        histories: Runs of one method with equally many experiences, a seed each.

    Shape:
        (seeds, T), NaN where `added` is not recorded, and everywhere if no run ever grew.
    """
    costs: dict[int, list[int]] = {block: [] for run in histories for block in run.blocks}
    for run in histories:
        for (_, block), (_, parameters) in run.growths.items():
            costs[block].append(parameters)
    every = [cost for block in costs.values() for cost in block]
    lines = np.full((len(histories), histories[0].num_experiences), np.nan)
    if not every:
        return lines
    step = sum(float(np.mean(block or every)) for block in costs.values())
    for line, run in zip(lines, histories, strict=True):
        for t in range(run.num_experiences):
            grown = sum(cost for (e, _), (_, cost) in run.growths.items() if e <= t)
            line[t] = run.added[t] - grown + t * step
    return lines
