"""Searches: trials are ordinary runs on a part of the train images, and killed ones go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState
from rich.console import Console
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.progress import Bars, ctrl_c_is_heard
from cl_adapters.benchmarks.sweeps import tune
from cl_adapters.benchmarks.sweeps.search import Search
from cl_adapters.benchmarks.sweeps.tune import BelowMedian, Tuning, accuracies
from cl_adapters.benchmarks.sweeps.tune_command import make_search
from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.reports.load import load_runs
from tests.benchmarks.running.test_validation import photos

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("images") / "photos")


def search_of(data: Path, out: Path, *space: str, **changes: Any) -> Search:
    strategy = changes.pop("strategy", "finetune")
    return make_search(
        {"strategy": strategy, "data": str(data), "validation": 0.3, **TINY},
        recipe=None,
        settings=["epochs=1"] if strategy == "finetune" else [],
        space=space or ["lr=1e-7:0.05"],
        out=out,
        **changes,
    )


def work(search: Search, trials: int) -> list[tuple[Any, ...]]:
    """Works on a search until its end and returns what is known of each trial that counts."""
    tuning = Tuning(search, trials, open_images(search.config))
    try:
        with ctrl_c_is_heard() as stopped, Bars(Console(quiet=True), stopped) as bars:
            tuning.work(bars)
    finally:
        found = tuning.trials()
        tuning.close()
    return sorted(
        (sorted(each.params.items()), each.state.name, sorted(each.intermediate_values.items()))
        for each in found
    )


@pytest.mark.slow
def test_a_search_finds_what_is_better_and_writes_its_recipe(data: Path, tmp_path: Path) -> None:
    search = search_of(data, tmp_path)
    found = work(search, 7)
    assert [state for _, state, _ in found].count("COMPLETE") >= 4
    best = max(dict(steps)[3] for _, state, steps in found if state == "COMPLETE")
    recipe = search.folder / "best.toml"
    assert f"A_avg {best:.2f} %" in recipe.read_text()
    (config,) = expand({}, recipe=recipe, seeds=1, settings=())
    assert config.validation is None
    assert config.strategy == "finetune"
    assert config.options["epochs"] == 1
    named = [dict(params)["lr"] for params, _, steps in found if dict(steps).get(3) == best]
    assert config.options["lr"] in named


def test_the_best_trial_is_the_one_with_the_largest_accuracy(data: Path, tmp_path: Path) -> None:
    search = search_of(data, tmp_path)
    tuning = Tuning(search, 3, open_images(search.config))
    try:
        for value in (10.0, 30.0, 20.0):
            tuning._study.add_trial(optuna.trial.create_trial(value=value))
        assert tuning._study.best_value == 30
        assert [each.value for each in tuning.trials()] == [30, 20, 10]
    finally:
        tuning.close()


@pytest.mark.slow
def test_trials_are_runs_with_the_report_s_numbers(data: Path, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, seeds=2, prune=False)
    found = work(search, 2)
    runs = load_runs([tmp_path]).finished
    assert len(runs) == 4
    assert {run.record.fingerprint["validation"] for run in runs} == {0.3}
    for params, state, steps in found:
        assert state == "COMPLETE"
        of_trial = [run for run in runs if run.record.config["options"]["lr"] == dict(params)["lr"]]
        assert {run.record.seed for run in of_trial} == {0, 1}
        values = [run.values["a_avg_micro"] for run in of_trial]
        assert dict(steps)[7] == pytest.approx(sum(values) / 2)
    for run in runs:
        assert accuracies(run.folder) == pytest.approx(run.seen.tolist())
    listed = CliRunner().invoke(app, ["list", "runs", "--out", str(tmp_path)])
    assert listed.output.count("finished") == 4


@pytest.mark.slow
def test_what_falls_behind_ends_early(data: Path, tmp_path: Path) -> None:
    """At a learning rate of 1e-7 nothing is learned; that shows before the last experience."""
    search = search_of(data, tmp_path)
    tuning = Tuning(search, 1, open_images(search.config))
    for lr in (0.01, 0.011, 0.012, 1e-7):  # after the default
        tuning._study.enqueue_trial({"lr": lr})
    tuning.close()
    states = {dict(params)["lr"]: (state, len(steps)) for params, state, steps in work(search, 5)}
    assert [state for state, _ in states.values()].count("COMPLETE") == 4
    assert states[1e-7] in {("PRUNED", 2), ("PRUNED", 3)}
    records = [RunRecord.read(folder) for folder in find_runs([tmp_path])]
    (ended,) = (each for each in records if each.config["options"]["lr"] == 1e-7)
    assert (ended.state, ended.experiences_done) == ("interrupted", states[1e-7][1])
    assert ended.error == "tune ended trial 4: below the median"


def trial_of(values: list[float], state: TrialState) -> optuna.trial.FrozenTrial:
    return optuna.create_trial(
        state=state,
        value=values[-1] if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(values)),
    )


def test_the_median_is_taken_at_the_same_experience() -> None:
    """Accuracy falls with time, so that a trial's best says nothing of where it stands."""
    study = optuna.create_study(direction="maximize")
    pruner = BelowMedian()
    running = TrialState.RUNNING
    for last in (70.0, 72.0, 74.0):
        study.add_trial(trial_of([100.0, last], TrialState.COMPLETE))
    assert not pruner.prune(study, trial_of([100.0, 0.0], running)), "three are not enough"
    study.add_trial(trial_of([100.0, 80.0], TrialState.COMPLETE))
    study.add_trial(trial_of([100.0, 1.0], TrialState.PRUNED))  # takes no part
    assert pruner.prune(study, trial_of([100.0, 72.9], running))  # the median of four is 73
    assert not pruner.prune(study, trial_of([100.0, 73.0], running))
    assert not pruner.prune(study, trial_of([0.0], running)), "too early to say"
    assert not pruner.prune(study, trial_of([100.0, 73.0, 0.0], running)), "nobody was there yet"


