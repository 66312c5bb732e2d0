"""Going on in the middle of an experience, bit for bit as if nothing had stopped it.

A strategy that is trained again on the experience that was interrupted does anew what comes before
and between its phases (copies, scans, fitted detectors), and that needs no code: it starts from the
same state and draws the same numbers. Only the training of the phases is left out, as far as it had
come; a `TrainerState` takes its place:

    phase 0   end  -> TrainerState    loaded instead of trained
    phase 1   end  -> TrainerState    loaded instead of trained
    phase 2   epoch 4, step 17 -> TrainerState    loaded, and training goes on from there

A point holds what was learned, the optimiser, the position in the order of the images, and every
source of randomness. What a strategy keeps between steps outside of these has to be declared
(`AdapterStrategy.generators`), or it must set `resumes_inside` to False; the check `resumes_inside`
tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.noise import PEFT_NOISE, PeftNoise
from cl_adapters.randomness import as_text, from_text, random_states, set_random_states
from cl_adapters.records.upgrade import add_new_tensors
from cl_adapters.strategies.core.output import of_kind
from cl_adapters.strategies.core.samplers import ResumableSampler

__all__ = [
    "CheckpointMismatchError",
    "Checkpointer",
    "ResumablePlugin",
    "TrainerState",
    "load_optimizer",
    "load_trainer_state",
    "optimizer_tensors",
    "trainer_state",
]

_MODEL: Final = "model."


class CheckpointMismatchError(InputError):
    """A point of an experience that the strategy, as it is now, cannot take up."""


@dataclass(frozen=True)
class TrainerState:
    """A moment of an experience, and all that decides how it goes on from there.

    Attributes:
        phase: Which phase of the experience, counted from 0.
        epoch: Which epoch of it, counted from 0; its number of epochs after the last.
        tensors: What was learned (`model.NAME`) and the optimiser's state (`optimizer.I.NAME`),
            copied.
        facts: The rest, as JSON can hold it.
    """

    phase: int
    epoch: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Trainer(Protocol):
    """What trains, as far as it decides how training goes on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    order: ResumableSampler
    clock: Any
    plugins: Sequence[Any]
    peft_noise: PeftNoise

    def learned_state(self) -> dict[str, Tensor]:
        """Returns every tensor that was learned."""

    def generators(self) -> Mapping[str, torch.Generator]:
        """Returns, by name, what steps draw from."""


class Checkpointer(Protocol):
    """Who keeps the points of an experience while it is trained."""

    def is_due(self) -> bool:
        """Says, after each step, whether the time has come."""

    def keep(self, points: list[TrainerState]) -> None:
        """Takes the ends of the phases so far and the moment itself, which comes last."""


class ResumablePlugin(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """A plugin that counts on when an experience goes on in its middle."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what it knows of the experience so far, as JSON can hold it."""
        raise NotImplementedError

    def load_state_dict(self, facts: Mapping[str, Any]) -> None:
        """Knows again what `facts` gave; comes after the hooks before the epoch."""
        raise NotImplementedError


def trainer_state(trainer: Trainer, phase: int, epoch: int, order: str, skip: int) -> TrainerState:
    """Returns the present moment of an experience.

    Args:
        trainer: What trains.
        phase: Its phase.
        epoch: Its epoch.
        order: What the order said of its place before the pass.
        skip: Batches of the pass that are done.
    """
    optimizer, groups = optimizer_tensors(trainer.optimizer)
    learned = trainer.learned_state().items()
    sources = _generators(trainer).items()
    facts = {
        "order": order,
        "skip": skip,
        "groups": groups,
        "random": random_states(),
        "generators": {name: as_text(source.get_state()) for name, source in sources},
        "clock": {name: each for name, each in vars(trainer.clock).items() if _is_count(each)},
        "plugins": [each.state_dict() for each in _resumable(trainer)],
    }
    tensors = {f"{_MODEL}{name}": value.detach().clone() for name, value in learned}
    return TrainerState(phase, epoch, {**tensors, **optimizer}, facts)


def _generators(trainer: Trainer) -> Mapping[str, torch.Generator]:
    given = trainer.generators()
    named = of_kind(trainer.generators, given, Mapping, "generators by name")  # type: ignore[type-abstract] # it is asked for
    return {**named, **trainer.peft_noise.sources(trainer.model)}


def load_trainer_state(trainer: Trainer, state: TrainerState) -> None:
    """Takes up an experience at a moment, its preparations being done.

    Raises:
        CheckpointMismatchError: If the preparations led elsewhere than before.
    """
    try:
        _load(trainer, state)
    except (InputError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointMismatchError(
            f"a point of an experience must fit strategy {type(trainer).__name__} in phase "
            f"{state.phase}, got another state: {str(error).splitlines()[0]}"
        ) from error


def _load(trainer: Trainer, state: TrainerState) -> None:
    learned = {
        name.removeprefix(_MODEL): value
        for name, value in state.tensors.items()
        if name.startswith(_MODEL)
    }
    learned = add_new_tensors(learned, trainer.learned_state())
    if set(learned) != set(trainer.learned_state()):
        raise InputError("tensors of other names")
    trainer.model.load_state_dict(learned, strict=False)
    facts = state.facts
    load_optimizer(trainer.optimizer, state.tensors, facts["groups"])
    for name, source in _generators(trainer).items():
        if name == PEFT_NOISE and name not in facts["generators"]:
            continue  # a checkpoint of before there was one
        source.set_state(from_text(facts["generators"][name]))
    for name, count in facts["clock"].items():
        setattr(trainer.clock, name, count)
    trainer.order.go_to(facts["order"], facts["skip"])
    for plugin, known in zip(_resumable(trainer), facts["plugins"], strict=True):
        plugin.load_state_dict(known)
    set_random_states(facts["random"])


def _resumable(trainer: Trainer) -> list[ResumablePlugin]:
    return [each for each in trainer.plugins if isinstance(each, ResumablePlugin)]


def _is_count(value: object) -> bool:
    return isinstance(value, int)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Returns the state of an optimiser: tensors by name, and the numbers of each group."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{index}.{name}": value.detach().clone()
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    groups = [
        {name: value for name, value in group.items() if isinstance(value, int | float)}
        for group in state["param_groups"]
    ]
    return tensors, groups


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: list[dict[str, float]],
) -> None:
    """Puts an optimiser over the same parameters into the state that `optimizer_tensors` gave.

    Raises:
        InputError: If it has other groups of parameters.
    """
    now = optimizer.state_dict()
    if len(now["param_groups"]) != len(groups):
        raise InputError(
            f"a point of an experience must fit the optimiser's {len(now['param_groups'])} groups "
            f"of parameters, got {len(groups)}"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value.clone()
    merged = [{**mine, **kept} for mine, kept in zip(now["param_groups"], groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
