"""Packed weights: every byte comes back, half-precision ones take less room, damage is told."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from cl_adapters.errors import InputError
from cl_adapters.vit.packing import pack_halves, unpack_halves


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4),
    kind=st.sampled_from(["float16", "float32", "uint8"]),
    seed=st.integers(0, 9),
)
@example(shapes=[[3]], kind="uint8", seed=0)  # an odd number of bytes
def test_every_byte_comes_back(shapes: list[list[int]], kind: str, seed: int) -> None:
    source = np.random.default_rng(seed)
    tensors = {
        str(index): source.normal(0, 40, shape).astype(np.int64).astype(kind)
        for index, shape in enumerate(shapes)
    }
    data = save(tensors)
    assert unpack_halves(pack_halves(data)) == data


def test_weights_take_less_room_than_by_any_compressor_as_they_are() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, 200_000).astype(np.float16)
    data = save({"weight": weights})
    assert len(pack_halves(data)) < 0.94 * len(zlib.compress(data, 9))


def damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "must begin with"),
        (lambda data: b"safetensors" + data, "must begin with"),
        (lambda data: data[:10], "must begin with"),
        (lambda data: damaged(data, 20), "must be whole, got: "),
        (lambda data: data[:60], "must be whole, got: "),
        (lambda data: data[:-3], "must have as many lower bytes as upper ones, 1000, got 997"),
    ],
)
def test_what_was_not_packed_is_refused(spoil: Callable[[bytes], bytes], message: str) -> None:
    packed = pack_halves(save({"weight": np.linspace(0, 1, 1000, dtype=np.float16)}))
    with pytest.raises(InputError, match=message):
        unpack_halves(spoil(packed))
