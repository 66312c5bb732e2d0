"""The global random states, for code that draws from them: third-party transforms and plugins."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_random_states", "seed_random_states"]


def seed_random_states(*parts: int) -> None:
    """Seeds Python's, NumPy's and torch's global random states from numbers mixed together."""
    mixed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - for code that draws from it
    torch.manual_seed(mixed)


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Gives the global random states back as they were, whatever the block draws.

    Example:
        >>> with kept_random_states():
        ...     seed_random_states(3)
        ...     inside = torch.rand(1)
        >>> bool(torch.rand(1) == inside)
        False
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
