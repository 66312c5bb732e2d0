"""What `cl-adapters tune` does: check a search, run its trials, say how they ended."""

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from cl_adapters.benchmarks.data.verifying import verified
from cl_adapters.benchmarks.running.advice import size_advice
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.prepare import method_options, prepare
from cl_adapters.benchmarks.running.progress import Bars, ctrl_c_is_heard, say
from cl_adapters.benchmarks.sweeps.search import Search
from cl_adapters.benchmarks.sweeps.space import read_space, space_table
from cl_adapters.benchmarks.sweeps.tune import Tuning
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.data_notes import data_sentences

__all__ = ["Effort", "make_search", "run_tune", "table_of"]

SHARE: Final = 0.2  # of the training images that trials are judged on
_STOPPED: Final = 130  # what shells say of a process that Ctrl-C ended


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How a search is worked on; none of it changes which trials there are but their number.

    Attributes:
        trials: Trials in all.
        jobs: Processes that run them.
        threads: CPU threads of each.
        cache: Folder for what frozen parts compute, or `off`; None: as `open_cache`.
        quiet: Print only what failed.
    """

    trials: int = 20
    jobs: int = 1
    threads: int = 1
    cache: str | None = None
    quiet: bool = False


def make_search(
    given: Mapping[str, Any],
    *,
    recipe: Path | None,
    settings: Sequence[str],
    space: Sequence[str],
    **search: Any,  # noqa: ANN401 - fields of `Search`
) -> Search:
    """Returns a search whose every part has been checked; nothing is written.

    Args:
        given: Recipe keys from the command line.
        recipe: TOML file with defaults for them.
        settings: Texts `key=value`: options that are not searched.
        space: What is searched, see `read_space`.
        **search: The other fields of `Search`.

    Raises:
        InputError: If anything named is unknown or breaks its rule.
    """
    configs = expand(given, recipe=recipe, seeds=1, settings=settings)
    if len(configs) != 1:
        names = ", ".join(config.strategy for config in configs)
        raise InputError(f"--strategy must name one strategy to tune, got {names}")
    config = configs[0]
    if config.validation is None:
        config = config.model_copy(update={"validation": SHARE})
    return Search(config=config, space=read_space(method_options(config), space), **search)


def table_of(search: Search) -> list[list[str]]:
    """Returns what is searched, a row an option, the header first."""
    return space_table(search.space, method_options(search.config))


def run_tune(search: Search, effort: Effort, best: Path | None = None) -> list[list[str]]:
    """Runs what is left of a search; returns the table of the best trials.

    Args:
        search: The search.
        effort: How it is worked on.
        best: File for a copy of the best recipe; None writes the study's own only.

    Raises:
        InputError: If the recipe cannot run; nothing has been written then.
        RunError: If no trial has finished, or a process has failed.
    """
    console = Console(stderr=True, quiet=effort.quiet)
    if best is not None and not best.parent.is_dir():
        raise InputError(f"--best must lie in a folder that exists, got {str(best)!r}")
    source = open_images(search.config)
    cache = open_cache(effort.cache)
    prepare(search.config, source=source)
    source = verified(source, cache=cache)
    notes = data_sentences(source.reading.describe())
    for said in (*notes, *size_advice([search.config], source.train)):
        say(console, f"note: {said}")
    torch.set_num_threads(effort.threads)
    with closing(Tuning(search, effort.trials, source, cache)) as tuning:
        if effort.jobs > 1:
            _work_in_processes(search, effort)
        else:
            with ctrl_c_is_heard() as stopped, Bars(console, stopped) as bars:
                tuning.work(bars)
        written = tuning.folder / "best.toml"
        if not written.is_file():
            raise RunError(f"a search must finish a trial, and none of {effort.trials} did")
        found = tuning.table()
        if best is not None:
            best.write_bytes(written.read_bytes())
    say(
        console,
        f"best recipe: {best or written}; "
        "`cl-adapters run --recipe` says what it is worth on the test images",
    )
    return found


def _work_in_processes(search: Search, effort: Effort) -> None:
    context = get_context("spawn")  # torch's threads and CUDA do not survive a fork
    stopped = context.Event()
    processes: list[BaseProcess] = [
        context.Process(target=_work, args=(search, effort, stopped)) for _ in range(effort.jobs)
    ]
    # Ctrl-C reaches them through the event alone: a signal could meet them while they import.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in processes:
        each.start()
    signal.signal(signal.SIGINT, before)
    try:
        for each in processes:
            each.join()
    except KeyboardInterrupt:
        stopped.set()
        for each in processes:
            each.join()
        raise
    failed = sum(each.exitcode != 0 for each in processes)
    if failed:
        raise RunError(f"{failed} of {effort.jobs} processes ended before the search did")


def _work(search: Search, effort: Effort, stopped: Event) -> None:
    torch.set_num_threads(effort.threads)
    console = Console(stderr=True, quiet=effort.quiet, force_terminal=False)
    errors = Console(stderr=True)
    try:
        cache = open_cache(effort.cache)
        source = verified(open_images(search.config), cache=cache)
        tuning = Tuning(search, effort.trials, source, cache)
        with closing(tuning), Bars(console, stopped) as bars:
            tuning.work(bars)
    except KeyboardInterrupt:
        sys.exit(_STOPPED)
    except (InputError, RunError, OSError) as error:
        say(errors, str(error))
        sys.exit(1)
