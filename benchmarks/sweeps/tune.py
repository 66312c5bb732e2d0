"""Searches the options of a strategy: what `cl-adapters tune` does.

A trial is one choice of options. It is judged by the mean, over all experiences and seeds, of the
accuracy on a part of the training images; test images are never read. A trial is an ordinary run a
seed, below the same folder as any other, and the study stands beside them:

    <out>/studies/<strategy>-<stream>-<digest>/
        study.db      Optuna's storage
        best.toml     recipe of the best trial so far, for `cl-adapters run --recipe`
        *.lock        who is at work on which trial

Optuna chooses (TPE) and remembers; the runner runs. A search that is killed goes on with the same
command: a trial whose process is gone is asked for again and its run continues from its checkpoint,
so that the search ends with the trials of an uninterrupted one. Several processes may work on one
study at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.running.prepare import open_backbone, prepare
from cl_adapters.benchmarks.running.progress import Bars, Progress, StopRun
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.benchmarks.sweeps.search import Search
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError, RunError
from cl_adapters.plugins.references import in_words
from cl_adapters.records.files import atomic_path
from cl_adapters.records.run_record import RunRecord, find_run_folder
from cl_adapters.records.tables import read_predictions
from cl_adapters.records.toml import toml_lines

__all__ = ["Tuning", "accuracies"]

ENOUGH: Final = 4  # finished trials that a new one is held against
_REFUSALS: Final = 1000  # combinations in a row that the strategy refuses
_COUNTED: Final = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def accuracies(folder: Path) -> list[float]:
    """Returns, in percent, the accuracy after each experience over all images tested then.

    Their mean is the report's `a_avg_micro`.
    """
    rows = read_predictions(folder)
    right = (rows["prediction"] == rows["target"]).groupby(rows["experience"]).mean()
    return [100 * float(share) for share in right]


class BelowMedian(optuna.pruners.BasePruner):
    """Ends a trial that is worse than half of the finished ones were at the same point.

    Optuna's own median pruner takes the best value that a trial has had. Accuracy falls as classes
    come, so that would be the first one, of a single experience, whatever followed.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Says whether the trial is to end."""
        step = trial.last_step
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [
            each.intermediate_values[step] for each in finished if step in each.intermediate_values
        ]
        if not step or len(others) < ENOUGH:  # of one experience alone every method knows enough
            return False
        return trial.intermediate_values[step] < median(others)


class _Judge(Progress):
    """Shows the runs of a trial, tells Optuna of each experience, and ends what falls behind.

    Args:
        bars: Where the runs are shown.
        trial: The trial.
        total: Experiences of all its runs; None if none of them is to end early.
    """

    def __init__(self, bars: Bars, trial: optuna.Trial, total: int | None) -> None:
        self._bars, self._trial, self._total = bars, trial, total
        self._before: list[float] = []  # of the seeds that are done
        self._reported = 0

    def start(self, title: str, total: int) -> None:
        """Begins a bar."""
        self._bars.start(f"trial {self._trial.number}: {title}", total)

    def advance(self, text: str, images: int) -> None:
        """Moves the bar."""
        self._bars.advance(text, images)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bars.note(text)

    def learned(self, experience: int, of: int, accuracy: float, name: str = "") -> None:
        """Shows the accuracy so far."""
        self._bars.learned(experience, of, accuracy, name)

    def stored(self, folder: Path, experience: int) -> None:
        """Judges a run after an experience."""
        self._report(self._before + accuracies(folder)[: experience + 1])

    def found(self, folder: Path) -> None:
        """Judges what there is of a run before it goes on, as if it came just now."""
        try:
            done = RunRecord.read(folder).experiences_done
            self._report(self._before + accuracies(folder)[:done])
        except InputError:  # nothing there, or damaged: the run will see
            return

    def ended(self, folder: Path) -> None:
        """Judges a whole run and goes on to the next seed."""
        self._before += accuracies(folder)
        self._report(self._before)

    def value(self) -> float:
        """Returns what the trial is worth, in percent."""
        return fmean(self._before)

    def _report(self, values: Sequence[float]) -> None:
        for step in range(self._reported, len(values)):
            self._trial.report(fmean(values[: step + 1]), step)
            self._reported = step + 1
            if self._total and step + 1 < self._total and self._trial.should_prune():
                raise StopRun(f"tune ended trial {self._trial.number}: below the median")


class Tuning:
    """A study on disk, worked on by this process and perhaps by others.

    Args:
        search: What is searched.
        trials: Trials in all, whoever runs them and when.
        source: The opened images of the recipe.
        cache: Where frozen parts are kept; None keeps none.
    """

    def __init__(
        self, search: Search, trials: int, source: ImageSource, cache: FeatureCache | None = None
    ) -> None:
        self.search, self._trials = search, trials
        self._source, self._cache = source, cache
        self._backbone = open_backbone(search.config)
        self.folder = search.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with FileLock(self.folder / "next.lock"):
            path = self.folder / "study.db"
            if not path.exists():  # it appears whole: Optuna makes its tables one after another
                with atomic_path(path) as new:
                    _begin(new, search.now())
            self._storage = _open_storage(path)
            self._study = optuna.load_study(
                storage=self._storage, study_name="tune", pruner=BelowMedian()
            )

    def close(self) -> None:
        """Lets go of the storage."""
        _close_storage(self._storage)

    def trials(self) -> list[FrozenTrial]:
        """Returns the trials that ended well or early, the best first."""
        ended = self._study.get_trials(deepcopy=False, states=_COUNTED[:2])
        return sorted(ended, key=lambda each: (each.state.name, -_value(each), each.number))

    def work(self, bars: Bars) -> None:
        """Runs trials until there are enough.

        Raises:
            RunError: If the strategy refuses whatever is tried.
            KeyboardInterrupt: If Ctrl-C was pressed; the same search goes on from there.
        """
        while (found := self._next()) is not None:
            trial, recipes, lock = found
            try:
                line = self._run(trial, recipes, bars)
            finally:
                lock.release()
            best = self._write_best()
            bars.finish(f"{line}{best}{_text(trial.params)}")

    def _next(self) -> tuple[optuna.Trial, list[RunConfig], FileLock] | None:
        with FileLock(self.folder / "next.lock"):
            self._ask_again_for_lost()
            refusal = ""
            for _ in range(_REFUSALS):
                known = [each for each in self._study.get_trials(deepcopy=False) if _counts(each)]
                if sum(each.state in _COUNTED for each in known) >= self._trials:
                    return None
                # A generator of its own for each choice: a continued search chooses the same.
                self._study.sampler = optuna.samplers.TPESampler(seed=len(known))
                trial = self._study.ask(self.search.space)
                try:
                    recipes = self.search.recipes(trial.params)
                except InputError as error:
                    refusal = str(error)
                    trial.set_user_attr("refused", refusal)
                    self._study.tell(trial, state=TrialState.FAIL)
                    continue
                lock = self._lock(trial.number)
                lock.acquire(timeout=0)
                return trial, recipes, lock
        raise RunError(f"strategy must take some combination, it refused {_REFUSALS}: {refusal}")

    def _ask_again_for_lost(self) -> None:
        for number in self._in(TrialState.RUNNING):
            with _free(self._lock(number)) as is_lost:
                # Asked again under the lock: it may have ended since, as any trial should.
                lost = self._in(TrialState.RUNNING).get(number) if is_lost else None
                if lost is None:
                    continue
                given = lost.system_attrs.get("fixed_params", {})
                waiting = [
                    each.system_attrs.get("fixed_params")
                    for each in self._in(TrialState.WAITING).values()
                ]
                # Of one that was lost while its options were drawn, the same ones are drawn again.
                params = lost.params if len(lost.params) == len(self.search.space) else given
                if params and params not in waiting:
                    self._study.enqueue_trial(params)
                self._study.tell(number, state=TrialState.FAIL)

    def _in(self, state: TrialState) -> dict[int, FrozenTrial]:
        found = self._study.get_trials(deepcopy=False, states=(state,))
        return {each.number: each for each in found}

    def _lock(self, number: int) -> FileLock:
        return FileLock(self.folder / f"trial{number}.lock")

    def _run(self, trial: optuna.Trial, recipes: Sequence[RunConfig], bars: Bars) -> str:
        """Runs a trial and returns how it ended."""
        name = f"trial {trial.number}"
        try:
            value = self._judged(trial, recipes, bars)
        except StopRun:
            ended = self._study.tell(trial, state=TrialState.PRUNED)
            steps = len(ended.intermediate_values)
            reached = f"{_value(ended):.2f} %"
            return f"{name}: ended after {steps} experiences at {reached}, below the median there"
        except OSError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            text = str(error) if isinstance(error, InputError | RunError) else in_words(error)
            trial.set_user_attr("error", text)
            self._study.tell(trial, state=TrialState.PRUNED)
            return f"{name}: failed: {text}"
        self._study.tell(trial, value)
        return f"{name}: A_avg {value:.2f} %"

    def _judged(self, trial: optuna.Trial, recipes: Sequence[RunConfig], bars: Bars) -> float:
        judge: _Judge | None = None
        for config in recipes:
            prepared = prepare(
                config, source=self._source, backbone=self._backbone, cache=self._cache
            )
            steps = len(recipes) * len(prepared.record.experiences)
            judge = judge or _Judge(bars, trial, steps if self.search.prune else None)
            judge.found(find_run_folder(self.search.out, prepared.record))
            judge.ended(run(prepared, self.search.out, progress=judge))
        return judge.value() if judge else 0.0

    def _write_best(self) -> str:
        """Writes the recipe of the best trial so far; returns what to say of it."""
        with FileLock(self.folder / "next.lock"):
            found = self.trials()
            if not found or found[0].state != TrialState.COMPLETE:
                return ""
            best = found[0]
            lines = [*self._story(best), *toml_lines(self.recipe(best))]
            with atomic_path(self.folder / "best.toml") as path:
                path.write_text("\n".join(lines) + "\n", "utf-8")
        return f" (best {_value(best):.2f} %, trial {best.number})"

    def recipe(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the recipe of a trial as it is run on the test images."""
        values = self.search.config.model_dump(mode="json")
        del values["validation"]
        return {**values, "options": self.search.options(trial.params)}

    def _story(self, best: FrozenTrial) -> list[str]:
        seeds = f"{self.search.seeds} seed{'s' * (self.search.seeds > 1)}"
        share = f"{self.search.config.validation:.0%} of the training images"
        return [
            f"# Trial {best.number}, the best so far of `cl-adapters tune`:",
            f"# A_avg {_value(best):.2f} % over {seeds} on {share}; no test image was read.",
        ]

    def table(self, rows: int = 5) -> list[list[str]]:
        """Returns the best trials, the header first."""
        found = [["trial", "A_avg %", "experiences", "options"]]
        for each in self.trials()[:rows]:
            steps = str(len(each.intermediate_values))
            found.append([str(each.number), f"{_value(each):.2f}", steps, _text(each.params)])
        return found


def _open_storage(path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{path}")


def _close_storage(storage: optuna.storages.RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _begin(path: Path, now: dict[str, Any]) -> None:
    """Writes a study whose first trial has today's options: what a search has to beat."""
    storage = _open_storage(path)
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize")
    if now:
        study.enqueue_trial(now)
    _close_storage(storage)


def _value(trial: FrozenTrial) -> float:
    return trial.value if trial.value is not None else 0.0


def _counts(trial: FrozenTrial) -> bool:
    # A trial that was lost with its process is asked for again and counts then.
    return trial.state in _COUNTED or "refused" in trial.user_attrs


def _text(params: dict[str, Any]) -> str:
    return "".join(
        f" {name}={value:.4g}" if isinstance(value, float) else f" {name}={value}"
        for name, value in params.items()
    )


@contextmanager
def _free(lock: FileLock) -> Iterator[bool]:
    """Yields whether nobody else holds a lock, and holds it meanwhile."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
