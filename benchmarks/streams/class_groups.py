"""Experiences that name their classes, in a file or in a recipe."""

import json
import tomllib
from collections.abc import Mapping, Sequence

from cl_adapters.benchmarks.streams.class_names import class_positions
from cl_adapters.errors import InputError
from cl_adapters.paths import read_text, user_path

__all__ = ["groups_of", "groups_text", "positions_of_groups"]

_RULE = 'must give each experience a list of class names: pets = ["cat", "dog"]'


def groups_text(value: object) -> str:
    """Returns the classes of each experience as a recipe holds them: in one line of JSON.

    Args:
        value: Such a line; or a table of lists of class names by the name of their experience, in
            order; or the path of a TOML file that holds such a table.

    Raises:
        InputError: If a file cannot be read, or anything else is given.
    """
    found, what = value, "recipe key `experiences`"
    if isinstance(value, str):
        is_line = value.lstrip().startswith("{")
        found = _parsed(value) if is_line else _read(value)
        what = what if is_line else f"experiences file {value!r}"
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{what} {_RULE}, got {repr(found)[:60]}")
    for name, classes in found.items():
        is_list = isinstance(classes, Sequence) and not isinstance(classes, str) and classes
        if not is_list or not all(isinstance(each, str) and each for each in classes):
            raise InputError(f"{what} {_RULE}, got {repr(classes)[:60]} for {name!r}")
    return json.dumps({name: list(classes) for name, classes in found.items()}, ensure_ascii=False)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"recipe key `experiences` {_RULE}, got {text[:60]!r}") from error


def _read(text: str) -> object:
    try:
        return tomllib.loads(read_text(user_path(text)))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML
        raise InputError(
            f"experiences file {text!r} must be a readable TOML file, got: {error}"
        ) from error


def groups_of(text: str) -> dict[str, list[str]]:
    """Returns the class names of each experience, given what `groups_text` returned."""
    groups: dict[str, list[str]] = json.loads(text)
    return groups


def positions_of_groups(
    text: str, classes: Sequence[str]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Returns the class order that experiences with names make, and the positions of each.

    Args:
        text: What `groups_text` returned.
        classes: Names of the source's classes.

    Raises:
        InputError: If a class is unknown, there twice or missing.

    Example:
        >>> positions_of_groups('{"b": ["dog"], "a": ["emu", "cat"]}', ["cat", "dog", "emu"])
        ((1, 2, 0), ((0,), (1, 2)))
    """
    groups = list(groups_of(text).values())
    order = class_positions([name for group in groups for name in group], classes, "experiences")
    stops = [sum(map(len, groups[: place + 1])) for place in range(len(groups))]
    return order, tuple(
        tuple(range(stop - len(group), stop)) for group, stop in zip(groups, stops, strict=True)
    )
