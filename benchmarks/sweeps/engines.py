"""What runs the runs of a sweep: worker processes of this machine, or a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.engine_local import LocalEngine
from cl_adapters.benchmarks.sweeps.engine_ray import RayEngine
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.retries import Watch, Workers
from cl_adapters.errors import unknown_name

__all__ = ["ENGINES", "Engine", "check_engine", "open_engine"]


class Engine(Protocol):
    """Runs recipes wherever it runs them: same records, same predictions."""

    @property
    def elsewhere(self) -> bool:
        """Whether runs may be on machines with other devices than this one has."""

    def notes(self, configs: Sequence[RunConfig]) -> list[str]:
        """Returns what the user may not expect of these runs."""

    def run(
        self, configs: Sequence[RunConfig], out: Path, *, retries: int, watch: Watch
    ) -> list[Outcome]:
        """Runs recipes and returns how each ended, in their order.

        Args:
            configs: The recipes.
            out: Folder of all runs.
            retries: How often a run is taken up again that failed for a reason outside its recipe.
            watch: Whom to tell.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed; every run can be continued.
        """

    def close(self) -> None:
        """Gives up what the engine holds between runs."""


ENGINES: Final[dict[str, Callable[[Workers], Engine]]] = {"local": LocalEngine, "ray": RayEngine}


def check_engine(name: str) -> None:
    """Checks the name of an engine.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)


@contextmanager
def open_engine(name: str, workers: Workers) -> Iterator[Engine]:
    """Opens an engine for the block.

    Args:
        name: One of `ENGINES`.
        workers: How many runs at once, and what each of them may use.

    Raises:
        InputError: If there is no such engine, or it cannot be had.
    """
    check_engine(name)
    engine = ENGINES[name](workers)
    try:
        yield engine
    finally:
        engine.close()
