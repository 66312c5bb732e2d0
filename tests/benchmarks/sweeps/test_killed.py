"""Slow: sweeps, their workers and searches are killed at random moments, and nothing is lost.

Worker processes are forked from this one, which has imported everything, in place of begun anew.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pytest

from cl_adapters.benchmarks.sweeps import engine_local, retries, tune_command
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.benchmarks.sweeps.sweep_command import Plan, run_sweep
from cl_adapters.benchmarks.sweeps.tune_command import Effort, make_search, run_tune
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.benchmarks.killable import SOURCE, forked, killed_at_write
from tests.benchmarks.sweeps.sweeping import assert_same

Record = Callable[[str, object], None]
RECIPE = {"increment": 2, "image_size": 16, "threads": 1}
GRID = {**RECIPE, "strategy": ["simplecil", "lae"], "seeds": 2,
        "options": {"lae": {"epochs": 2, "freeze_epochs": 1}, "batch_size": 8}}  # fmt: skip


@pytest.fixture(autouse=True)
def of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_local, "get_context", lambda _: get_context("fork"))
    monkeypatch.setattr(retries, "_LAST", {})  # a process keeps what it opened last
    for module in (retries, tune_command):
        monkeypatch.setattr(module, "open_images", lambda _: SOURCE)


def swept(out: Path) -> None:
    workers = Workers(count=2, cache="off", checkpoint_minutes=0.001)
    assert run_sweep(Plan(GRID, out), workers, quiet=True, retries=5)


def children(process: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:  # it has ended
        return []


def killed(process: int, seconds: float, *, worker: bool) -> bool:
    """Kills a sweep after a while, or one of its workers; returns whether it came to that.

    A sweep that has lost a worker is waited for: it ends as if nothing had happened.
    """
    time.sleep(seconds)
    if worker and (found := children(process)):
        os.kill(found[-1], signal.SIGKILL)
        assert os.waitpid(process, 0)[1] == 0
        return True
    os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


@pytest.mark.slow
def test_a_sweep_and_its_workers_killed_at_random_moments_end_as_a_straight_one(
    tmp_path: Path, record_property: Record
) -> None:
    since = time.monotonic()
    assert os.waitpid(forked(partial(swept, tmp_path / "straight")), 0)[1] == 0
    seconds, drawn = time.monotonic() - since, random.Random("kills of sweeps")
    survived, number = 0, 0
    while survived < 10:
        out, number, kills, alive = tmp_path / f"killed-{number}", number + 1, 0, True
        while alive and kills < 4:
            process = forked(partial(swept, out))
            is_worker = kills == 3  # the last: with it the sweep comes to its end
            alive = killed(process, drawn.uniform(0.1, 0.9) * seconds, worker=is_worker)
            kills += alive
        assert os.waitpid(forked(partial(swept, out)), 0)[1] == 0
        assert_same(out, tmp_path / "straight")
        assert {RunRecord.read(each).state for each in find_runs([out])} == {"finished"}
        survived += kills
    record_property("reliability: kills of sweeps and their workers survived", survived)


def searched(out: Path) -> None:
    search = make_search(
        {**RECIPE, "strategy": "finetune", "validation": 0.25},
        recipe=None,
        settings=["epochs=1", "batch_size=8"],
        space=["lr=1e-6:0.05"],
        out=out,
    )
    run_tune(search, Effort(trials=5, cache="off", quiet=True))


def known(out: Path) -> list[tuple[Any, ...]]:
    """The trials that count, with all that was judged of them, and the recipe that won."""
    (database,) = out.glob("studies/*/study.db")
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    trials = optuna.load_study(study_name="tune", storage=storage).get_trials(states=states)
    storage.remove_session()
    storage.engine.dispose()
    return sorted(
        (each.params["lr"], each.state.name, each.value, sorted(each.intermediate_values.items()))
        for each in trials
    )


def best(out: Path) -> str:
    """The recipe that won, without the number of its trial, which lost ones move."""
    (recipe,) = out.glob("studies/*/best.toml")
    return "".join(recipe.read_text().splitlines(keepends=True)[1:])


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_as_a_straight_one(
    tmp_path: Path, record_property: Record
) -> None:
    since = time.monotonic()
    assert os.waitpid(forked(partial(searched, tmp_path / "straight")), 0)[1] == 0
    seconds, drawn = time.monotonic() - since, random.Random("kills of searches")
    survived, number = 0, 0
    while survived < 8:
        out, number, kills, alive = tmp_path / f"killed-{number}", number + 1, 0, True
        while alive and kills < 4:
            again = partial(searched, out)
            if kills % 2:
                alive = killed_at_write(drawn.randint(1, 50), again)
            else:
                alive = killed(forked(again), drawn.uniform(0, seconds), worker=False)
            kills += alive
        assert os.waitpid(forked(partial(searched, out)), 0)[1] == 0
        assert known(out) == known(tmp_path / "straight")
        assert best(out) == best(tmp_path / "straight")
        survived += kills
    record_property("reliability: kills of searches survived", survived)
