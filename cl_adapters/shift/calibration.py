"""Thresholds for the mean of n scores, from scores of held-out data of the same distribution."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["mean_threshold"]

_DRAWS = 2000


def mean_threshold(held_out: Tensor, size: int, false_alarm: float, seed: int) -> float:
    """Returns the value that the mean of `size` new scores exceeds with the given probability.

    A two-sample bootstrap: the mean of `size` scores minus the mean of as many as were held out,
    both drawn from the held-out scores, so that the error of the reference counts as well. Draws
    around a mean of m scores are too narrow by sqrt(1 - 1 / m); that factor is undone.

    Args:
        held_out: Scores of m samples, (m,), m at least 2.
        size: Samples in a window, n.
        false_alarm: The probability.
        seed: Seed of the draws.
    """
    scores = held_out.double().cpu().numpy()
    rng = np.random.default_rng([seed, size])
    count = len(scores)
    # Multinomial counts in place of indices: one product gives all means.
    window = rng.multinomial(size, np.full(count, 1 / count), _DRAWS) @ scores / size
    reference = rng.multinomial(count, np.full(count, 1 / count), _DRAWS) @ scores / count
    spread = (window - reference) / np.sqrt(1 - 1 / count)
    return float(torch.tensor(scores).mean()) + float(np.quantile(spread, 1 - false_alarm))
