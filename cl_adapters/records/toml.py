"""Recipes as TOML: the standard library reads it and does not write it."""

import json
from collections.abc import Mapping

__all__ = ["toml_lines"]


def toml_lines(values: Mapping[str, object]) -> list[str]:
    """Returns a line of TOML for each key, inner tables inline.

    None stands for a key that was never set and is left out.

    Example:
        >>> toml_lines({"increment": 5, "first": None, "options": {"lr": 0.01, "peft": "lora"}})
        ['increment = 5', 'options = { lr = 0.01, peft = "lora" }']
    """
    return [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        return f"{{ {', '.join(toml_lines(value))} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value if item is not None)}]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")
