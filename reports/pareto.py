"""Which methods are worth their cost: nothing is both better and cheaper."""

from collections.abc import Sequence

import numpy as np

__all__ = ["frontier"]


def frontier(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Returns the numbers of the points that no other point beats, cheapest first.

    A point beats another if it costs no more and scores no less, and differs in one of the two.
    Points without a cost or a score take no part.

    Example:
        >>> frontier([1.0, 2.0, 3.0, 4.0], [50.0, 70.0, 60.0, 70.0])
        [0, 1]
    """
    known = [i for i in range(len(costs)) if not np.isnan(costs[i]) and not np.isnan(scores[i])]
    best = [i for i in known if not any(_beats(costs, scores, j, i) for j in known)]
    return sorted(best, key=lambda i: (costs[i], i))


def _beats(costs: Sequence[float], scores: Sequence[float], one: int, other: int) -> bool:
    is_no_worse = costs[one] <= costs[other] and scores[one] >= scores[other]
    return is_no_worse and (costs[one] < costs[other] or scores[one] > scores[other])
