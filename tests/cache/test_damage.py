"""Damaged blocks of the cache: dropped, never read, and never the end of the process."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_adapters.cache.feature_cache import FeatureCache
from tests.benchmarks.killable import forked

ROWS = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
KEYS = [bytes([place]) * 32 for place in range(40)]
EARLIER = Path(__file__).parent / "of_version_1.memo"  # holds rows of keys that look alike

Record = Callable[[str, object], None]


def compute(places: list[int]) -> Tensor:
    return ROWS[torch.tensor(places)]


def ask(folder: Path) -> bool:
    """Says whether the rows of a cache are right."""
    cache = FeatureCache(folder)
    right = torch.equal(cache.rows("aa", KEYS, compute), ROWS)
    return right and torch.equal(cache.rows("aa", KEYS[::-1], compute), ROWS.flip(0))


def damaged(data: bytes, drawn: random.Random) -> bytes:
    """Flips some bits, most often one; or cuts, or doubles a part."""
    kind = drawn.choice(["flip", "flip", "flip", "frame", "frame", "cut", "double", "many"])
    found = bytearray(data)
    if kind == "cut":
        return data[: drawn.randrange(len(data))]
    if kind == "double":
        start, end = sorted(drawn.randrange(len(data)) for _ in range(2))
        return data[:end] + data[start:end] + data[end:]
    if kind == "frame":  # what Arrow's own reader believes: its head and its foot
        places = [*range(min(700, len(data))), *range(max(len(data) - 900, 0), len(data))]
        found[drawn.choice(places)] ^= 1 << drawn.randrange(8)
        return bytes(found)
    for _ in range(drawn.randrange(2, 40) if kind == "many" else 1):
        found[drawn.randrange(len(found))] ^= 1 << drawn.randrange(8)
    return bytes(found)


def survives(folder: Path, number: int, seed: str) -> None:
    """Asks so many damaged caches in a process that has to live, and to get every row right."""
    whole = FeatureCache(folder / "whole")
    whole.rows("aa", KEYS, compute)
    whole.flush()
    (block,) = (folder / "whole").glob("*/*.memo")
    blocks = [block.read_bytes(), EARLIER.read_bytes()]

    def work() -> None:
        drawn = random.Random(seed)
        for index in range(number):
            place = folder / "damaged" / "aa"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            (place / "x.memo").write_bytes(damaged(blocks[index % 2], drawn))
            assert ask(folder / "damaged"), f"a wrong row in number {index}"

    assert os.waitpid(forked(work), 0)[1] == 0


def test_damaged_blocks_are_dropped(tmp_path: Path, record_property: Record) -> None:
    """A few; the next test takes many."""
    survives(tmp_path, 100, "few blocks")
    record_property("reliability: damaged cache blocks", 100)


@pytest.mark.slow
def test_many_damaged_blocks_are_dropped(tmp_path: Path, record_property: Record) -> None:
    survives(tmp_path, 3000, "many blocks")
    print("\n3000 damaged blocks: 0 crashes, 0 wrong rows")  # noqa: T201
    record_property("reliability: damaged cache blocks", 3000)


def test_a_pipe_in_the_cache_is_left_alone(tmp_path: Path) -> None:
    """Nobody waits for it."""
    (tmp_path / "aa").mkdir()
    os.mkfifo(tmp_path / "aa" / "pipe.memo")
    assert ask(tmp_path)
    assert (tmp_path / "aa" / "pipe.memo").exists()


def test_a_block_that_is_cut_while_it_is_open_is_dropped(tmp_path: Path) -> None:
    """To look behind its end would be the end of the process."""
    writer = FeatureCache(tmp_path)
    writer.rows("aa", KEYS, compute)
    writer.flush()
    reader = FeatureCache(tmp_path)
    reader.rows("aa", KEYS[:1], compute)
    (block,) = tmp_path.glob("*/*.memo")

    def work() -> None:
        os.truncate(block, 0)
        assert torch.equal(reader.rows("aa", KEYS, compute), ROWS)

    assert os.waitpid(forked(work), 0)[1] == 0


def test_a_folder_whose_name_is_no_text_is_one_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xff:c")
    FeatureCache(folder).rows("aa", KEYS, compute)
    cache = FeatureCache(folder)
    cache.rows("aa", KEYS, compute)
    cache.flush()
    assert cache.trouble is None
    later = FeatureCache(folder)
    assert torch.equal(later.rows("aa", KEYS, compute), ROWS)
    assert later.computed == 0
