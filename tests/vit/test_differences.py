"""Differences of weights: every bit comes back, few changes take little room, misuse is told."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.errors import InputError
from cl_adapters.vit.differences import difference, summed

ANY = st.integers(0, 2**32 - 1)  # bits of any float32: NaN with a payload, infinity, minus zero


@given(st.lists(st.tuples(ANY, ANY), max_size=50))
def test_every_bit_comes_back(bits: list[tuple[int, int]]) -> None:
    values, base = np.array(bits, np.uint32).reshape(-1, 2).T.copy().view(np.float32)
    found = summed(difference(values, base), base)
    assert found.dtype == np.float32
    assert found.tobytes() == values.tobytes()


def test_it_is_exact_where_a_difference_of_floats_is_not() -> None:
    base, values = np.float32([1.0, 3e38]), np.float32([1e-9, -3e38])
    with np.errstate(over="ignore"):
        assert (base + (values - base) != values).all()
    assert (summed(difference(values, base), base) == values).all()


def trained(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the same after training that changed them by this share of their spread."""
    source = np.random.default_rng(0)
    base, noise = source.normal(0, 0.05, (2, 100_000)).astype(np.float32)
    return base, base + np.float32(share) * noise


@pytest.mark.parametrize(("share", "most"), [(0.0, 0.002), (1e-4, 0.47), (1e-2, 0.68), (1.0, 0.85)])
def test_what_changed_little_takes_less_room(share: float, most: float) -> None:
    base, values = trained(share)
    assert len(difference(values, base)) < most * values.nbytes


def test_numbers_without_a_pattern_cost_a_head_alone() -> None:
    base, values = np.random.default_rng(0).integers(0, 2**32, (2, 999), np.uint32)
    packed = difference(values.view(np.float32), base.view(np.float32))
    assert len(packed) <= values.nbytes + 72


def damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "must begin with"),
        (lambda data: data[:60], "must begin with"),
        (lambda data: damaged(data, 9), "must meet the weights that it was made to"),
        (lambda data: damaged(data, len(data) - 3), "must be whole, got: "),
        (lambda data: damaged(data, 40), "must (be|have) "),
        (lambda data: data[:-3], "must have 100000 bytes in each part, got 100000 or a part wi"),
        (lambda data: data[:-50], "must have 100000 bytes in each part, got "),
    ],
)
def test_what_was_not_packed_is_refused(spoil: Callable[[bytes], bytes], message: str) -> None:
    base, values = trained(0.0)
    with pytest.raises(InputError, match=message):
        summed(spoil(difference(values, base)), base)


def test_a_part_of_another_size_is_refused() -> None:
    base, values = trained(0.0)
    packed = difference(values[:-1], base[:-1])
    whole = difference(values, base)
    forged = packed[:8] + whole[8:40] + packed[40:]  # as if it were made to all of them
    with pytest.raises(InputError, match="must have 100000 bytes in each part, got 99999"):
        summed(forged, base)


def test_other_weights_are_refused() -> None:
    base, values = trained(0.01)
    with pytest.raises(InputError, match="the backbone is not the one of the checkpoint"):
        summed(difference(values, base), base + 1)
