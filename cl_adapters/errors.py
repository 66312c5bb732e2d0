"""The exceptions that the command turns into one sentence and an exit code, and their words."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

__all__ = [
    "OUT_OF_MEMORY",
    "EarlierNameWarning",
    "InputError",
    "RunError",
    "check_memory",
    "check_positive",
    "is_out_of_memory",
    "listed",
    "printable",
    "refuse_truth",
    "text_of",
    "unknown_name",
]

_SHOWN = 60  # names in a sentence at most: timm knows a thousand backbones


class InputError(ValueError):
    """Raised when what the user gave breaks a rule; names the thing, the rule and the value."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], others: Iterable[str] = ()
) -> InputError:
    """Returns the error for a name that is not in a table, with the near ones first.

    Args:
        kind: What the name was meant to be, such as `strategy`.
        name: The name as given.
        known: Every name that would have been right.
        others: More such names, which may be what was meant, but are not listed.

    Example:
        >>> str(unknown_name("strategy", "lea", ["lae", "finetune"]))
        "unknown strategy 'lea'; did you mean 'lae'? Known: finetune, lae"
    """
    names = sorted(known)
    lowered = {each.lower(): each for each in [*others, *names]}
    near = [lowered[each] for each in get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."
    shown = ", ".join(names) if len(names) <= _SHOWN else f"{len(names)} names"
    return InputError(f"unknown {kind} {name!r}{hint} Known: {shown or 'none'}")


def listed(names: Iterable[object], most: int = 3) -> str:
    """Returns some names, quoted, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed("abcdef", 4)
        ("'a', 'b'", "'a', 'b', 'c', 'd' and 2 more")
    """
    known = [repr(each) for each in names]
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def text_of(error: BaseException) -> str:
    """Returns what an exception says; empty for a plugin's that cannot say it.

    Example:
        >>> text_of(KeyError("name"))
        "'name'"
    """
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever a stranger's `__str__` raises
        return ""


# Control and formatting characters, halves of pairs, ends of lines: what no terminal should obey.
_OBEYED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Returns a text that a terminal shows and does not obey; line ends and tabs stay."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        ascii(each)[1:-1] if unicodedata.category(each) in _OBEYED and each not in "\n\t" else each
        for each in whole
    )


class RunError(RuntimeError):
    """Raised when a run cannot go on though its input was good; exit code 1."""


# What a user is told where memory did not suffice.
OUT_OF_MEMORY = "memory must hold the model and a batch, and did not"
# How torch and its libraries say it beside their own kinds of error.
_NO_MEMORY = ("could not create a primitive", "can't allocate memory", "out of memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an error means that memory did not suffice, on a CPU or a GPU.

    Example:
        >>> is_out_of_memory(RuntimeError("could not create a primitive"))
        True
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(text in text_of(error) for text in _NO_MEMORY)


class EarlierNameWarning(FutureWarning):
    """Says under which name a thing that the user named is known now."""


def refuse_truth(kind: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuses true and false where a number is asked for; Python would take them for 1 and 0.

    Args:
        kind: What a value is called in messages, such as `option`.
        values: As they were given, by name.
        fields: pydantic's fields by name; other names are left to others.

    Raises:
        InputError: At the first such value.
    """
    for name, value in values.items():
        if isinstance(value, bool) and name in fields:
            annotation = fields[name].annotation
            kinds = {annotation, *get_args(annotation)}
            if kinds & {int, float} and bool not in kinds:
                raise InputError(f"{kind}`{name}` must be a number, got {str(value).lower()}")


def check_positive(name: str, value: int) -> None:
    """Raises `InputError` unless a size is a positive integer."""
    if value < 1:
        raise InputError(f"`{name}` must be a positive integer, got {value}")


def check_memory(what: str, size: int) -> None:
    """Raises `InputError` where numbers that are to be kept cannot fit into the machine's memory.

    Where the system does not say how much it has, nothing is checked.

    Args:
        what: What is kept.
        size: How many bytes it takes.
    """
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise InputError(
            f"{what} must fit into the memory of this machine, {memory / 1e9:.0f} GB, got "
            f"{size / 1e9:,.0f} GB"
        )
