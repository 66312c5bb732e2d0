"""How well a run's detectors found the changes that its stream knows.

Let T be the number of experiences, counted from 0. Experience 0 has nothing before it, so that all
sums run over t in 1 … T - 1. From the truth (`domain` events):

    C = {t : changed(t)}            the changes
    N = {t in C : not seen_before}  changes to a new domain
    S = {t in C : seen_before}      changes back to a known one, the recurring changes

and from the run:

    L = {t : in any block, at any window of t, the detector of the adapter that was active before t
         fired}                     (`changed` of the `active` events)
    G = {t : any block grew in t}   (`growth` events)
"""

import math
from collections.abc import Iterator
from itertools import chain

from cl_adapters.reports.growth import History, Scan

__all__ = ["detection", "first_firing"]


def detection(history: History) -> dict[str, float]:
    """Returns each value of `definitions.DETECTION_COLUMNS`; NaN where it is not defined.

    changes                 |C|
    changes_found           |C ∩ L|
    changes_missed          |C - L|
    false_alarms            |L - C|
    delay_windows           mean over t in C ∩ L of the windows until the first firing, inclusive
    delay_images            the same in images
    adapters_grown_a_block  growth events / blocks that can grow
    growing_experiences     |G|
    oracle_adapters         |N|
    reuse_on_recurrence     100 |S - G| / |S|

    The values on L are NaN if no detector was asked: a run without any scan, under a policy that
    grows always or never.
    """
    later = [t for t in range(1, history.num_experiences) if t in history.domains]
    changes = [t for t in later if history.domains[t].changed]
    recurring = [t for t in changes if history.domains[t].seen_before]
    reused = [t for t in recurring if not history.has_grown(t)]
    growths = sum(t > 0 for t, _ in history.growths)
    return {
        "changes": float(len(changes)),
        **_alarms(history, later, changes),
        "adapters_grown_a_block": growths / len(history.blocks) if history.blocks else 0.0,
        "growing_experiences": float(len({t for t, _ in history.growths if t > 0})),
        "oracle_adapters": float(len(changes) - len(recurring)),
        "reuse_on_recurrence": 100 * len(reused) / len(recurring) if recurring else math.nan,
    }


def _alarms(history: History, later: list[int], changes: list[int]) -> dict[str, float]:
    names = ("changes_found", "changes_missed", "false_alarms", "delay_windows", "delay_images")
    if not history.scans or not history.active:
        return dict.fromkeys(names, math.nan)
    left = [t for t in later if history.has_left(t)]
    found = [t for t in changes if t in left]
    delays = [delay for delay in (first_firing(history, t) for t in found) if delay]
    return {
        "changes_found": float(len(found)),
        "changes_missed": float(len(changes) - len(found)),
        "false_alarms": float(len(left) - len(found)),
        "delay_windows": _mean([windows for windows, _ in delays]),
        "delay_images": _mean([images for _, images in delays]),
    }


def _mean(values: list[int]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def first_firing(history: History, experience: int) -> tuple[int, int] | None:
    """Returns the windows and images scanned until the active adapter's detector fires.

    The active adapter of a block is that of the latest `active` event of an earlier experience, or
    0; its detector fires if its score exceeds its threshold. The firing window counts: (1, its
    images) is the least. Windows of a second pass over the data count again.

    Returns:
        (windows, images), or None if it never fired in this experience.
    """
    active = {block: _active_before(history, experience, block) for block in history.blocks}
    scans = (scan for scan in history.scans if scan.experience == experience)
    num_images = 0
    for num_windows, window in enumerate(_windows(scans), start=1):
        num_images += window[0].images
        if any(_fires(scan, active[scan.block]) for scan in window):
            return num_windows, num_images
    return None


def _active_before(history: History, experience: int, block: int) -> int:
    earlier = (history.active.get((t, block)) for t in range(experience - 1, -1, -1))
    return next((active[0] for active in earlier if active is not None), 0)


def _fires(scan: Scan, adapter: int) -> bool:
    known = adapter < len(scan.scores)
    return scan.scores[adapter] > scan.thresholds[adapter] if known else scan.fired


def _windows(scans: Iterator[Scan]) -> Iterator[list[Scan]]:
    # A window is scanned block after block; a window or block that does not go on begins anew.
    window: list[Scan] = []
    for scan in chain(scans, [None]):
        if window and (scan is None or not _goes_on(window[-1], scan)):
            yield window
            window = []
        if scan is not None:
            window.append(scan)


def _goes_on(before: Scan, scan: Scan) -> bool:
    return scan.window == before.window and scan.block > before.block
