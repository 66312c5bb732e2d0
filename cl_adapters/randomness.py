"""The global random states, for code that draws from them: third-party transforms and plugins."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_text",
    "from_text",
    "kept_random_states",
    "random_states",
    "seed_random_states",
    "set_random_states",
]


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


def random_states() -> dict[str, Any]:
    """Returns the global random states as JSON can hold them: nothing has to be pickled.

    Example:
        >>> with kept_random_states():
        ...     states = random_states()
        ...     before = torch.rand(1), random.random()
        ...     set_random_states(states)
        ...     before == (torch.rand(1), random.random())
        True
    """
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            **legacy,
            "state": {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]},
        },
        "torch": as_text(torch.random.get_rng_state()),
        "cuda": [as_text(each) for each in _cuda_states()],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Brings back what `random_states` gave.

    A number of GPUs other than then keeps the states of those that are new.
    """
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    legacy = states["numpy"]
    key = np.array(legacy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})  # noqa: NPY002
    torch.random.set_rng_state(from_text(states["torch"]))
    for index, text in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(from_text(text), index)


def as_text(state: Tensor) -> str:
    """Returns the state of a torch generator, bytes, in hex digits."""
    return state.numpy().tobytes().hex()


def from_text(text: str) -> Tensor:
    """Returns the state that `as_text` wrote."""
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _cuda_states() -> list[Tensor]:
    # A process that has not used its GPU yet is not made to do so.
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if is_used else []
