"""A conformance suite: named checks of a stranger's object, a sentence a broken rule."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from cl_adapters.errors import unknown_name
from cl_adapters.plugins.references import in_words

__all__ = ["STOPPED", "run_suite"]

STOPPED: Final = "it must run through"

Subject = TypeVar("Subject")


def run_suite(
    suite: Mapping[str, Callable[[Subject], Iterator[str]]],
    subject: Subject,
    checks: Iterable[str] | None = None,
) -> list[str]:
    """Runs checks and returns the sentences of those that fail, each headed by its check's name.

    A check in which the subject raises has failed; the others still run.

    Args:
        suite: The checks by name; each yields a sentence for each rule that is broken.
        subject: What is checked.
        checks: Names of those to run; None runs all.

    Raises:
        InputError: If a name is unknown.

    Example:
        >>> def even(number):
        ...     yield from ["must be even"] * (number % 2)
        >>> suite = {"even": even, "divides": lambda number: [6 / number][:0]}
        >>> run_suite(suite, 3, ["even"])
        ['even: must be even']
        >>> run_suite(suite, 0)
        ['divides: it must run through, got ZeroDivisionError: division by zero']
    """
    names = list(suite if checks is None else checks)
    for name in names:
        if name not in suite:
            raise unknown_name("check", name, suite)
    return [f"{name}: {each}" for name in names for each in _sentences(suite[name], subject)]


def _sentences(check: Callable[[Subject], Iterator[str]], subject: Subject) -> list[str]:
    try:
        return list(check(subject))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a stranger's code raises
        return [f"{STOPPED}, got {in_words(error)}"]
