"""Grids, plans and estimates against hand-made ones; worker processes that really die."""

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.benchmarks.sweeps import engine_local, retries
from cl_adapters.benchmarks.sweeps.engine_local import LocalEngine, run_one
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.live import SweepView, progress_of
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.benchmarks.sweeps.sweep import (
    PlannedRun,
    differing,
    estimate,
    expand_grid,
    folder_of,
    plan_sweep,
    title,
)
from cl_adapters.benchmarks.sweeps.sweep_command import Plan, run_sweep, sweep_grid
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

ROOT = Path(__file__).parents[3]
TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 5}


def grid(**changes: Any) -> dict[str, Any]:
    return {"strategy": "simplecil", **TINY, **changes}


def test_every_combination_is_a_run() -> None:
    configs = expand_grid(
        grid(
            strategy=["lae", "finetune"],
            increment=[2, 5],
            seeds=2,
            options={"epochs": [4, 6], "lae": {"peft": ["adapter", "lora"]}},
        )
    )
    found = {
        (each.strategy, each.increment, each.seed, tuple(sorted(each.options.items())))
        for each in configs
    }
    lae = {
        ("lae", increment, seed, (("epochs", epochs), ("peft", peft)))
        for increment, seed, epochs, peft in itertools.product(
            (2, 5), (0, 1), (4, 6), ("adapter", "lora")
        )
    }
    finetune = {
        ("finetune", increment, seed, (("epochs", epochs),))
        for increment, seed, epochs in itertools.product((2, 5), (0, 1), (4, 6))
    }
    assert found == lae | finetune
    assert len(configs) == len(found)


def test_what_a_strategy_does_not_have_makes_no_second_run() -> None:
    configs = expand_grid(grid(strategy="simplecil,lae", options={"epochs": [4, 5]}))
    assert [title(each) for each in configs] == [
        "simplecil on digits seed 0",
        "lae on digits seed 0 epochs=4",
        "lae on digits seed 0 epochs=5",
    ]


def test_titles_tell_all_runs_of_a_sweep_apart() -> None:
    values = grid(strategy="simplecil,lae", increment=[2, 5], seeds=2, augment=["none", "crop"])
    configs = expand_grid({**values, "options": {"epochs": [4, 5]}})
    keys = differing(configs)
    assert keys == ["increment", "augment"]
    assert title(configs[0], keys) == "simplecil on digits seed 0 increment=2 augment=none"
    assert len({title(each, keys) for each in configs}) == len(configs) == 24
    assert not differing(configs[:1])


def test_recipes_are_an_axis_and_an_option_of_one_strategy_wins(tmp_path: Path) -> None:
    for name, increment in (("a", 2), ("b", 5)):
        (tmp_path / f"{name}.toml").write_text(f"increment = {increment}\n")
    recipes = [str(tmp_path / "a.toml"), str(tmp_path / "b.toml")]
    values = {"strategy": "lae", "recipe": recipes, "options": {"lae.epochs": 7, "epochs": [4, 5]}}
    configs = expand_grid(values)
    assert [(each.increment, each.options) for each in configs] == [
        (2, {"epochs": 7}),
        (5, {"epochs": 7}),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": []}, "`strategy` must name at least one strategy, got none"),
        ({"strategy": "lea"}, "unknown strategy 'lea'; did you mean 'lae'"),
        ({"seeds": 0}, "`seeds` must be a whole number from 1 to 10000, got 0"),
        ({"increment": []}, "`increment` must hold at least one value, got an empty list"),
        ({"options": {"epochs": []}}, r"`options\.epochs` must hold at least one value"),
        ({"options": {"epochs": 3}}, r"`options\.epochs` must be an option of one of simplecil"),
        ({"options": 3}, "`options` must be a table, got 3"),
        ({"increments": 3}, "unknown recipe key 'increments'; did you mean 'increment'"),
    ],
)
def test_bad_grids_end_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand_grid(grid(**changes))


