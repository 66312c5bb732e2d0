"""One try of one recipe in a process of any machine."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.verifying import verified
from cl_adapters.benchmarks.running.checkpoints import CHECKPOINT_MINUTES
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.prepare import PreparedRun, open_backbone, prepare
from cl_adapters.benchmarks.running.progress import Progress
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run_stepwise
from cl_adapters.benchmarks.streams.watch import BoundaryDetector
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.errors import InputError, RunError
from cl_adapters.plugins.references import in_words
from cl_adapters.records.run_record import find_run_folder

__all__ = ["Watch", "Workers", "check", "failure", "try_run"]

# Of a lost worker or a killed sweep some process may still be at work for a moment.
_PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Workers:
    """How many runs at once, and what each of them may use.

    Attributes:
        count: Number of runs; None for as many as there is room for.
        threads: CPU threads of each.
        gpus: Indices of this machine's GPUs, handed out one a worker; empty leaves devices as they
            are.
        cache: Folder that they share for what frozen parts compute, or `off`; None: as
            `open_cache`.
        cache_gigabytes: Most that it takes on disk, above 0.
        checkpoint_minutes: Time between two checkpoints inside an experience, at least 0.
        address: Of a Ray cluster; None for the one that Ray finds, or one of this machine.
    """

    count: int | None = None
    threads: int = 1
    gpus: tuple[int, ...] = ()
    cache: str | None = None
    cache_gigabytes: float = 4.0
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    address: str | None = None


# Called about once a second with the recipes that are under way and with what has ended so far.
Watch = Callable[[Sequence[RunConfig], Sequence[Outcome]], None]


def check(config: RunConfig, *, elsewhere: bool = False) -> ImageSource:
    """Checks that a recipe can run, before anything is written; returns its images.

    Args:
        config: The recipe.
        elsewhere: Another machine will run it, whose device and compiler are not looked at.

    Raises:
        InputError: If anything that it names is unknown, missing or does not fit.
    """
    here = {"device": "cpu", "compile": False}
    config = config.model_copy(update=here) if elsewhere else config
    return _prepared(config, Workers(cache="off"), is_verified=False).source


def try_run(config: RunConfig, out: Path, workers: Workers) -> Iterator[Path | Outcome]:
    """Runs a recipe, or what is left of it, in this process's main thread; a worker's work.

    Args:
        config: The recipe.
        out: Folder of all runs.
        workers: What it may use.

    Yields:
        The run directory after each experience but the last, then how the run ended.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed; the run can be continued.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    notes = _Notes()
    try:
        prepared = _prepared(config, workers)
        yield from run_stepwise(
            prepared,
            out,
            progress=notes,
            checkpoint_minutes=workers.checkpoint_minutes,
            patience=_PATIENCE_SECONDS,
        )
        cache, folder = prepared.strategy.cache, find_run_folder(out, prepared.record)
        trouble = cache.trouble if cache is not None else None
        yield Outcome(config, folder, notes=tuple(notes.told), trouble=trouble)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; other runs go on
        yield failure(config, error, tuple(notes.told))
    finally:
        signal.signal(signal.SIGINT, before)


def failure(config: RunConfig, error: BaseException, notes: tuple[str, ...] = ()) -> Outcome:
    """Returns how a run ended that an exception ended.

    Args:
        config: The recipe.
        error: The exception.
        notes: What the user may not expect.
    """
    is_known = isinstance(error, InputError | RunError | OSError)
    text = str(error) if is_known else in_words(error)
    is_final = isinstance(error, InputError) or not is_known
    return Outcome(config, error=text, final=is_final, notes=notes)


class _Notes(Progress):
    """Keeps what the runner says that the user may not expect."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        """Keeps it."""
        self.told.append(text)


def _prepared(config: RunConfig, workers: Workers, *, is_verified: bool = True) -> PreparedRun:
    source = _kept("images", config.images, lambda: open_images(config))
    weights = (config.backbone, config.weights, config.image_size, config.emoe)
    backbone = _kept("backbone", weights, lambda: open_backbone(config))
    detector = _kept("boundary_detector", None, BoundaryDetector)
    where = workers.cache, workers.cache_gigabytes
    cache = _kept("cache", where, lambda: open_cache(where[0], gigabytes=where[1]))
    if is_verified:  # so that the record says what decoding did; the cache knows it already
        source = _kept("verified", config.images, lambda: verified(source, cache=cache))
    return prepare(
        config, source=source, backbone=backbone, boundary_detector=detector, cache=cache
    )


_LAST: Final[dict[str, tuple[object, Any]]] = {}


def _kept(kind: str, key: object, make: Callable[[], Any]) -> Any:  # noqa: ANN401
    # The next run of a worker mostly has the same images and weights.
    if kind not in _LAST or _LAST[kind][0] != key:
        _LAST[kind] = (key, make())
    return _LAST[kind][1]