@pytest.mark.slow
def test_a_search_that_is_interrupted_ends_like_a_straight_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = work(search_of(data, tmp_path / "straight"), 7)
    stored = tune._Judge.stored
    for stop in (2, 3, 5, 9):

        def stop_at(self: Any, folder: Path, experience: int, left: list[int] = [stop]) -> None:  # noqa: B006
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            stored(self, folder, experience)

        monkeypatch.setattr(tune._Judge, "stored", stop_at)
        with pytest.raises(KeyboardInterrupt):
            work(search_of(data, tmp_path / "stopped"), 7)
    monkeypatch.setattr(tune._Judge, "stored", stored)
    assert work(search_of(data, tmp_path / "stopped"), 7) == expected


@pytest.mark.slow
def test_a_finished_search_runs_nothing_and_more_trials_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = search_of(data, tmp_path, "cosine_scale", strategy="simplecil")
    first = work(search, 2)
    with monkeypatch.context() as patch:
        patch.setattr(tune, "run", lambda *_, **__: pytest.fail("ran again"))
        assert work(search, 2) == first
    more = work(search, 3)
    assert len(more) == 3
    assert all(each in more for each in first)


@pytest.mark.slow
def test_a_trial_at_which_another_process_works_is_not_taken(data: Path, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, "cosine_scale", strategy="simplecil")
    tuning = Tuning(search, 2, open_images(search.config))
    number = tuning._study.ask(search.space).number
    with FileLock(search.folder / f"trial{number}.lock"):
        assert len(work(search, 2)) == 1, "two in all, and one is another's"
    assert len(work(search, 2)) == 2, "now it is lost, and run"
    tuning.close()


