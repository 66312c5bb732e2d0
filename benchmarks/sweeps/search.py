"""What a search of options looks for, and where its study stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json

from cl_adapters.benchmarks.running.prepare import method_options
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.space import Space, nested
from cl_adapters.plugins.references import label
from cl_adapters.records.files import digest
from cl_adapters.records.upgrade import as_named

__all__ = ["Search"]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched and how a trial is judged.

    Attributes:
        config: The recipe of every trial but for what is searched; `validation` is set.
        space: What is searched.
        seeds: Runs of a trial, from the recipe's seed on.
        prune: Whether a trial ends early that falls behind.
        out: Folder of all runs.
    """

    config: RunConfig
    space: Space
    seeds: int = 1
    prune: bool = True
    out: Path = Path("runs")

    @property
    def folder(self) -> Path:
        """Where the study stands: another search, another folder."""
        config = as_named(self.config.identified().model_dump(mode="json"))
        space = {name: distribution_to_json(each) for name, each in self.space.items()}
        key = digest([config, space, self.seeds, self.prune], 8)
        stream = label(Path(self.config.source).stem)
        return self.out / "studies" / f"{label(self.config.strategy)}-{stream}-{key}"

    def options(self, params: dict[str, Any]) -> dict[str, Any]:
        """Returns the recipe's options with some of them changed.

        Raises:
            InputError: If the strategy refuses the combination.
        """
        given = dict(self.config.options)
        for name, value in nested(params).items():
            # One option of a group leaves the others as the recipe has them.
            inside = isinstance(value, dict) and isinstance(given.get(name), dict)
            given[name] = {**given[name], **value} if inside else value
        changed = method_options(self.config.model_copy(update={"options": given}))
        values = changed.model_dump(mode="json")
        return {name: values[name] for name in given}

    def recipes(self, params: dict[str, Any]) -> list[RunConfig]:
        """Returns the recipes of a trial, one a seed.

        Raises:
            InputError: If the strategy refuses the combination.
        """
        options = self.options(params)
        seeds = range(self.config.seed, self.config.seed + self.seeds)
        return [self.config.model_copy(update={"options": options, "seed": k}) for k in seeds]

    def now(self) -> dict[str, Any]:
        """Returns the values that the recipe has of what is searched, if the space holds them."""
        options = method_options(self.config)
        now: dict[str, Any] = {}
        for name, each in self.space.items():
            value: Any = options
            for part in name.split("."):
                value = getattr(value, part)
            # No public method asks a distribution what it holds.
            if isinstance(each, optuna.distributions.CategoricalDistribution):
                holds = value in each.choices
            else:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                holds = number and each.low <= value <= each.high  # type: ignore[attr-defined]
            if not holds:
                return {}
            now[name] = value
        return now
