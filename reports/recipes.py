"""The recipe that repeats the runs of one method, as TOML."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cl_adapters.records import RunRecord

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
    lines = [f"{_key(key)} = {_value(value)}" for key, value in config.items() if value is not None]
    return "\n".join([f"# seeds: {', '.join(map(str, seeds))}", *lines])


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        items = (f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {', '.join(items)} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value if item is not None)}]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")
