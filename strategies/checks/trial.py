"""What strategies are tried on: a tiny frozen network and tiny streams, made on the spot.

Images are noise with a bright stripe that tells the class. Streams watch their datasets, and can
poison those that a method has no business to read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks.utils import (
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_adapters.errors import InputError
from cl_adapters.records.events import Event
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.checks import tiny_backbone

__all__ = ["EXPERIENCES", "Run", "TinyStream", "Trial", "copied"]

EXPERIENCES: Final = ((3, 0), (1, 4), (2, 5, 6))  # labels in no order, not all of one size

_SIZE: Final = 16  # side of an image in pixels
_PER_CLASS: Final = 12  # training images; a third of it are tested
# The first that a method's config takes is used, so that a trial is short.
_SHORT: Final[tuple[dict[str, int], ...]] = (
    {"batch_size": 8, "epochs": 1},
    {"batch_size": 8, "epochs": 2},
    {"batch_size": 8, "epochs": 4},
    {"batch_size": 8},
    {},
)


class _Watched(TensorDataset):
    """Images and labels that count how often they are read."""

    reads = 0

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.reads += 1
        return tuple(tensor[index] for tensor in self.tensors)


@dataclass(frozen=True, kw_only=True)
class TinyStream:
    """A benchmark made on the spot.

    Attributes:
        experiences: Labels of each.
        per_class: Training images of a class in an experience.
        poison_after: Experiences after this one, and all test data, hold NaN and other labels;
            None poisons nothing.
        inverted: Experiences whose pixels have the other sign: data that look strange.
        names: Label that stands for each class; itself by default.
        seed: Of the pixels.
    """

    experiences: Sequence[Sequence[int]] = EXPERIENCES
    per_class: int = _PER_CLASS
    poison_after: int | None = None
    inverted: Sequence[int] = ()
    names: Mapping[int, int] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def train_sets(self) -> list[_Watched]:
        """The training images of each experience."""
        return [self._images(t, self.per_class, 1) for t in range(len(self.experiences))]

    @cached_property
    def test_sets(self) -> list[_Watched]:
        """The test images of each experience."""
        count = max(1, _PER_CLASS // 3)
        return [self._images(t, count, 2) for t in range(len(self.experiences))]

    @cached_property
    def benchmark(self) -> Any:  # noqa: ANN401 - Avalanche ships no types
        """Avalanche's benchmark over the sets."""
        train, test = (list(map(_avalanche, sets)) for sets in (self.train_sets, self.test_sets))
        # With the classes of other experiences in each, as the runner gives them: temptation.
        return with_classes_timeline(benchmark_from_datasets(train=train, test=test))

    def test_labels(self) -> Tensor:
        """Returns the labels of all test images, (N,)."""
        return torch.cat([each.tensors[1] for each in self.test_sets])

    def _images(self, experience: int, per_class: int, split: int) -> _Watched:
        labels = [label for label in self.experiences[experience] for _ in range(per_class)]
        generator = torch.Generator().manual_seed(1000 * self.seed + 10 * experience + split)
        images = 0.3 * torch.randn(len(labels), 3, _SIZE, _SIZE, generator=generator)
        for image, label in zip(images, labels, strict=True):
            row = 4 * (label % 4)
            image[label % 3, row : row + 4] += 2
        if experience in self.inverted:
            images = -3 * images
        targets = torch.tensor([self.names.get(label, label) for label in labels])
        last = self.poison_after
        if last is not None and (split == 2 or experience > last):
            images, targets = torch.full_like(images, torch.nan), targets + 20
        return _Watched(images, targets)


def _avalanche(data: _Watched) -> Any:  # noqa: ANN401 - Avalanche ships no types
    labels = data.tensors[1].tolist()
    # Task labels, all 0, for those of Avalanche's own methods that read them.
    attributes = [DataAttribute(labels, "targets"), TaskLabels([0] * len(labels))]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


class _Outputs(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps what a strategy answers in an evaluation."""

    def before_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Starts empty."""
        self.outputs: list[Tensor] = []

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Keeps a batch."""
        self.outputs.append(strategy.mb_output.detach().float().clone())


@dataclass
class Run:
    """A strategy and what it has done.

    Attributes:
        strategy: As it is after the last experience.
        states: What was learned, copied after each experience.
        outputs: Answers to all test images after each experience, (N, C).
        events: Facts noted in each experience.
        first: The model's whole state before anything was learned.
    """

    strategy: AdapterStrategy
    states: list[dict[str, Tensor]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)
    first: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trial:
    """A strategy class on trial.

    Args:
        kind: The class.
        options: Options of its config, beside those that keep a trial short.
    """

    kind: type[AdapterStrategy]
    options: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def config(self) -> StrategyConfig:
        """The options of every strategy that is built here."""
        try:
            defaults = self.kind.config_class()
        except ValidationError as error:
            name = ".".join(map(str, error.errors()[0]["loc"]))
            raise InputError(
                f"every option of {self.kind.__name__} must have a default that fits, got none for "
                f"`{name}`"
            ) from error
        for short in _SHORT:
            known = {name: value for name, value in short.items() if hasattr(defaults, name)}
            try:
                return defaults.override({**known, **self.options})
            except InputError:
                continue
        return defaults.override(self.options)

    def build(self, **arguments: Any) -> AdapterStrategy:  # noqa: ANN401
        """Returns a new strategy on a new network."""
        arguments.setdefault("backbone", tiny_backbone())
        return self.kind(
            config=self.config,
            fixed_views=True,
            evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
            **arguments,
        )

    def train(
        self, strategy: AdapterStrategy, stream: TinyStream, *, only_last: bool = False
    ) -> Run:
        """Trains on all experiences, each or only the last followed by an evaluation."""
        run = Run(strategy)
        last = len(stream.experiences) - 1
        for number, experience in enumerate(stream.benchmark.train_stream):
            strategy.train(experience)
            run.states.append(copied(strategy.learned_state()))
            if number == last or not only_last:
                run.outputs.append(self.evaluate(strategy, stream))
            run.events.append(strategy.pop_events(number))
        return run

    def evaluate(self, strategy: AdapterStrategy, stream: TinyStream) -> Tensor:
        """Returns the answers to all test images, (N, C)."""
        plugin = _Outputs()
        strategy.plugins.append(plugin)
        strategy.eval(stream.benchmark.test_stream)
        strategy.plugins.remove(plugin)
        return torch.cat(plugin.outputs)

    @cached_property
    def straight(self) -> Run:
        """The undisturbed run that others are compared with."""
        strategy, stream = self.build(), TinyStream()
        first = copied(strategy.model.state_dict())
        run = self.train(strategy, stream)
        run.first = first
        return run


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a copy that does not follow the strategy."""
    return {name: value.detach().clone() for name, value in state.items()}
