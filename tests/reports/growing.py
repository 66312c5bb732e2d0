"""Synthetic growth: the events of a strategy that meets known domains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports.lines import append_events

COST = 1_000


def growth_events(
    domains: Sequence[str],
    *,
    blocks: Sequence[int] = (9, 10, 11),
    seed: int = 0,
    grows: bool = True,
    miss: float = 0.1,
    windows: int = 3,
) -> list[dict[str, Any]]:
    """Returns the events of a run that grows an adapter for most new domains in most blocks."""
    generator = np.random.default_rng(seed)
    homes: dict[int, list[str]] = {block: [domains[0]] for block in blocks}
    active = dict.fromkeys(blocks, 0)
    events: list[dict[str, Any]] = []

    def note(event: str, t: int, **values: Any) -> None:
        events.append({"event": event, "experience": t, "seconds": 0, **values})

    for t, domain in enumerate(domains):
        changed = t > 0 and domain != domains[t - 1]
        note(
            "domain",
            t,
            domain=domain,
            changed=changed,
            seen_before=domain in domains[:t],
            severity=1.0,
        )
        left = dict.fromkeys(blocks, False)
        grown: set[int] = set()
        for window in range(windows if t else 0):
            for block in (block for block in blocks if block not in grown):
                is_blind = generator.random() < miss
                scores = [
                    float(generator.normal(0.6 if home == domain or is_blind else 2.4, 0.2))
                    for home in homes[block]
                ]
                thresholds = [1.2] * len(scores)
                best = int(np.argmin(scores))
                fired = min(scores) > 1.2
                left[block] |= scores[active[block]] > 1.2
                note(
                    "scan",
                    t,
                    block=block,
                    window=window,
                    images=128,
                    scores=scores,
                    thresholds=thresholds,
                    score=scores[best],
                    threshold=1.2,
                    adapter=best,
                    fired=fired,
                    grown=fired and grows,
                    reason="all detectors fired"
                    if fired
                    else f"adapter {best} recognises the data",
                )
                if fired and grows:
                    homes[block].append(domain)
                    grown.add(block)
                    note("growth", t, block=block, adapters=len(homes[block]), parameters=COST)
        for block in blocks:
            home = homes[block]
            active[block] = home.index(domain) if domain in home else active[block]
            note("active", t, block=block, adapter=active[block], changed=left[block])
            weights = generator.dirichlet([0.4] * len(home), size=t + 1)
            note("router", t, block=block, weights=weights.tolist())
        added = 5_000 + 200 * t + COST * sum(len(home) - 1 for home in homes.values())
        note("parameters", t, trainable=1, added=added, total=300_000 + added)
    return events


def write_growth(folder: Path, domains: Sequence[str], **options: Any) -> None:
    """Appends the events of a growing run to a run directory."""
    append_events(folder, growth_events(domains, **options))
