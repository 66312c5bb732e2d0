"""The schedule against ticks of a clock and closed forms; the page against the command."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.maintenance import sizing
from cl_adapters.benchmarks.maintenance.sizing import (
    STREAMS,
    Job,
    Machine,
    measured_rates,
    methods,
    simulate,
    speeds,
    study,
    tables,
)
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from tests.benchmarks.killable import run

PAGE = Path(__file__).parents[3] / "docs" / "sizing.md"


def ticked(jobs: list[Job], workers: int, bandwidth: float, tick: float = 0.002) -> float:
    """One cache, in small steps of time; each worker asks for a tick's bytes again and again."""
    waiting = sorted(jobs, key=lambda job: -job.seconds)
    active: list[list[float]] = []  # seconds left, bytes a second
    now = 0.0
    while waiting or active:
        while waiting and len(active) < workers:
            job = waiting.pop(0)
            active.append([job.seconds, job.bytes / job.seconds])
        left, given = bandwidth * tick, [0.0] * len(active)
        hungry = list(range(len(active)))
        while hungry and left > 1e-12:  # even shares until nobody wants more
            share, left = left / len(hungry), 0.0
            for place in list(hungry):
                taken = min(share, active[place][1] * tick - given[place])
                given[place] += taken
                left += share - taken
                if given[place] >= active[place][1] * tick - 1e-12:
                    hungry.remove(place)
        for place, worker in enumerate(active):
            asked = worker[1] * tick
            worker[0] -= tick * (given[place] / asked if asked else 1.0)
        active = [worker for worker in active if worker[0] > 0]
        now += tick
    return now


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_schedule_is_that_of_a_clock(workers: int) -> None:
    jobs = [
        Job("a", 5, 30), Job("b", 4, 0), Job("c", 3, 9), Job("d", 3, 1), Job("e", 2, 20),
        Job("f", 1, 2),
    ]  # fmt: skip
    for bandwidth in (3.0, 8.0, 100.0):
        found = simulate(jobs, [workers], bandwidth)
        assert found.seconds == pytest.approx(ticked(jobs, workers, bandwidth), abs=0.03)
        assert found.work == 18
        assert found.work <= found.held + 1e-9
        assert found.held <= workers * found.seconds + 1e-9


def test_closed_forms() -> None:
    """Enough bandwidth: rounds of equal jobs. Too little: all bytes over the bandwidth."""
    plenty = simulate([Job("", 7, 1)] * 10, [4], 1e9)
    assert plenty.seconds == pytest.approx(21)
    assert plenty.held == pytest.approx(70)
    scarce = simulate([Job("", 1, 50)] * 8, [8], 10)
    assert scarce.seconds == pytest.approx(40)
    two = simulate([Job("", 1, 50)] * 8, [4, 4], 10)
    assert two.seconds == pytest.approx(20), "two memos, twice the bandwidth"
    assert simulate([Job("", 10), *[Job("", 1)] * 5], [6], 1).seconds == pytest.approx(10)


def test_a_share_that_one_does_not_ask_for_goes_to_others() -> None:
    found = speeds([2.0, 10.0, 0.0, 10.0], 12.0)
    assert found == pytest.approx([1.0, 0.5, 1.0, 0.5])
    assert speeds([1.0, 1.0], 5.0) == [1.0, 1.0]


def test_counts_of_a_run_are_those_of_the_protocol() -> None:
    cifar = STREAMS[0]
    assert cifar.evaluated == sum(1000 * (t + 1) for t in range(10))
    assert cifar.later == 45_000
    assert cifar.alignment_steps == sum(30 * 10 * (t + 1) for t in range(1, 10))
    work = methods(cifar)
    assert len(work) == 12
    assert work["finetune"].passes == pytest.approx(5 * 50_000 * 2.58 + 55_000 * 1.12)
    assert work["sema"].bytes == pytest.approx(197 * 768 * 2 * (5 * 45_000 + 55_000))


def test_a_machine_twice_as_large_is_at_most_twice_as_fast() -> None:
    one = Machine(name="", workers=1, passes=2000, step=0.0005)
    eight = Machine(name="", workers=8, passes=2000, step=0.0005)
    gain = study(STREAMS[0], one).seconds / study(STREAMS[0], eight).seconds
    assert 6 < gain <= 8


def test_the_page_holds_what_the_command_prints() -> None:
    text = PAGE.read_text("utf-8")
    shown = "\n".join(re.findall(r"^\|.*$", text.split("<!-- tables -->")[1], flags=re.M))
    printed = "\n".join(line for line in tables().splitlines() if line)
    assert shown == printed
    assert "python -m cl_adapters.benchmarks.maintenance.sizing" in text


@pytest.mark.slow
def test_rates_are_those_of_the_events(tmp_path: Path) -> None:
    run("simplecil", tmp_path)
    run("finetune", tmp_path)
    rows = {(row[0], row[1]): row[2:] for row in measured_rates([tmp_path])[1:]}
    (folder,) = (path.parent for path in tmp_path.glob("*/finetune/*/run.json"))
    events = [e for e in read_events(folder) if e.event == "phase" and e.name == "train"]
    images = sum(each.images for each in events)
    spent = sum(each.seconds for each in events)
    assert rows["finetune", "train"][0] == str(images)
    assert float(rows["finetune", "train"][1]) == pytest.approx(1000 * spent / images, abs=0.006)
    assert rows["simplecil", "evaluation"][2] == "1.00"


def test_rates_without_a_pass_are_refused(tmp_path: Path) -> None:
    app = sizing.typer.Typer()
    app.command()(sizing.main)
    result = CliRunner().invoke(app, ["--rates", str(tmp_path)])
    assert result.exit_code == 2
    assert "must hold a finished run of simplecil" in result.output
    with pytest.raises(InputError, match="must exist"):
        measured_rates([tmp_path / "nowhere"])