def test_the_command_line_overrides_a_grid_file(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('strategy = "lae"\nseeds = 3\n[options]\nepochs = [1]\n')
    found = sweep_grid(
        tmp_path / "grid.toml",
        {"strategy": "sema,mos", "stream": None, "seeds": 2},
        ["epochs=2,3", "mos.rounds=1"],
    )
    assert found == {
        "strategy": ["sema", "mos"],
        "seeds": 2,
        "options": {"epochs": ["2", "3"], "mos.rounds": ["1"]},
    }
    with pytest.raises(InputError, match="--set must have the form key=1,2,3, got 'epochs'"):
        sweep_grid(None, {}, ["epochs"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of SimpleCIL."""
    out = tmp_path_factory.mktemp("runs")
    for config in expand_grid(grid(seeds=2)):
        assert run_one(config, out).error is None
    return out


def test_plans_know_what_is_done_and_what_it_cost(finished: Path) -> None:
    planned = plan_sweep(expand_grid(grid(strategy="simplecil,lae", seeds=4)), finished)
    assert [each.state for each in planned] == ["finished"] * 2 + ["new"] * 6
    assert [each.folder for each in planned[:2]] == find_runs([finished])
    records = [RunRecord.read(folder) for folder in find_runs([finished])]
    sizes = [
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in find_runs([finished])
    ]
    found = estimate(planned, finished)
    # The two of SimpleCIL that are left cost what its two finished ones did; of LAE nothing is known.
    assert found.seconds == pytest.approx(sum(each.seconds for each in records))
    assert found.bytes == pytest.approx(sum(sizes), abs=1)
    assert found.unknown == tuple(f"lae on digits seed {seed}" for seed in range(4))
    assert estimate(planned[4:], finished).seconds is None
    done, whole, accuracy = progress_of(planned[0].config, finished)
    rows = read_predictions(find_runs([finished])[0])
    last = rows[rows["experience"] == rows["experience"].max()]
    assert (done, whole) == (2, 2)
    assert accuracy == sum(last["prediction"] == last["target"]) / len(last)


def test_without_a_terminal_the_start_and_each_experience_are_lines(finished: Path) -> None:
    (config, *_) = expand_grid(grid(seeds=2))
    told = io.StringIO()
    with SweepView(Console(file=told), finished, [config], None) as view:
        view([config], [])
        view([config], [])
    accuracy = progress_of(config, finished)[2]
    assert told.getvalue().splitlines() == [
        f"{title(config)}: starts",
        f"{title(config)}: experience 2 of 2, {accuracy:.1%} right so far",
    ]


def test_the_demo_shows_what_this_is_for() -> None:
    runs = expand_grid(read_recipe(ROOT / "examples" / "demo.toml"))
    assert {each.strategy for each in runs} >= {"sema", "mos", "lae", "simplecil"}
    assert {(each.stream, each.scenario) for each in runs} == {("digits", "shift")}


def test_what_is_done_of_a_run_costs_nothing_more(tmp_path: Path) -> None:
    first, second = expand_grid(grid(seeds=2))

    def record(config: RunConfig, done: int, **values: Any) -> RunRecord:
        return RunRecord(
            strategy="simplecil", stream="digits", seed=config.seed, fingerprint={},
            config=config.model_dump(mode="json"), classes=list("abcd"),
            experiences=[[0], [1], [2], [3]], experiences_done=done, **values,
        )  # fmt: skip

    whole = record(first, 4, state="finished", seconds=100.0)
    whole.write(tmp_path / whole.directory)
    size = (tmp_path / whole.directory / "run.json").stat().st_size
    for done in range(4):
        begun = PlannedRun(second, "unfinished", tmp_path / "begun", record(second, done))
        found = estimate([PlannedRun(first, "finished"), begun], tmp_path)
        assert found.seconds == pytest.approx(100 * (4 - done) / 4)
        assert found.bytes == pytest.approx(size * (4 - done) / 4, abs=1)


def test_a_changed_recipe_is_another_run(finished: Path) -> None:
    (config, *_) = expand_grid(grid())
    assert folder_of(config, finished) == find_runs([finished])[0]
    assert folder_of(config.model_copy(update={"precision": "bf16"}), finished) is None


class ScriptedPool:
    """Stands for a pool: runs in this process, and loses workers when told to."""

    def __init__(self, script: dict[int, list[str]]) -> None:
        self.script, self.alone = script, []
        self.pending: list[Any] = []

    def submit(self, _: Any, config: RunConfig, *__: Any) -> Any:
        future: Any = engine_local.Future()
        self.pending.append((future, config.seed))
        return future

    def settle(self, *_: Any, **__: Any) -> tuple[set[Any], set[Any]]:
        ends = {seed: self.script.get(seed, []) for _, seed in self.pending}
        fatal = [seed for seed, end in ends.items() if end and end[0] == "die"]
        done = set()
        for future, seed in self.pending:
            config = RunConfig(strategy="simplecil", seed=seed)
            if fatal:
                future.set_exception(engine_local.BrokenProcessPool())
            else:
                end = self.script[seed].pop(0) if self.script.get(seed) else "good"
                error = None if end == "good" else end
                future.set_result(Outcome(config, error=error, final=end == "bad recipe"))
            done.add(future)
        for seed in fatal:
            self.script[seed].pop(0)
        self.alone.append([seed for _, seed in self.pending])
        self.pending = []
        return done, set()


def scripted(
    monkeypatch: pytest.MonkeyPatch, script: dict[int, list[str]], retries: int
) -> tuple[list[Outcome], list[list[int]]]:
    pool = ScriptedPool(script)

    class Always:
        def __enter__(self) -> ScriptedPool:
            return pool

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(engine_local, "_pool", lambda *_: Always())
    monkeypatch.setattr(engine_local, "wait", pool.settle)
    configs = [RunConfig(strategy="simplecil", seed=seed) for seed in range(4)]
    engine = LocalEngine(Workers(2))
    return engine.run(configs, Path("x"), retries=retries, watch=lambda *_: None), pool.alone


def test_a_lost_worker_costs_its_own_run_a_try_and_nobody_else_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes, together = scripted(monkeypatch, {1: ["die", "die", "die"]}, retries=1)
    assert [each.error is None for each in outcomes] == [True, False, True, True]
    assert "ended from outside" in str(outcomes[1].error)
    # After the first loss both suspects run alone, then pairs again.
    assert together[:3] == [[0, 1], [0], [1]]
    assert [2, 3] in together


def test_failures_are_tried_again_and_bad_recipes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {0: ["disk full", "good"], 1: ["bad recipe"], 2: ["disk full"] * 3}
    outcomes, together = scripted(monkeypatch, script, retries=1)
    assert [each.error for each in outcomes] == [None, "bad recipe", "disk full", None]
    tries = list(itertools.chain.from_iterable(together))
    assert [tries.count(seed) for seed in range(4)] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("error", "final", "text"),
    [
        (InputError("a sentence"), True, "a sentence"),
        (RunError("loss"), False, "loss"),
        (OSError("disk"), False, "disk"),
        (ZeroDivisionError("bug"), True, "ZeroDivisionError: bug"),
        (SystemExit(0), True, "SystemExit: 0"),
    ],
)
def test_whatever_ends_a_run_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, final: bool, text: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(retries, "run_stepwise", fail)
    (config,) = expand_grid(grid())
    outcome = run_one(config, tmp_path)
    assert (outcome.error, outcome.final, outcome.folder) == (text, final, None)


def test_what_a_failed_run_says_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets are no markup, and no terminal obeys what comes from a file's name."""

    def fail(_: object, configs: list[RunConfig], *__: object, **___: object) -> list[Outcome]:
        return [Outcome(each, error="ant[/red]\x1b[31m must be an image") for each in configs]

    monkeypatch.setattr(LocalEngine, "run", fail)
    assert not run_sweep(Plan(grid(), tmp_path), Workers(1, cache="off"))
    assert "ant[/red]\\x1b[31m must be an image" in capsys.readouterr().err


def sweep_process(out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cl_adapters", "sweep", str(out / "grid.toml")]
    return subprocess.Popen(
        [*command, "--out", str(out / "runs"), "--workers", "2"], text=True, stderr=subprocess.PIPE
    )


def predictions(out: Path) -> dict[str, pd.DataFrame]:
    return {str(each.relative_to(out)): read_predictions(each) for each in find_runs([out])}


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_runs_one_by_one(tmp_path: Path) -> None:
    values = grid(strategy=["lae", "simplecil"], seeds=3, options={"lae": {"epochs": 4}})
    configs = expand_grid(values)
    for config in configs:
        assert run_one(config, tmp_path / "alone").error is None
    lines = [f"{key} = {value!r}" for key, value in values.items() if key != "options"]
    (tmp_path / "grid.toml").write_text("\n".join([*lines, "[options.lae]", "epochs = 4\n"]))
    for stop in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        with sweep_process(tmp_path) as process:
            deadline = time.monotonic() + 300
            before = done(tmp_path / "runs")
            while process.poll() is None and done(tmp_path / "runs") <= before:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.kill(process.pid, stop)
            process.communicate(timeout=120)
    with sweep_process(tmp_path) as process:
        errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors
    assert "6 of 6 runs are finished" in errors
    found, expected = predictions(tmp_path / "runs"), predictions(tmp_path / "alone")
    assert found.keys() == expected.keys()
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(found[name], frame)


def done(out: Path) -> int:
    folders = find_runs([out]) if out.is_dir() else []
    return sum(RunRecord.read(folder).experiences_done for folder in folders)
