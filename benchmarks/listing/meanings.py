"""What an object says about itself."""

from typing import Any

from cl_adapters.plugins.registry import Entry

__all__ = ["first_line", "meaning"]


def meaning(entry: Entry[Any]) -> str:
    """Returns the first line of an entry's docstring, or what is wrong with it."""
    return f"broken: {entry.problem}" if entry.value is None else first_line(entry.value)


def first_line(value: object) -> str:
    """Returns the first line of an object's docstring."""
    return next(iter((value.__doc__ or "").splitlines()), "")
