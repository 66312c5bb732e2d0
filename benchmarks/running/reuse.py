"""Runs that lie beside a new one and have done some of its work already.

Some options of a method say how a trained model answers and nothing about how it learns
(`StrategyConfig.evaluation_options`): MOS's retrieval, rounds and ensemble. Where a finished run
stands beside a new one that differs in nothing else, the new one takes what was learned from its
checkpoints, experience by experience, and only evaluates. Predictions are those of a run that had
trained itself.

Where an unfinished run differs only in what computes, its user may have meant to go on with it.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from cl_adapters.benchmarks.running.learner import Learner
from cl_adapters.errors import InputError
from cl_adapters.records.events import Event, read_events
from cl_adapters.records.integrity import check_files
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies.core.avalanche_types import AvalancheExperience

__all__ = ["find_begun", "find_trained", "learn"]

# What computes: part of what a run is, since it decides about last digits, but easily forgotten.
_MACHINE: Final = frozenset({"threads", "device"})

# What a run measures itself, whoever trained.
_OWN: Final = frozenset(
    {
        "evaluation",
        "parameters",
        "memory",
        "cache",
        "domain",
        "segment",
        "router",
        "votes",
        "reused",
    }
)


def find_trained(folder: Path, planned: RunRecord, options: Collection[str]) -> Path | None:
    """Returns a finished run whose training is that of a planned one, or None.

    Args:
        folder: Run directory of the planned run; those of the same strategy and stream lie beside.
        planned: Its record.
        options: Options of the method that have no part in training.
    """
    if not options:
        return None
    for other, found in _beside(folder, planned):
        is_same = _training(found, options) == _training(planned, options)
        if found.state == "finished" and is_same and _is_sound(other):
            return other
    return None


def _is_sound(folder: Path) -> bool:
    try:
        check_files(folder)
    except InputError:  # damaged: `list runs` says so
        return False
    return True


def find_begun(folder: Path, planned: RunRecord) -> tuple[Path, dict[str, object]] | None:
    """Returns an unfinished run that differs from a planned one only in what computes, or None.

    Args:
        folder: As for `find_trained`.
        planned: Its record.

    Returns:
        The other's run directory, and its values of the entries of the recipe that differ.
    """
    for other, found in _beside(folder, planned):
        differing = {
            name: value for name, value in found.config.items() if planned.config.get(name) != value
        }
        is_ours = found.config.keys() == planned.config.keys() and differing.keys() <= _MACHINE
        if found.state != "finished" and differing and is_ours:
            return other, differing
    return None


def _beside(folder: Path, planned: RunRecord) -> Iterator[tuple[Path, RunRecord]]:
    for path in sorted(folder.parent.glob(f"seed{planned.seed}-*/run.json")):
        if path.parent == folder:
            continue
        try:
            found = RunRecord.read(path.parent)
        except InputError:  # broken: `list runs` says so
            continue
        yield path.parent, found


def _training(record: RunRecord, options: Collection[str]) -> tuple[object, ...]:
    config = dict(record.config)
    given = config["options"].items()
    config["options"] = {name: value for name, value in given if name not in options}
    return config, record.fingerprint, record.classes, record.versions


def learn(strategy: Learner, experience: AvalancheExperience, trained: Path | None) -> None:
    """Trains a strategy on an experience, or takes what another run learned from it.

    Args:
        strategy: As it was after the experience before.
        experience: Avalanche's experience.
        trained: What `find_trained` returned.
    """
    found = _learned(trained, experience.current_experience)
    if trained is None or found is None:
        strategy.train(experience, eval_streams=[])
        return
    state, events = found
    strategy.restore(state, [experience])
    for event in events:
        if event.experience == experience.current_experience and event.event not in _OWN:
            strategy.log_event(event.event, seconds=event.seconds, **event.values)
    strategy.log_event("reused", run=trained.name)


def _learned(
    trained: Path | None, experience: int
) -> tuple[Mapping[str, Tensor], list[Event]] | None:
    if trained is None:
        return None
    try:
        learned = read_checkpoint(trained / "checkpoints", experience)
        return learned.state, read_events(trained)
    except InputError:  # removed or damaged since: this run can train itself
        return None
