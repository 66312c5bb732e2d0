"""Slow: two hundred experiences in one process leave nothing behind but what was learned."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from cl_adapters.benchmarks.running.checkpoints import Inside, write_checkpoint
from cl_adapters.strategies import STRATEGIES
from cl_adapters.strategies.base import AdapterStrategy
from cl_adapters.strategies.probes import bytes_held
from cl_adapters.strategies.trial import TinyStream, Trial

EXPERIENCES = 200
# Joint trains on all data so far: its time, and the images it holds, grow by design.
FEWER = {"joint": 100}
# MOS aligns its head on all that it has stored, whose time grows by design.
OPTIONS: dict[str, dict[str, object]] = {
    "finetune": {"epochs": 1},
    "joint": {"epochs": 1},
    "lae": {"epochs": 1, "freeze_epochs": 0},
    "mos": {"epochs": 1, "alignment": False},
    "sema": {"epochs": 1, "descriptor_epochs": 1, "policy": "never"},
    "simplecil": {},
}


def resident() -> int:
    """Bytes of memory that the process has and uses: what was freed goes back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Most that an experience at the end may take of one at the beginning. MOS was measured at 1.3
# to 1.8, from about 35 to 175 stored sets, which are compared, averaged and copied after each.
SLOWER = {"mos": 2.5, "joint": 3.0}


class Meter:
    """What a strategy and the process hold, one number an experience or every fifty."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.held: list[int] = []
        self.learned: list[int] = []
        self.memory: list[int] = []
        self.handles: list[int] = []

    def read(self, strategy: AdapterStrategy, seconds: float) -> None:
        state = strategy.learned_state()
        self.seconds.append(seconds)
        self.learned.append(sum(value.nbytes for value in state.values()))
        self.held.append(bytes_held(strategy))
        if len(self.seconds) % 50 == 0:
            self.memory.append(resident())
            self.handles.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208


def soak(name: str, out: Path) -> Meter:
    """Two halves of four classes in turn: stored adapters grow with MOS, nothing else with any."""
    count = FEWER.get(name, EXPERIENCES)
    stream = TinyStream(experiences=((0, 1), (2, 3)) * (count // 2), per_class=6)
    strategy = Trial(STRATEGIES[name], OPTIONS[name]).build()
    strategy.keeper = inside = Inside(out, minutes=0)
    meter, tests = Meter(), stream.benchmark.test_stream[0]
    for number, experience in enumerate(stream.benchmark.train_stream):
        inside.begin(number)
        since = time.process_time()
        strategy.train(experience, eval_streams=[])
        strategy.eval(tests)
        strategy.take_events(number)
        spent = time.process_time() - since
        write_checkpoint(out, 0, strategy.learned_state())
        inside.drop()
        meter.read(strategy, spent)
    return meter


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_hundred_experiences_leave_only_what_was_learned(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    meter = soak(name, tmp_path)
    grown, explained = (each[-1] - each[49] for each in (meter.held, meter.learned))
    assert abs(grown - explained) <= max(0.05 * explained, 4096), (grown, explained)
    surplus = meter.memory[-1] - meter.memory[0] - explained
    assert surplus < 0.05 * meter.memory[0], "of all memory; the allocator keeps some"
    assert len(set(meter.handles)) == 1, "no file was left open"
    ratio = median(meter.seconds[-50:]) / median(meter.seconds[10:60])
    print(f"{name}: {surplus / 2**20:.1f} MiB beside {explained / 2**20:.1f}, time x {ratio:.2f}")  # noqa: T201
    assert ratio < SLOWER.get(name, 1.3), "an experience takes as long as one before"
    record_property("reliability: experiences soaked", len(meter.seconds))
