"""What a run asks of a strategy and of what was prepared; nothing else of them is touched."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.records.event_kinds import Event
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies.core.avalanche_types import AvalancheBenchmark, AvalancheExperience
from cl_adapters.strategies.core.checkpointing import Checkpointer, ResumablePlugin, TrainerState
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.output import Output
from cl_adapters.strategies.core.views import Augmentation
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["Learner", "Runnable", "Watched"]


class Network(Protocol):
    """The network of a strategy."""

    @property
    def config(self) -> StrategyConfig:
        """The method's options."""

    @property
    def model(self) -> nn.Module:
        """The backbone and all that is learned beside it."""

    @property
    def backbone(self) -> AdaptedViT:
        """The frozen network, which counts its passes."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def classes_by_experience(self) -> list[tuple[int, ...]]:
        """Labels of each experience that was trained."""

    @property
    def timings(self) -> dict[str, tuple[float, int]]:
        """Seconds and images of work outside of epochs, by name, in the last experience."""

    @property
    def train_epochs(self) -> int:
        """Epochs that an experience is trained for, unless its phases say otherwise."""

    def learned_state(self) -> dict[str, Tensor]:
        """Returns every tensor that was learned."""


class Learner(Network, Protocol):
    """What is trained and evaluated."""

    @property
    def resumes(self) -> bool:
        """Whether `restore` brings back all that matters for the experiences to come."""

    @property
    def resumes_inside(self) -> bool:
        """Whether an experience can go on in its middle."""

    @property
    def cache(self) -> FeatureCache | None:
        """Where it keeps what frozen parts compute."""

    @property
    def augmentation(self) -> Augmentation:
        """Which views training shows."""

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Returns what `restore` needs of it, as it is written."""

    def add_plugin(self, plugin: ResumablePlugin, *, first: bool = False) -> None:
        """Lets a plugin watch; `first` calls it before those that are there."""

    def train(
        self, experiences: AvalancheExperience, *, eval_streams: Sequence[AvalancheExperience]
    ) -> object:
        """Trains on an experience."""

    def eval(self, experiences: Sequence[AvalancheExperience]) -> object:
        """Evaluates on some experiences."""

    def restore(
        self, state: Mapping[str, Tensor], experiences: Sequence[AvalancheExperience]
    ) -> None:
        """Returns to the end of an experience that was trained before."""

    def restore_to_answer(
        self, state: Mapping[str, Tensor], classes: Sequence[Sequence[int]]
    ) -> None:
        """Returns there without images, given the labels that each experience brought."""

    def set_checkpointer(self, checkpointer: Checkpointer | None) -> None:
        """Names who keeps states of the experiences that are trained from now on."""

    def load_state(self, points: Sequence[TrainerState]) -> None:
        """Lets the next experience go on where its training was interrupted."""

    def load_progress(
        self, events: Sequence[Mapping[str, Any]], timings: Mapping[str, Sequence[float]]
    ) -> None:
        """Takes over what was logged and timed in an experience that was trained before."""

    def log_event(self, event: str, /, **values: Any) -> None:  # noqa: ANN401 - keys of its kind
        """Keeps an event for the record."""

    def pop_events(self, experience: int) -> list[Event]:
        """Returns the events since the last call, as those of an experience."""


class Clock(Protocol):
    """How far training has come."""

    @property
    def train_exp_epochs(self) -> int:
        """Epochs of this experience that are over."""


class Watched(Network, Protocol):
    """A strategy at work, as a plugin of ours sees it."""

    @property
    def phase(self) -> str:
        """What is being trained."""

    @property
    def clock(self) -> Clock:
        """How far it has come."""

    @property
    def learns_by_gradient(self) -> bool:
        """Whether its loss means anything."""

    @property
    def loss(self) -> Tensor:
        """Of the batch."""

    @property
    def mb_y(self) -> Tensor:
        """Labels of the batch, (B,)."""

    @property
    def mb_output(self) -> Tensor:
        """Logits of the batch, (B, C)."""

    @property
    def experience(self) -> AvalancheExperience:
        """Where the batch comes from."""

    @property
    def output(self) -> Output:
        """What the model answered for the batch, with what it found beside logits."""


class Runnable(Protocol):
    """What can be run: a prepared recipe, or a strategy over a benchmark that is not ours."""

    @property
    def strategy(self) -> Learner:
        """What learns; used up by the run."""

    @property
    def plan(self) -> StreamPlan:
        """What each experience holds."""

    @property
    def record(self) -> RunRecord:
        """What goes into `run.json`."""

    @property
    def threads(self) -> int | None:
        """CPU threads; None for torch's choice."""

    def benchmark(self) -> AvalancheBenchmark:
        """Returns Avalanche's train and test streams, classes by position in the plan's order."""
