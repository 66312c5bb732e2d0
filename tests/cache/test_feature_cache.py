"""The cache against a dictionary in memory, other processes, damage and a full disk."""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_adapters.cache.feature_cache import FeatureCache, open_cache

SOURCE = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
KEYS = [bytes([place]) * 32 for place in range(50)]


class Computer:
    """Rows of `SOURCE`, and how often each was asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.asked: list[int] = []
        self.dtype = dtype

    def of(self, wanted: list[int]) -> Callable[[list[int]], Tensor]:
        def compute(places: list[int]) -> Tensor:
            rows = [wanted[place] for place in places]
            self.asked += rows
            return SOURCE[torch.tensor(rows)].to(self.dtype)

        return compute

    def ask(self, cache: FeatureCache, wanted: list[int], namespace: str = "aa") -> Tensor:
        return cache.rows(namespace, [KEYS[each] for each in wanted], self.of(wanted))


@settings(deadline=None, max_examples=40)
@given(
    asks=st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=12), max_size=8),
    flushes=st.sets(st.integers(0, 7)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
)
def test_answers_as_a_dictionary_and_asks_once(
    tmp_path_factory: pytest.TempPathFactory,
    asks: list[list[int]],
    flushes: set[int],
    dtype: torch.dtype,
) -> None:
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    computer = Computer(dtype)
    for number, wanted in enumerate(asks):
        rows = computer.ask(cache, wanted)
        assert rows.dtype == dtype
        assert torch.equal(rows, SOURCE[torch.tensor(wanted)].to(dtype))
        if number in flushes:
            cache.flush()
    assert len(computer.asked) == len(set(computer.asked)) == cache.computed


def test_namespaces_do_not_share_rows(tmp_path: Path) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()
    computer.ask(cache, [1, 2], "aa")
    computer.ask(cache, [1, 2], "bb")
    assert computer.asked == [1, 2, 1, 2]


def test_a_later_process_reads_what_was_flushed(tmp_path: Path) -> None:
    first, second = Computer(), Computer()
    cache = FeatureCache(tmp_path)
    first.ask(cache, [3, 4, 5])
    cache.flush()
    rows = second.ask(FeatureCache(tmp_path), [5, 6, 3])
    assert second.asked == [6]
    assert torch.equal(rows, SOURCE[torch.tensor([5, 6, 3])])


def test_a_block_written_meanwhile_is_found(tmp_path: Path) -> None:
    reader, writer, computer = FeatureCache(tmp_path), FeatureCache(tmp_path), Computer()
    computer.ask(reader, [0])
    computer.ask(writer, [1])
    writer.flush()
    computer.ask(reader, [1])
    assert computer.asked == [0, 1]


def _fill(folder: Path, start: int) -> None:
    cache, computer = FeatureCache(folder), Computer()
    for turn in range(10):
        wanted = [(start + turn * 3 + step) % 50 for step in range(8)]
        assert torch.equal(computer.ask(cache, wanted), SOURCE[torch.tensor(wanted)])
        cache.flush()


def test_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # which has torch imported
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 7)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    cache, computer = FeatureCache(tmp_path), Computer()
    assert torch.equal(computer.ask(cache, list(range(38))), SOURCE[:38])
    assert not computer.asked
    assert not list(tmp_path.glob("*/*.tmp"))


@pytest.mark.parametrize("seed", range(30))
def test_damage_is_computed_again_and_never_used(tmp_path: Path, seed: int) -> None:
    cache = FeatureCache(tmp_path)
    Computer().ask(cache, list(range(50)))
    cache.flush()
    (block,) = tmp_path.glob("*/*.memo")
    data = bytearray(block.read_bytes())
    place = int(torch.randint(len(data), (1,), generator=torch.Generator().manual_seed(seed)))
    data[place] ^= 0x10
    block.write_bytes(data)
    computer, again = Computer(), FeatureCache(tmp_path)
    for _ in range(2):
        assert torch.equal(computer.ask(again, list(range(50))), SOURCE)
    again.flush()
    last = Computer()
    assert torch.equal(last.ask(FeatureCache(tmp_path), list(range(50))), SOURCE)
    assert not last.asked


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_block_is_thrown_away(tmp_path: Path, kept: float) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()
    computer.ask(cache, [1, 2, 3])
    cache.flush()
    (block,) = tmp_path.glob("*/*.memo")
    data = block.read_bytes()
    block.write_bytes(data[: int(kept * len(data))])
    assert torch.equal(computer.ask(FeatureCache(tmp_path), [1, 2, 3]), SOURCE[1:4])
    assert computer.asked == [1, 2, 3, 1, 2, 3]
    assert not block.exists()


def test_strangers_and_later_formats_are_left_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    Computer().ask(cache, [1, 2])
    cache.flush()
    (block,) = tmp_path.glob("*/*.memo")
    later = block.with_name("later.memo")
    later.write_bytes(block.read_bytes().replace(b"cl-adapters memo 1", b"cl-adapters memo 2"))
    stranger = tmp_path / "dataset" / "data-00000.arrow"
    stranger.parent.mkdir()
    stranger.write_bytes(bytes(2**20))
    small, computer = FeatureCache(tmp_path, megabytes=0.001), Computer()
    computer.ask(small, [1, 2, 3])
    small.flush()
    assert computer.asked == [3]
    assert stranger.exists()
    assert FeatureCache(tmp_path).size() < 2**20


def test_a_run_knows_what_earlier_ones_computed(tmp_path: Path) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()
    computer.ask(cache, [1, 2])
    cache.begin()
    computer.ask(cache, [2, 3])
    computer.ask(cache, [3, 2])
    assert cache.take_counts() == (3, 1, 2)


def test_the_least_recently_used_blocks_go_first(tmp_path: Path) -> None:
    big = torch.zeros(1, 2**18, dtype=torch.uint8)  # a quarter of a megabyte a row
    asked: list[bytes] = []

    def ask(cache: FeatureCache, key: bytes) -> None:
        cache.rows("aa", [key], lambda _: asked.append(key) or big)  # type: ignore[func-returns-value]
        cache.flush()

    for age, key in enumerate([b"old", b"mid", b"new"]):
        ask(FeatureCache(tmp_path), key)
        for block in tmp_path.glob("*/*.memo"):
            if block.stat().st_mtime > 10**6:
                os.utime(block, (age, age))
    ask(FeatureCache(tmp_path), b"old")  # used now, so it is the youngest
    small = FeatureCache(tmp_path, megabytes=0.6)
    ask(small, b"more")
    assert small.size() <= 0.6 * 2**20
    del asked[:]
    for key in (b"old", b"more", b"new", b"mid"):
        ask(FeatureCache(tmp_path), key)
    assert asked == [b"new", b"mid"]


def test_a_full_disk_costs_nothing_but_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cl_adapters.cache.namespace.write_block", full)
    assert torch.equal(computer.ask(cache, [1, 2]), SOURCE[1:3])
    cache.flush()
    assert "No space left" in str(cache.trouble)
    assert torch.equal(computer.ask(cache, [1, 2]), SOURCE[1:3])
    assert computer.asked == [1, 2, 1, 2]


def test_a_folder_that_is_a_file_is_no_trouble_for_the_rows(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    cache, computer = FeatureCache(tmp_path / "cache"), Computer()
    assert torch.equal(computer.ask(cache, [7]), SOURCE[7:8])
    cache.flush()
    assert cache.trouble is not None


def _calls(ask: Callable[[], object]) -> int:
    """Returns how many functions written in Python a call runs."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        ask()
    finally:
        sys.setprofile(None)
    return count


