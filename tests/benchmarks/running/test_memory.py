"""What a process holds: freed memory goes back to the system while a run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.memory import FreedMemory
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from tests.benchmarks.killable import stripes

# In a process of its own: what other tests have freed would be handed back with it.
PROGRAM = """
import os
import sys
from pathlib import Path

from cl_adapters.benchmarks.running.memory import FreedMemory


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


later, now = FreedMemory(seconds=3600), FreedMemory(seconds=0)
# The blocks are below the size that glibc maps on its own, and something small follows each.
pairs = [(bytearray(b"1" * 100_000), bytearray(b"2" * 1_000)) for _ in range(2_000)]
kept = [small for _, small in pairs]
pairs.clear()
held = [resident()]
for memory in (later, now):
    memory.give_back()
    held.append(resident())
assert all(each == b"2" * 1_000 for each in kept)
print(*held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it, and says what it holds")
def test_freed_blocks_go_back_though_small_ones_lie_between_them_and_not_before_it_is_due() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, early, after = (int(held) / 200e6 for held in done.stdout.split())
    assert before - early < 0.1
    assert before - after > 0.8


def test_a_run_gives_back_after_each_batch_of_training_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(FreedMemory, "give_back", lambda _: given.append("back"))
    values = {"strategy": "finetune", "backbone": "test_vit", "weights": "random", "increment": 2}
    config = RunConfig.parse({**values, "image_size": 32, "options": {"epochs": 3}})
    runner.run(prepare(config, source=stripes(train=6, test=2)), tmp_path)
    # Three experiences: three epochs of a batch each, and one to three evaluated.
    assert len(given) == 3 * 3 + 1 + 2 + 3