@pytest.mark.slow
def test_a_trial_that_ends_while_another_process_looks_is_not_lost(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was running when the list was made, and let go of its lock before that was tried."""
    search = search_of(data, tmp_path)
    tuning = Tuning(search, 3, open_images(search.config))
    found = tuning._next()
    assert found is not None
    trial, _, lock = found
    free = tune._free

    def late(each: FileLock) -> Any:
        tuning._study.tell(trial, 50.0)
        lock.release()
        return free(each)

    monkeypatch.setattr(tune, "_free", late)
    tuning._ask_again_for_lost()
    assert [each.state for each in tuning._study.get_trials()] == [TrialState.COMPLETE]
    tuning.close()


@pytest.mark.parametrize("drawn", [True, False])
def test_a_lost_trial_is_asked_for_once_and_one_without_options_drawn_anew(
    data: Path, tmp_path: Path, drawn: bool
) -> None:
    search = search_of(data, tmp_path)
    tuning = Tuning(search, 3, open_images(search.config))
    tuning._study.get_trials()
    while waiting := tuning._in(TrialState.WAITING):  # today's options come first
        tuning._study.tell(tuning._study.ask(), 10.0, skip_if_finished=True)
        assert len(tuning._in(TrialState.WAITING)) < len(waiting)
    trial = tuning._study.ask(search.space if drawn else {})
    if drawn:  # killed between asking again and saying that it failed
        tuning._study.enqueue_trial(trial.params)
    tuning._ask_again_for_lost()
    asked = [each.system_attrs["fixed_params"] for each in tuning._in(TrialState.WAITING).values()]
    assert asked == ([trial.params] if drawn else [])
    assert tuning._in(TrialState.RUNNING) == {}
    tuning.close()


def test_a_study_appears_whole(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it begins one leaves none behind."""
    search = search_of(data, tmp_path)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(optuna, "create_study", killed)
        with pytest.raises(KeyboardInterrupt):
            Tuning(search, 1, open_images(search.config))
    assert not (search.folder / "study.db").exists()
    assert len(work(search, 1)) == 1


def test_what_the_strategy_refuses_is_not_counted(data: Path, tmp_path: Path) -> None:
    space = ["epochs=1:2", "freeze_epochs=0,1"]
    search = search_of(data, tmp_path, *space, strategy="lae", prune=False)
    found = work(search, 2)
    assert all(dict(params)["freeze_epochs"] < dict(params)["epochs"] for params, _, _ in found)


@pytest.mark.slow
def test_a_run_that_fails_is_the_worst_of_trials(data: Path, tmp_path: Path) -> None:
    search = search_of(data, tmp_path, "lr=1e30,0.01")
    states = {dict(params)["lr"]: (state, steps) for params, state, steps in work(search, 6)}
    assert states[1e30][0] == "PRUNED"
    assert states[0.01][0] == "COMPLETE"


def test_a_search_without_a_finished_trial_says_so(data: Path, tmp_path: Path) -> None:
    command = ["tune", "--strategy", "finetune", "--data", str(data), "--image-size", "16",
               "--increment", "2", "--space", "lr=1e30", "--trials", "2",
               "--out", str(tmp_path)]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "a search must finish a trial, and none of 2 did" in result.output


def test_no_test_image_is_read(tmp_path: Path) -> None:
    """The files of test are no images even, and neither command nor recipe notices."""
    data = photos(tmp_path / "photos")
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    command = ["tune", "--strategy", "simplecil", "--data", str(data), "--image-size", "16",
               "--increment", "2", "--space", "cosine_scale", "--trials", "2",
               "--out", str(tmp_path / "runs"), "--quiet"]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (recipe,) = (tmp_path / "runs").glob("studies/*/best.toml")
    again = ["run", "--recipe", str(recipe), "--out", str(tmp_path / "runs"), "--quiet"]
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 2
    assert "test" in result.output, "only now they are asked for"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--strategy must name at least one of"),
        (["--strategy", "lae,mos"], "--strategy must name one strategy to tune, got lae, mos"),
        (["--strategy", "lae", "--space", "lrr"], "unknown option 'lrr'"),
        (["--strategy", "lae", "--space", "lr=-1:1"], "Input should be greater than 0"),
        (["--strategy", "lae", "--set", "nothing=3"], "options must be those of a strategy"),
        (["--strategy", "lae", "--validation", "1.5"], "recipe key `validation`"),
        (["--strategy", "lae", "--data", "nowhere/at/all"], "'nowhere/at/all' must be"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tune", *arguments, "--out", str(tmp_path / "runs")])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    result = CliRunner().invoke(app, ["tune", "--strategy", "lae", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0
    assert "0.00028125 to 0.028125" in result.output
    assert not out.exists()


def command_of(data: Path, out: Path, *extra: str) -> list[str]:
    return [
        sys.executable, "-m", "cl_adapters", "tune", "--strategy", "finetune", "--data", str(data),
        "--image-size", "16", "--increment", "1", "--set", "epochs=2", "--space", "lr=1e-6:0.05",
        "--trials", "5", "--out", str(out), "--quiet", *extra,
    ]  # fmt: skip


def known(out: Path) -> list[tuple[Any, ...]]:
    (database,) = out.glob("studies/*/study.db")
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    trials = optuna.load_study(study_name="tune", storage=storage).get_trials(
        states=(TrialState.COMPLETE, TrialState.PRUNED)
    )
    storage.remove_session()
    storage.engine.dispose()
    return sorted((each.params["lr"], each.state.name, each.value) for each in trials)


@pytest.mark.slow
def test_a_search_killed_thrice_ends_like_a_straight_one(data: Path, tmp_path: Path) -> None:
    subprocess.run(command_of(data, tmp_path / "straight"), check=True)
    for _ in range(3):
        process = subprocess.Popen(command_of(data, tmp_path / "killed"))
        before = len(list((tmp_path / "killed").rglob("experience-*")))
        while len(list((tmp_path / "killed").rglob("experience-*"))) < before + 3:
            time.sleep(0.02)
            assert process.poll() is None, "ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command_of(data, tmp_path / "killed"), check=True)
    assert known(tmp_path / "killed") == known(tmp_path / "straight")


@pytest.mark.slow
def test_processes_share_a_search_and_ctrl_c_ends_them(data: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command_of(data, tmp_path, "--jobs", "2"), stderr=subprocess.PIPE)
    while not list(tmp_path.rglob("experience-0001")):
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1, told
    assert b"the same command continues" in told
    assert b"Traceback" not in told
    subprocess.run(command_of(data, tmp_path, "--jobs", "2"), check=True)
    assert len(known(tmp_path)) == 5
