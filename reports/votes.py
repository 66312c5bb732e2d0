"""Where the online and the offline expert of a run chose different classes, and who was right.

From the `votes` events; experiences are counted from 0, as in the file.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cl_adapters.errors import InputError
from cl_adapters.records import event_kinds
from cl_adapters.reports.load import Run

__all__ = ["VOTE_SHARES", "Votes", "read_votes"]

Floats = NDArray[np.float64]

# Images on which the experts differ, and of these: which of them, or their vote, was right.
VOTE_SHARES: Final = ("differ", "online_right", "offline_right", "neither_right", "vote_right")


@dataclass(frozen=True, kw_only=True)
class Votes:
    """How the experts of one run voted.

    Attributes:
        over_time: Each of `VOTE_SHARES` after each experience, in percent of all test images of the
            experiences learned; NaN where it was not recorded.
        by_experience: The same after the last experience, by experience of the test image.
    """

    over_time: dict[str, Floats]
    by_experience: dict[str, Floats]


def read_votes(run: Run) -> Votes | None:
    """Reads the votes of a run; None if it recorded none after its last experience.

    Raises:
        InputError: If an event is damaged, stands twice or does not fit the run.
    """
    size = len(run.record.experiences)
    events = _events(run, size)
    if size - 1 not in events:
        return None
    over_time = {name: np.full(size, np.nan) for name in VOTE_SHARES}
    for t, event in events.items():
        for name, share in _shares(_table(event).sum(axis=0)).items():
            over_time[name][t] = share
    by_experience = {name: np.full(size, np.nan) for name in VOTE_SHARES}
    last = events[size - 1]
    for i, counts in zip(last.experiences, _table(last), strict=True):
        for name, share in _shares(counts).items():
            by_experience[name][i] = share
    return Votes(over_time=over_time, by_experience=by_experience)


def _events(run: Run, size: int) -> dict[int, event_kinds.Votes]:
    events: dict[int, event_kinds.Votes] = {}
    for event in run.events:
        if isinstance(event, event_kinds.Votes):
            if event.experience in events or max(event.experience, *event.experiences) >= size:
                raise InputError(
                    "events.jsonl: a votes event must stand once per experience and name "
                    f"experiences in [0, {size}), got experience {event.experience}"
                )
            events[event.experience] = event
    return events


def _table(event: event_kinds.Votes) -> Floats:
    parts = (event.images, event.differ, event.online_right, event.offline_right, event.vote_right)
    return np.array(parts, np.float64).T


def _shares(counts: Floats) -> dict[str, float]:
    images, differ, online, offline, vote = counts.tolist()
    numbers = (differ, online, offline, differ - online - offline, vote)
    return {
        name: 100 * number / images if images else float("nan")
        for name, number in zip(VOTE_SHARES, numbers, strict=True)
    }
