"""What `cl-adapters sweep` does: read a grid, check it, run what is left, say how it went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cl_adapters.benchmarks.data.verifying import verified
from cl_adapters.benchmarks.running.advice import size_advice
from cl_adapters.benchmarks.running.progress import say
from cl_adapters.benchmarks.running.recipe import read_recipe
from cl_adapters.benchmarks.sweeps.engines import Engine, open_engine
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.live import SweepView
from cl_adapters.benchmarks.sweeps.retries import Workers, check
from cl_adapters.benchmarks.sweeps.sweep import (
    PlannedRun,
    differing,
    estimate,
    expand_grid,
    plan_sweep,
    title,
)
from cl_adapters.cache.feature_cache import FeatureCache, open_cache
from cl_adapters.errors import InputError
from cl_adapters.records.data_notes import data_sentences

__all__ = ["Plan", "gpu_indices", "run_sweep", "sweep_grid"]


def sweep_grid(
    path: Path | None, given: Mapping[str, Any], settings: Sequence[str]
) -> dict[str, Any]:
    """Returns a grid: a file's, and over it what the command line says.

    Args:
        path: TOML file, or None.
        given: Values of keys; texts hold several, separated by commas; None for what is not given.
        settings: Texts `key=1,2,3`.

    Raises:
        InputError: If the file is not TOML or a setting has no value.
    """
    grid = read_recipe(path) if path else {}
    for key, value in given.items():
        if value is not None:
            grid[key] = value.split(",") if isinstance(value, str) else value
    options = grid.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"grid key `options` must be a table, got {options!r}")
    options = dict(options)
    for text in settings:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise InputError(f"--set must have the form key=1,2,3, got {text!r}")
        options[key.strip()] = values.split(",")
    return {**grid, "options": options}


class Plan:
    """The runs of a grid, how far they have come, and what the rest will cost.

    Args:
        grid: What `sweep_grid` returned.
        out: Folder of all runs.

    Raises:
        InputError: If anything in the grid is unknown or breaks its rule.
    """

    def __init__(self, grid: Mapping[str, Any], out: Path) -> None:
        self.out = out
        self.runs: list[PlannedRun] = plan_sweep(expand_grid(grid), out)

    @property
    def left(self) -> list[PlannedRun]:
        """The runs that are not finished."""
        return [each for each in self.runs if each.state != "finished"]

    def table(self) -> list[list[str]]:
        """Returns a row a run, the header first."""
        rows = [["run", "state", "experiences"]]
        keys = differing([each.config for each in self.runs])
        for each in self.runs:
            record = each.record
            done = f"{record.experiences_done}/{len(record.experiences)}" if record else ""
            rows.append([title(each.config, keys), each.state, done])
        return rows

    def cost(self) -> str:
        """Returns what is left to do and what it will take, in a sentence."""
        found = estimate(self.runs, self.out)
        text = f"{len(self.runs)} runs, {len(self.left)} to do"
        if not self.left:
            return text
        if found.seconds is None or found.bytes is None:
            return f"{text}; nothing comparable has been measured in {self.out} yet"
        text += f": about {found.seconds / 60:.0f} min on one core, {found.bytes / 1e6:.0f} MB"
        return text + (f", without {len(found.unknown)} of unknown cost" if found.unknown else "")


def gpu_indices(text: str) -> tuple[int, ...]:
    """Returns the numbers in a text that separates them by commas.

    Raises:
        InputError: If it holds anything else.
    """
    indices = [each.strip() for each in text.split(",") if each.strip()]
    if not all(each.isdigit() for each in indices):
        raise InputError(f"--gpus must be numbers separated by commas, got {text!r}")
    return tuple(map(int, indices))


def run_sweep(
    plan: Plan, workers: Workers, *, engine: str = "local", retries: int = 1, quiet: bool = False
) -> bool:
    """Runs what is left of a plan and says how it went; returns whether all runs are finished.

    Args:
        plan: The plan.
        workers: How many runs at once, and what each of them may use.
        engine: What runs them, one of `ENGINES`.
        retries: More tries of a run that fails for a reason outside it.
        quiet: Print only what failed.

    Raises:
        InputError: If a recipe cannot run or the engine cannot be had; nothing has been written
            then.
    """
    console = Console(stderr=True, quiet=quiet)
    say(console, plan.cost())
    outcomes: list[Outcome] = []
    if plan.left:
        cache = open_cache(workers.cache, gigabytes=workers.cache_gigabytes)
        with open_engine(engine, workers) as opened:
            outcomes = _run(plan, opened, console, retries, cache)
    failed = [each for each in outcomes if each.error is not None]
    errors = Console(stderr=True)
    keys = differing([each.config for each in plan.runs])
    for each in failed:
        name = title(each.config, keys)
        say(errors, f"failed: {name}: {each.error}")
    say(console, f"{len(plan.runs) - len(failed)} of {len(plan.runs)} runs are finished")
    return not failed


def _run(
    plan: Plan, engine: Engine, console: Console, retries: int, cache: FeatureCache | None
) -> list[Outcome]:
    left = [each.config for each in plan.left]
    for note in engine.notes(left):
        say(console, f"note: {note}")
    opened = {config.images: check(config, elsewhere=engine.elsewhere) for config in left}
    for images, source in opened.items():
        over_it = [config for config in left if config.images == images]
        notes = data_sentences(verified(source, cache=cache).reading.describe())
        for said in (*notes, *size_advice(over_it, source.train)):
            say(console, f"note: {said}")
    seconds = estimate(plan.runs, plan.out).seconds
    with SweepView(console, plan.out, left, seconds) as view:
        return engine.run(left, plan.out, retries=retries, watch=view)