def test_known_rows_cost_no_call_each(tmp_path: Path) -> None:
    rows = torch.arange(2048 * 3, dtype=torch.float32).reshape(2048, 3)
    keys = [place.to_bytes(32, "big") for place in range(2048)]
    writer = FeatureCache(tmp_path)
    writer.rows("aa", keys, lambda places: rows[torch.tensor(places)])
    writer.flush()
    cache, costs = FeatureCache(tmp_path), []
    for start, count in ((0, 1), (64, 64), (64, 64), (1024, 1024)):
        wanted = keys[start : start + count]
        costs.append(_calls(lambda wanted=wanted: cache.rows("aa", wanted, _never)))  # type: ignore[misc]
        assert torch.equal(cache.rows("aa", wanted, _never), rows[start : start + count])
    assert max(costs[1:]) < 32
    assert costs[1] == costs[3], "as many for 64 rows as for 1024"


def _never(places: list[int]) -> Tensor:
    raise AssertionError(f"{len(places)} rows were known")


def test_rows_of_memory_and_of_several_blocks_come_in_order(tmp_path: Path) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()
    for wanted in ([0, 1, 2], [3, 4], [5]):
        computer.ask(cache, wanted)
        cache.flush()
    wanted = [7, 5, 0, 4, 6, 3, 0, 7]
    computer.ask(cache, [6])
    assert torch.equal(computer.ask(cache, wanted), SOURCE[torch.tensor(wanted)])
    assert computer.asked == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_block_of_the_first_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "aa").mkdir()
    shutil.copy(Path(__file__).parent / "of_version_1.memo", tmp_path / "aa")
    computer = Computer()
    assert torch.equal(computer.ask(FeatureCache(tmp_path), [2, 0]), SOURCE[torch.tensor([2, 0])])
    assert not computer.asked


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_ADAPTERS_CACHE", str(tmp_path / "new"))
    monkeypatch.setenv("CL_ADAPTERS_MEMO", str(tmp_path / "old"))
    assert _folder() == tmp_path / "new"
    monkeypatch.delenv("CL_ADAPTERS_CACHE")
    with pytest.warns(FutureWarning, match="CL_ADAPTERS_MEMO is now called CL_ADAPTERS_CACHE"):
        assert _folder() == tmp_path / "old"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CL_ADAPTERS_MEMO")
    assert _folder() == tmp_path / "cl-adapters/memo", "where earlier versions kept theirs"


def _folder() -> Path:
    cache = open_cache()
    assert cache is not None
    return cache.folder


def test_what_is_known_anyway_is_kept_and_counted_nowhere(tmp_path: Path) -> None:
    cache, computer = FeatureCache(tmp_path), Computer()
    computer.ask(cache, [4])
    first = cache.get_or_set("aa", KEYS[7], SOURCE[7:8])
    again = cache.get_or_set("aa", KEYS[7], SOURCE[8:9])
    assert torch.equal(first, SOURCE[7:8])
    assert torch.equal(again, SOURCE[7:8])  # who came first is kept
    assert (cache.read, cache.computed, cache.earlier_hits) == (0, 1, 0)
    assert torch.equal(computer.ask(cache, [7]), SOURCE[7:8])
    assert computer.asked == [4]
