"""What the first hour costs is measured of the command alone, over material that is sound."""

import sys
from pathlib import Path

import pytest

from cl_adapters.benchmarks.data.inspect_data import inspect_data
from cl_adapters.benchmarks.maintenance.first_hour import (
    command_lines,
    spent,
    write_images,
    write_runs,
)
from cl_adapters.reports.load import load_runs


def test_time_memory_and_silence_are_those_of_the_process(tmp_path: Path) -> None:
    work = "import time; held = b'1' * 2**28; end = time.process_time() + 0.5\n"
    work += (
        "while time.process_time() < end: pass\nprint('a', flush=True); time.sleep(1); print('b')"
    )
    found = spent([sys.executable, "-c", work], tmp_path)
    assert 0.5 <= found.processor < found.passed + 0.5
    assert found.gap >= 1
    assert found.megabytes > 256
    small = spent([sys.executable, "-c", "pass"], tmp_path)
    assert small.megabytes < 128, "the memory of the command before does not count"
    assert small.processor < 0.5


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        spent([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_the_material_is_sound_and_of_the_number_that_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 80, 64, classes=5)
    found = inspect_data(tmp_path / "photos")
    assert (len(found.looks), len(found.classes)) == (80, 5)
    assert found.is_good, found.findings
    write_runs(tmp_path / "runs", 6, images=10)
    loaded = load_runs([tmp_path / "runs"])
    names = sorted((run.record.strategy, run.record.seed) for run in loaded.finished)
    assert names == sorted(
        [("lae", 0), ("lae", 1), ("mos", 0), ("mos", 1), ("sema", 0), ("simplecil", 0)]
    )
    assert not loaded.broken
    assert all(each[0] == sys.executable for each in command_lines().values())
