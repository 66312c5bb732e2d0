"""Training that another run has done already: runs that differ only in how they evaluate.

Some options of a method say how a trained model answers and nothing about how it learns
(`StrategyConfig.evaluation_options`): MOS's retrieval, rounds and ensemble. Where a finished run
stands beside a new one that differs in nothing else, the new one takes what was learned from its
checkpoints, experience by experience, and only evaluates. Predictions are those of a run that had
trained itself.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.running.checkpoints import read_checkpoint
from cl_adapters.errors import InputError
from cl_adapters.records import RunRecord, read_events
from cl_adapters.strategies.base import AdapterStrategy

__all__ = ["find_trained", "learn"]

# What a run measures itself, whoever trained.
_OWN: Final = frozenset(
    {"evaluation", "parameters", "memory", "memo", "domain", "segment", "router", "votes", "reused"}
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
    for other in sorted(folder.parent.glob(f"seed{planned.seed}-*/run.json")):
        try:
            found = RunRecord.read(other.parent)
        except InputError:  # broken: `list runs` says so
            continue
        whole = found.state == "finished" and other.parent != folder
        if whole and _training(found, options) == _training(planned, options):
            return other.parent
    return None


def _training(record: RunRecord, options: Collection[str]) -> tuple[object, ...]:
    config = dict(record.config)
    given = config["options"].items()
    config["options"] = {name: value for name, value in given if name not in options}
    return config, record.fingerprint, record.classes, record.versions


def learn(strategy: AdapterStrategy, experience: Any, trained: Path | None) -> None:  # noqa: ANN401
    """Trains a strategy on an experience, or takes what another run learned from it.

    Args:
        strategy: As it was after the experience before.
        experience: Avalanche's experience.
        trained: What `find_trained` returned.
    """
    state = _state(trained, experience.current_experience)
    if trained is None or state is None:
        strategy.train(experience, eval_streams=[])
        return
    strategy.restore(state, [experience])
    for event in read_events(trained):
        if event["experience"] == experience.current_experience and event["event"] not in _OWN:
            strategy.note(**event)
    strategy.note("reused", run=trained.name)


def _state(trained: Path | None, experience: int) -> dict[str, Any] | None:
    try:
        return read_checkpoint(trained / "checkpoints", experience) if trained else None
    except InputError:  # removed or damaged since: this run can train itself
        return None
