"""A battery: named checks of something that a stranger wrote, each a sentence a broken rule."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from cl_adapters.errors import unknown_name

__all__ = ["run_suite"]

Subject = TypeVar("Subject")


def run_suite(
    battery: Mapping[str, Callable[[Subject], Iterator[str]]],
    subject: Subject,
    checks: Iterable[str] | None = None,
) -> list[str]:
    """Runs checks and returns the sentences of those that fail, each headed by its check's name.

    A check in which the subject raises has failed; the others still run.

    Args:
        battery: The checks by name; each yields a sentence for each rule that is broken.
        subject: What is checked.
        checks: Names of those to run; None runs all.

    Raises:
        InputError: If a name is unknown.

    Example:
        >>> def even(number):
        ...     yield from ["must be even"] * (number % 2)
        >>> battery = {"even": even, "divides": lambda number: [6 / number][:0]}
        >>> run_suite(battery, 3, ["even"])
        ['even: must be even']
        >>> run_suite(battery, 0)
        ['divides: it must run through, got ZeroDivisionError: division by zero']
    """
    names = list(battery if checks is None else checks)
    for name in names:
        if name not in battery:
            raise unknown_name("check", name, battery)
    return [f"{name}: {each}" for name in names for each in _sentences(battery[name], subject)]


def _sentences(check: Callable[[Subject], Iterator[str]], subject: Subject) -> list[str]:
    try:
        return list(check(subject))
    except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises
        first = (str(error).splitlines() or [""])[0]
        return [f"it must run through, got {type(error).__name__}: {first}"]
