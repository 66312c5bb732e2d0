"""What a report of many runs costs."""

import itertools
import time
from pathlib import Path

import pytest

from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun, run_maker
from tests.reports.growing import write_growth


@pytest.mark.slow
def test_sixty_growing_runs_of_twelve_methods_cost_little_more_than_five_of_one(
    tmp_path: Path,
) -> None:
    domains = ("a", "a", "b", "b", "c", "c", "a", "a", "d", "d", "e", "e", "b", "b")

    def seconds(methods: int) -> float:
        root = tmp_path / f"{methods}"
        make = run_maker(root)
        for number, seed in itertools.product(range(methods), range(5)):
            folder = make("sema", seed, options={"k": number}, sizes=(1,) * 14, per_class=30)
            write_growth(folder, domains, seed=seed)
        start = time.process_time()
        write_report([root / "runs"], root / "report")
        return time.process_time() - start

    seconds(1)  # what is loaded once
    assert seconds(12) < 5 * seconds(1)  # 2.1 to 2.8 x, on machines fast and slow


@pytest.mark.slow
def test_sixty_runs_take_seconds(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(4):
        for seed in range(15):
            make_run("m", seed, options={"rank": number}, sizes=(10,) * 10, per_class=20)
    start = time.process_time()
    write_report([tmp_path / "runs"], tmp_path / "report")
    assert time.process_time() - start < 10  # 2.1 s when written
