"""Curves of a run for TensorBoard and Weights & Biases, through Avalanche's logger interface.

`MethodLog` is a plugin for a strategy of ours, in a run or in plain Avalanche code; it tells any of
Avalanche's loggers, and `WandbLog` beside it:

    accuracy/seen, accuracy/average, accuracy/experience_00 ...   in percent, by experience
    parameters/added, parameters/trainable                        growth, by experience
    seconds/PHASE, seconds/evaluation                             by experience
    loss/PHASE                                                    mean of an epoch, by epoch

Experiences are counted from 0, epochs from 0 through the whole run. A run's log is a copy of its
record: a run that goes on writes it anew up to where it stands, so that no point is there twice.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger, TensorboardLogger

from cl_adapters.benchmarks.running.learner import Watched
from cl_adapters.benchmarks.running.observer import Observer, OnProgress
from cl_adapters.benchmarks.running.wandb_log import WandbLog
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.buffers import count_numbers
from cl_adapters.errors import unknown_name
from cl_adapters.records.event_kinds import Evaluation, Parameters, Phase
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions

__all__ = ["LOGGERS", "MethodLog", "check_loggers", "open_logs", "write_log"]


class MethodLog(Observer):
    """Watches a strategy and tells loggers how it does.

    Args:
        loggers: Avalanche's loggers.
        plan: What comes when; only a run needs it.
        on_progress: Called after each batch.

    Example:
        In plain Avalanche code: `LAE(..., plugins=[MethodLog([TensorboardLogger("curves")])])`, and
        `strategy.eval(...)` after each `strategy.train(experience)`.
    """

    def __init__(
        self,
        loggers: Sequence[BaseLogger],
        plan: StreamPlan | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> None:
        super().__init__(plan, on_progress)
        self._loggers = list(loggers)
        self._epochs = 0  # of the experiences before
        self._told = 0  # epochs of this experience
        self._evaluated = -1  # the last experience that was told
        self._seen: list[float] = []

    def restore(self, folder: Path, done: int) -> None:
        """Tells what a run directory holds of the first experiences."""
        events = read_events(folder)
        rows = read_predictions(folder)
        for experience in range(done):
            of_this = [each for each in events if each.experience == experience]
            phases = [each for each in of_this if isinstance(each, Phase)]
            self.losses = {each.name: each.losses for each in phases if each.losses}
            self._tell_losses()
            self._end_of_experience()
            counts = next(each for each in of_this if isinstance(each, Parameters))
            evaluation = next(each for each in of_this if isinstance(each, Evaluation))
            part = rows[rows["experience"] == experience]
            right = (part["prediction"] == part["target"]).groupby(part["target_experience"])
            self._tell(
                experience,
                {int(each): (int(hits.sum()), len(hits)) for each, hits in right},
                {
                    **{f"seconds/{each.name}": each.seconds for each in phases},
                    "seconds/evaluation": evaluation.seconds,
                    "parameters/added": counts.added,
                    "parameters/trainable": counts.trainable,
                },
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was."""
        super().load_state_dict(state)
        self._tell_losses()

    def before_training_exp(self, strategy: Watched, **kwargs: object) -> None:
        """Forgets the experience before."""
        self._end_of_experience()
        super().before_training_exp(strategy, **kwargs)

    def after_training_epoch(self, strategy: Watched, **kwargs: object) -> None:
        """Tells the loss of an epoch."""
        super().after_training_epoch(strategy, **kwargs)
        self._tell_losses()

    def after_eval(self, strategy: Watched, **kwargs: object) -> None:
        """Tells how an experience ended; a second evaluation of the same one is not told."""
        super().after_eval(strategy, **kwargs)
        experience = len(strategy.classes_by_experience) - 1
        if experience <= self._evaluated:
            return
        seconds = {**self.phases, **strategy.timings}
        added = count_numbers(strategy.model, strategy.learned_state())
        trainable = (each for each in strategy.model.parameters() if each.requires_grad)
        self._tell(
            experience,
            self.right_answers(),
            {
                **{f"seconds/{name}": spent for name, (spent, _) in seconds.items()},
                "seconds/evaluation": self.evaluation[0],
                "parameters/added": added,
                "parameters/trainable": sum(each.numel() for each in trainable),
            },
        )

    def _end_of_experience(self) -> None:
        self._epochs += self._told
        self._told = 0

    def _tell_losses(self) -> None:
        values = [(name, each) for name, losses in self.losses.items() for each in losses]
        for name, each in values[self._told :]:
            self._send([(f"loss/{name}", each)], self._epochs + self._told)
            self._told += 1

    def _tell(
        self, experience: int, right: Mapping[int, tuple[int, int]], others: Mapping[str, float]
    ) -> None:
        counted = {each: pair for each, pair in right.items() if each <= experience}
        hits, images = (sum(each) for each in zip(*counted.values(), strict=True))
        self._seen.append(100 * hits / images)
        self._evaluated = experience
        points = [
            ("accuracy/seen", self._seen[-1]),
            ("accuracy/average", sum(self._seen) / len(self._seen)),
            *(
                (f"accuracy/experience_{each:02d}", 100 * correct / count)
                for each, (correct, count) in sorted(counted.items())
            ),
            *others.items(),
        ]
        self._send(points, experience)

    def _send(self, points: Sequence[tuple[str, float]], place: int) -> None:
        values = [MetricValue(self, name, float(value), place) for name, value in points]
        for logger in self._loggers:
            logger.log_metrics(values)


def _tensorboard(folder: Path, record: RunRecord) -> BaseLogger:  # noqa: ARG001
    place = folder / "tensorboard"
    if place.exists():
        shutil.rmtree(place)
    return TensorboardLogger(place)


def _wandb(folder: Path, record: RunRecord) -> BaseLogger:
    name = f"{record.stream} {record.strategy} seed {record.seed}"
    key = f"{record.strategy}-{folder.name}"
    return WandbLog(folder, name, key, config=record.config)


LOGGERS: Final[Mapping[str, Callable[[Path, RunRecord], BaseLogger]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def check_loggers(names: Sequence[str]) -> None:
    """Refuses a name that is no logger.

    Raises:
        InputError: If there is one.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)


@contextmanager
def open_logs(names: Sequence[str], folder: Path, record: RunRecord) -> Iterator[list[BaseLogger]]:
    """Yields empty logs of a run, in `tensorboard/` and `wandb/` of its directory.

    Raises:
        InputError: If a logger cannot write.
    """
    opened: list[BaseLogger] = []
    try:
        for name in names:
            opened += [LOGGERS[name](folder, record)]
        yield opened
    finally:
        for each in opened:
            (each.writer if isinstance(each, TensorboardLogger) else each).close()


def write_log(names: Sequence[str], folder: Path, record: RunRecord) -> None:
    """Writes the logs of a finished run, whatever part of them is there."""
    with open_logs(names, folder, record) as logs:
        if logs:
            MethodLog(logs).restore(folder, record.experiences_done)
