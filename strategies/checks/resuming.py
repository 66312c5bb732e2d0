"""Checks of what continues: from a checkpoint, and in the middle of an experience."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cl_adapters.strategies.checks.probes import changed
from cl_adapters.strategies.checks.trial import EXPERIENCES, TinyStream, Trial, copied
from cl_adapters.strategies.core.checkpointing import TrainerState
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["resumes", "resumes_inside"]


def resumes(trial: Trial) -> Iterator[str]:
    """Continues from a checkpoint to where the straight run ends, unless it always begins again."""
    stream = TinyStream()
    experiences = stream.benchmark.train_stream
    if not trial.build().resumes:
        return
    state: dict[str, Tensor] = {}
    for number in range(len(EXPERIENCES)):
        strategy = trial.build()
        if number:
            strategy.restore(state, list(experiences[:number]))
        strategy.train(experiences[number])
        state = copied(strategy.learned_state())
        names = changed(trial.straight.states[number], state)
        if names:
            yield (
                f"experience {number}, trained from a checkpoint, must teach what the straight run "
                f"learned, but {names[0]!r} differs"
            )
            return
    if not torch.equal(trial.evaluate(strategy, stream), trial.straight.outputs[-1]):
        yield "a restored strategy must answer as the straight run does, got other logits"


class _Stopped(Exception):  # noqa: N818 - no error: it ends a training early
    """Raised in the middle of an experience, as if the process had been killed."""


class _StopAt:
    """Lets training go on until a step, keeps where it stands there, and ends it."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.points: list[TrainerState] = []

    def is_due(self) -> bool:
        self._left -= 1
        return self._left == 0

    def keep(self, points: list[TrainerState]) -> None:
        self.points = points
        raise _Stopped


def resumes_inside(trial: Trial) -> Iterator[str]:
    """Goes on in the middle of an experience to where the straight run ends."""
    experiences = TinyStream().benchmark.train_stream
    if not (trial.build().resumes and trial.build().resumes_inside):
        return
    for number, step in ((0, 2), (1, 2)):
        begun, stop = trial.build(), _StopAt(step)
        begun.set_checkpointer(stop)
        try:
            _train_from(begun, trial, experiences, number)
            # A method that trains on the first experience alone takes no step later.
            if begun.learns_by_gradient and number == 0:
                yield f"experience {number} must take more than {step} steps to be checked"
                return
        except _Stopped:
            begun = trial.build()
            begun.load_state(stop.points)
            _train_from(begun, trial, experiences, number)
        names = changed(trial.straight.states[number], begun.learned_state())
        if names:
            yield (
                f"experience {number}, stopped after step {step} and taken up again, must teach "
                f"what the straight run learned, but {names[0]!r} differs; declare what steps draw "
                "from in `generators`, or set `resumes_inside` to False"
            )
            return


def _train_from(strategy: AdapterStrategy, trial: Trial, experiences: Any, number: int) -> None:  # noqa: ANN401
    if number:
        strategy.restore(trial.straight.states[number - 1], list(experiences[:number]))
    strategy.train(experiences[number])
