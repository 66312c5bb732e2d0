"""The recipe that repeats the runs of one method, as TOML."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.toml import toml_lines

__all__ = ["recipe_text"]


def recipe_text(records: Sequence[RunRecord]) -> str:
    """Returns the recipe of each distinct setting, with the seeds that ran it in a comment.

    Values that a recipe cannot hold (None) are those that were never set.

    Example:
        >>> from types import SimpleNamespace
        >>> records = [SimpleNamespace(seed=seed, config={"seed": seed, "n": 2}) for seed in (0, 1)]
        >>> print(recipe_text(records))
        # seeds: 0, 1
        seed = 0
        n = 2
    """
    seeds: dict[str, list[int]] = defaultdict(list)
    configs: dict[str, dict[str, Any]] = {}
    for record in records:
        shared = {key: value for key, value in record.config.items() if key != "seed"}
        key = json.dumps(shared, sort_keys=True)
        seeds[key].append(record.seed)
        configs.setdefault(key, record.config)
    return "\n\n".join(_recipe(configs[key], seeds[key]) for key in configs)


def _recipe(config: dict[str, Any], seeds: Sequence[int]) -> str:
    return "\n".join([f"# seeds: {', '.join(map(str, seeds))}", *toml_lines(config)])
