"""What a growing strategy wrote into `events.jsonl`: scans, growth, active adapters, router, truth.

Experiences, blocks, windows and adapters are counted from 0 here, as in the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.reports.events import name_event, parse_event

__all__ = ["Domain", "History", "Scan", "linear_growth", "read_history", "strain"]

Floats = NDArray[np.float64]
_Count = Annotated[int, Field(ge=0)]


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    experience: _Count


class Scan(_Event):
    """One block's look at one window of training images.

    Attributes:
        block: The block.
        window: Number of the window in this pass over the data.
        images: Images in the window.
        scores: Score of each adapter's detector.
        thresholds: Threshold of each adapter's detector.
        adapter: The adapter with the smallest margin of score over threshold.
        fired: Whether the detectors of all adapters fired.
        grown: Whether the block then grew.
    """

    block: _Count
    window: _Count
    images: _Count
    scores: list[float] = Field(min_length=1)
    thresholds: list[float]
    adapter: _Count
    fired: bool
    grown: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.thresholds) != len(self.scores) or self.adapter >= len(self.scores):
            raise ValueError("scores, thresholds and adapter must name the same adapters")
        return self


class _Growth(_Event):
    block: _Count
    adapters: _Count
    parameters: _Count


class _Active(_Event):
    block: _Count
    adapter: _Count
    changed: bool


class _Router(_Event):
    block: _Count
    weights: list[list[Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weights[0] or len({len(row) for row in self.weights}) > 1:
            raise ValueError("weights must have one row an experience and one column an adapter")
        return self


class Domain(_Event):
    """The truth about an experience.

    Attributes:
        domain: Name of the domain of its images.
        changed: Whether it differs from the experience before.
        seen_before: Whether the domain was part of an earlier experience.
        severity: Strength of the shift in [0, 1].
        share: Share of the images that are in the domain.
    """

    domain: str
    changed: bool
    seen_before: bool
    severity: float = 1.0
    share: float = 1.0


class _Parameters(_Event):
    added: _Count


_KINDS: Final[dict[str, type[_Event]]] = {
    "scan": Scan,
    "growth": _Growth,
    "active": _Active,
    "router": _Router,
    "domain": Domain,
    "parameters": _Parameters,
}


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


def read_history(folder: Path, num_experiences: int) -> History:
    """Reads the growth of a run; everything is empty if its strategy does not grow.

    Raises:
        InputError: If one of these events is damaged, does not fit the run, or stands twice.
    """
    events: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for line in read_events(folder):
        kind = str(line["event"])
        if kind in _KINDS:
            events[kind].append(_parsed(kind, line, num_experiences))
    added = np.full(num_experiences, np.nan)
    for event in events["parameters"]:
        added[event.experience] = event.added
    last = [event for event in events["router"] if event.experience == num_experiences - 1]
    return History(
        num_experiences=num_experiences,
        scans=tuple(events["scan"]),
        growths={
            key: (event.adapters, event.parameters)
            for key, event in _once("growth", events["growth"]).items()
        },
        active={
            key: (event.adapter, event.changed)
            for key, event in _once("active", events["active"]).items()
        },
        router={
            block: np.array(event.weights) for (_, block), event in _once("router", last).items()
        },
        domains={t: event for (t, _), event in _once("domain", events["domain"]).items()},
        added=added,
    )


def _parsed(kind: str, line: dict[str, Any], num_experiences: int) -> _Event:
    event = parse_event(_KINDS[kind], line)
    if event.experience >= num_experiences:
        raise InputError(
            f"events.jsonl: experience of {name_event(kind)} event must lie in "
            f"[0, {num_experiences}), got {event.experience}"
        )
    return event


def _once(kind: str, events: Sequence[Any]) -> dict[tuple[int, int], Any]:
    found: dict[tuple[int, int], Any] = {}
    for event in events:
        key = (event.experience, getattr(event, "block", 0))
        if key in found:
            raise InputError(
                f"events.jsonl: {name_event(kind)} event must stand once per experience and block, "
                f"got two for experience {key[0]}"
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
