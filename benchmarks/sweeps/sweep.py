"""A grid of runs: which there are, how far each has come, and what the rest will cost.

A grid is a recipe some of whose values are lists; each list is an axis, and every combination is a
run:

    strategy = ["sema", "mos", "lae"]
    recipe = ["benchmarks/recipes/gtsrb.toml", "benchmarks/recipes/cifar100_mini.toml"]
    seeds = 3
    [options]
    epochs = [2, 5]            # for every strategy that has the option
    [options.lae]
    peft = ["adapter", "lora"]  # for this one

A run is known by the hash of its recipe, so a sweep that is started again finds what is done and
goes on with the rest; combinations that are the same run (an option that a strategy does not have)
are one.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from cl_adapters.benchmarks.running.batch import MOST_SEEDS, expand, flat_options, split_owner
from cl_adapters.benchmarks.running.earlier_options import current_option, has_option
from cl_adapters.benchmarks.running.recipe import RECIPE_KEYS, RunConfig
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.upgrade import as_named
from cl_adapters.strategies import find_strategy

__all__ = [
    "Estimate",
    "PlannedRun",
    "differing",
    "estimate",
    "expand_grid",
    "folder_of",
    "plan_sweep",
    "title",
]

Axes = dict[str, list[Any]]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, and how far it has come.

    Attributes:
        config: The recipe.
        state: `new`, `unfinished`, `failed` or `finished`.
        folder: Its run directory, if there is one.
        record: What that says.
    """

    config: RunConfig
    state: Literal["new", "unfinished", "failed", "finished"]
    folder: Path | None = None
    record: RunRecord | None = None


def title(config: RunConfig, keys: Sequence[str] = ()) -> str:
    """Returns strategy, data, seed and options of a run in a line.

    Args:
        config: Its recipe.
        keys: What else to tell of it, such as `differing` found.
    """
    told = {key: getattr(config, key) for key in keys} | config.options
    text = " ".join(f"{key}={_short(value)}" for key, value in told.items())
    data = Path(config.source).stem
    return f"{config.strategy} on {data} seed {config.seed} {text}".rstrip()


def differing(configs: Sequence[RunConfig]) -> list[str]:
    """Returns the keys in which recipes differ, beside those that every `title` has."""
    plain = {"strategy", "stream", "data", "seed", "options"}
    keys = [key for key in RECIPE_KEYS if key not in plain]
    return [key for key in keys if len({str(getattr(each, key)) for each in configs}) > 1]


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def expand_grid(grid: Mapping[str, Any]) -> list[RunConfig]:
    """Returns the runs of a grid, each once, in the order of its axes, seeds innermost.

    Raises:
        InputError: If a list is empty, or anything in a recipe is unknown or breaks its rule.
    """
    values = dict(grid)
    seeds = values.pop("seeds", 1)
    is_whole = isinstance(seeds, int) and not isinstance(seeds, bool)
    if not is_whole or not 1 <= seeds <= MOST_SEEDS:
        raise InputError(
            f"grid key `seeds` must be a whole number from 1 to {MOST_SEEDS}, got {seeds!r}"
        )
    options = _flat(values.pop("options", {}))
    strategies = _strategies(values.pop("strategy", []))
    axes = {key: _axis(key, each) for key, each in values.items()}
    taken = _options_by_strategy(strategies, options)
    found: dict[str, RunConfig] = {}
    for name in strategies:
        for point, settings in itertools.product(_points(axes), _points(taken[name])):
            for config in _runs(name, point, settings, seeds):
                found.setdefault(digest(config.model_dump(mode="json")), config)
    return list(found.values())


def _strategies(value: object) -> list[str]:
    names = value if isinstance(value, list) else str(value).split(",")
    found = [str(name).strip() for name in names if str(name).strip()]
    if not found:
        raise InputError("grid key `strategy` must name at least one strategy, got none")
    return found


