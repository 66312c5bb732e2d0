"""What a report of many runs costs."""

import itertools
import time
from pathlib import Path

import pandas as pd
import pytest

from cl_adapters.records import events
from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun, run_maker
from tests.reports.growing import write_growth
from tests.reports.lines import append_event


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
def test_a_report_reads_the_events_of_a_run_once_and_anew_each_time(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [make_run("sema", seed) for seed in range(2)]
    for folder in folders:
        write_growth(folder, ("a", "b", "a", "c"), seed=0)
    read: list[Path] = []
    checked = events.read_checked

    def noted(folder: Path, name: str) -> bytes | None:
        read.append(folder)
        return checked(folder, name)

    monkeypatch.setattr(events, "read_checked", noted)
    write_report(folders, tmp_path / "report")
    assert sorted(read) == sorted(folder.resolve() for folder in folders)
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    for folder in folders:
        append_event(folder, "phase", 3, 1000.0, name="train", images=9)
    write_report(folders, tmp_path / "report")
    assert len(read) == 4
    (table,) = (tmp_path / "report" / "tables").glob("*-comparison.csv")
    assert pd.read_csv(table)["train_seconds_mean"].iloc[0] > 1000
    assert (tmp_path / "report" / "report.html").read_text("utf-8") != page


@pytest.mark.slow
def test_sixty_runs_take_seconds(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(4):
        for seed in range(15):
            make_run("m", seed, options={"rank": number}, sizes=(10,) * 10, per_class=20)
    start = time.process_time()
    write_report([tmp_path / "runs"], tmp_path / "report")
    assert time.process_time() - start < 10  # 2.1 s when written
