"""How a run that was stopped goes on, without training: from where, and with what."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.benchmarks.running.progress import Progress, StopRun
from cl_adapters.records.events import read_events
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions, read_retrieval

__all__ = ["Start", "began", "moments", "started"]


class Watcher:
    """Stands for a strategy: takes what a run gives it back, and ends the run where it would train."""

    resumes = resumes_inside = True
    cache = None
    train_epochs = 1

    def __init__(self, config: Any) -> None:
        self.config, self.given = config, dict[str, Any]()

    def add_plugin(self, plugin: object, *, first: bool = False) -> None: ...

    def set_checkpointer(self, checkpointer: object) -> None: ...

    def restore(self, state: Mapping[str, Any], experiences: Sequence[Any]) -> None:
        self.given[f"learned {experiences[-1].current_experience}"] = plain(state)

    def load_state(self, points: Sequence[Any]) -> None:
        self.given["points"] = [
            (each.phase, each.epoch, plain(each.tensors), dict(each.facts)) for each in points
        ]

    def load_progress(self, events: Sequence[Any], timings: Mapping[str, Any]) -> None:
        self.given["progress"] = (list(events), dict(timings))

    def train(self, experiences: Any, **_: object) -> None:
        raise StopRun(f"would train {experiences.current_experience}")

    def eval(self, experiences: Sequence[Any]) -> None:
        raise StopRun(f"would evaluate {len(experiences) - 1}")


def plain(state: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items()}


class Told(Progress):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class Watching:
    """A prepared run whose strategy only watches, so that it can be begun any number of times."""

    prepared: PreparedRun
    stream: Any
    threads = 1
    strategy: Any = field(init=False)
    record: RunRecord = field(init=False)

    def __post_init__(self) -> None:
        self.strategy = Watcher(self.prepared.strategy.config)
        self.record = deepcopy(self.prepared.record)

    @cached_property
    def plan(self) -> Any:
        return self.prepared.plan

    def benchmark(self) -> Any:
        return self.stream


@dataclass(frozen=True)
class Start:
    """From where a run goes on: a moment that it has been through, or none that it ever was at.

    Attributes:
        where: What it would do next.
        given: All that it took from the disk.
        notes: What it told of that.
    """

    where: str
    given: dict[str, Any]
    notes: list[str]


def started(prepared: PreparedRun, stream: Any, out: Path) -> Start:
    """Takes a run up until it would train or evaluate.

    Args:
        prepared: What is run; it is left as it is.
        stream: Its benchmark.
        out: Folder of all runs.

    Raises:
        InputError: If it is refused.
    """
    watching, told = Watching(prepared, stream), Told()
    try:
        runner.run(watching, out, progress=told, checkpoint_minutes=10)
    except StopRun as reason:
        where = str(reason)
    else:
        where = "finished"
    (folder,) = find_runs([out])
    found = began(folder, RunRecord.read(folder).experiences_done)
    return Start(where, {**watching.strategy.given, **found}, told.notes)


def began(folder: Path, done: int) -> dict[str, Any]:
    """Returns what stands in the record of so many experiences."""
    record = RunRecord.read(folder)
    found: dict[str, Any] = {"config": record.config, "classes": record.classes, "done": done}
    readers: dict[str, Callable[[Path], Any]] = {
        "predictions": read_predictions,
        "retrieval": read_retrieval,
    }
    for name, read in readers.items():
        table = read(folder)
        found[name] = str(table[table["experience"] < done].to_dict("list"))
    found["events"] = [each.as_line() for each in read_events(folder) if each.experience < done]
    return found


def moments(folder: Path) -> dict[int, dict[str, Any]]:
    """Returns, by number of finished experiences, what a sound run would take from the disk."""
    found = {}
    for done in range(RunRecord.read(folder).experiences_done + 1):
        found[done] = began(folder, done)
        if done:
            state = read_checkpoint(folder / "checkpoints", done - 1).state
            found[done][f"learned {done - 1}"] = plain(state)
    return found