def _axis(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or (value and all(isinstance(each, dict) for each in value)):
        return [value]  # a list of tables is one value
    if not value:
        raise InputError(f"grid key `{name}` must hold at least one value, got an empty list")
    return value


def _flat(options: object) -> Axes:
    """Returns the axes of a table of options, `[lae] peft` as `lae.peft`."""
    if not isinstance(options, dict):
        raise InputError(f"grid key `options` must be a table, got {options!r}")
    return {key: _axis(f"options.{key}", each) for key, each in flat_options(options).items()}


def _options_by_strategy(strategies: Sequence[str], options: Axes) -> dict[str, Axes]:
    """Returns the options that each strategy has; what is said for one wins over what is for all.

    Raises:
        InputError: If no strategy has an option.
    """
    taken: dict[str, Axes] = {name: {} for name in strategies}
    known = {name: find_strategy(name).config_class.model_fields for name in strategies}
    owned = {key: split_owner(key, strategies) for key in options}
    for key in sorted(options, key=lambda each: owned[each][0] is not None):
        owner, option = owned[key]
        takers = [owner] if owner else [n for n in strategies if has_option(key, known[n])]
        if not takers:
            raise InputError(
                f"grid key `options.{key}` must be an option of one of {', '.join(strategies)}"
            )
        for name in takers:
            taken[name][current_option(option, known[name])] = options[key]
    return taken


def _points(axes: Axes) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _runs(
    strategy: str, point: Mapping[str, Any], settings: Mapping[str, Any], seeds: int
) -> list[RunConfig]:
    given = {"strategy": strategy, **point}
    recipe = given.pop("recipe", None)
    texts = [f"{strategy}.{key}={_short(value)}" for key, value in settings.items()]
    return expand(given, recipe=user_path(recipe) if recipe else None, seeds=seeds, settings=texts)


def folder_of(config: RunConfig, out: Path) -> Path | None:
    """Returns the run directory of a recipe below the folder of all runs, if it was begun."""
    values = config.identified().model_dump(mode="json")
    name = f"seed{config.seed}-{digest(as_named(values), 8)}"
    return next((path.parent for path in sorted(out.glob(f"*/*/{name}/run.json"))), None)


def plan_sweep(configs: Sequence[RunConfig], out: Path) -> list[PlannedRun]:
    """Returns how far each run has come.

    Args:
        configs: What `expand_grid` returned.
        out: Folder of all runs; it need not exist.
    """
    return [_planned(config, folder_of(config, out)) for config in configs]


def _planned(config: RunConfig, folder: Path | None) -> PlannedRun:
    states: dict[str, Any] = {"finished": "finished", "failed": "failed"}
    try:
        record = RunRecord.read(folder) if folder else None
    except InputError:  # broken: the run itself will say so
        record = None
    if record is None:
        return PlannedRun(config, "new")
    return PlannedRun(config, states.get(record.state, "unfinished"), folder, record)


@dataclass(frozen=True)
class Estimate:
    """What the rest of a sweep will cost, from what finished runs did.

    Attributes:
        seconds: Processor time of all runs that are left, one after the other; None if unknown.
        bytes: Disk that they will take; None if unknown.
        unknown: Titles of the runs for which nothing comparable has been measured.
    """

    seconds: float | None
    bytes: int | None
    unknown: tuple[str, ...] = ()


def estimate(planned: Sequence[PlannedRun], out: Path) -> Estimate:
    """Returns what the runs that are left will cost.

    A run is taken to cost what finished ones of its strategy, options aside, on its data and at its
    image size did on average, less the share of experiences that it has done.
    """
    costs = _measured(out)
    left = [each for each in planned if each.state != "finished"]
    keys = differing([each.config for each in planned])
    unknown = tuple(title(each.config, keys) for each in left if _kind_of(each) not in costs)
    known = [each for each in left if _kind_of(each) in costs]
    if left and not known:
        return Estimate(None, None, unknown)
    ahead = [(costs[_kind_of(each)], 1 - _done(each)) for each in known]
    seconds = sum(share * fmean(spent) for (spent, _), share in ahead)
    size = sum(share * fmean(taken) for (_, taken), share in ahead)
    return Estimate(seconds, round(size), unknown)


def _measured(out: Path) -> dict[tuple[object, ...], tuple[list[float], list[float]]]:
    """Returns seconds and bytes of the finished runs, by kind of run."""
    costs: dict[tuple[object, ...], tuple[list[float], list[float]]] = {}
    for folder in find_runs([out]) if out.is_dir() else []:
        try:
            record = RunRecord.read(folder)
        except InputError:  # broken: it says nothing about cost
            continue
        if record.state == "finished":
            seconds, sizes = costs.setdefault(_kind(record.config), ([], []))
            seconds.append(record.seconds)
            sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    return costs


def _kind_of(planned: PlannedRun) -> tuple[object, ...]:
    return _kind(planned.config.model_dump(mode="json"))


def _kind(config: Mapping[str, Any]) -> tuple[object, ...]:
    keys = ("strategy", "stream", "data", "scenario", "image_size", "backbone", "device")
    return (*(config.get(key) for key in keys), str(config.get("datasets")))


def _done(planned: PlannedRun) -> float:
    record = planned.record
    return record.experiences_done / len(record.experiences) if record else 0.0
