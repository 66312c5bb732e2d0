"""What the experiences of a stream bring, by name: for who reads "experience 3"."""

from collections.abc import Sequence
from typing import Final

from cl_adapters.records.experience_names import given_names, shortened
from cl_adapters.records.run_record import RunRecord

__all__ = ["cut", "experience_label", "experience_names", "experience_sentence"]

_CLASSES: Final = 4  # of an experience, in a sentence
_EXPERIENCES: Final = 20
_ON_AN_AXIS: Final = 14  # letters
_IN_FULL: Final = 80


def experience_sentence(records: Sequence[RunRecord]) -> str:
    """Returns the number, the name and the classes of each experience.

    Empty where runs differ in them, as seeds with class orders of their own do, and where classes
    come in several experiences that have no names.

    Args:
        records: The runs' records, at least one.
    """
    first = records[0]
    names = given_names(first)
    if not _is_same(records) or (not any(names) and _returns(first)):
        return ""
    parts = [
        f"{number}{name and ' '}{name} ({classes})"
        for number, (name, classes) in enumerate(zip(names, _classes(first), strict=True), 1)
    ]
    return f"experiences: {shortened(parts, _EXPERIENCES)}"


def experience_names(records: Sequence[RunRecord]) -> list[str]:
    """Returns what each experience is called: its name, or else the first of its classes.

    Empty where runs differ in it.

    Args:
        records: The runs' records, at least one.

    Example:
        With folders for experiences `["home", "zoo"]`, else `["cat, dog", "emu"]`.
    """
    names = [given_names(record) for record in records]
    if any(names[0]):
        found = names[0] if all(each == names[0] for each in names) else []
    else:
        found = [] if not _is_same(records) or _returns(records[0]) else _classes(records[0])
    return [cut(_printable(name), _IN_FULL) for name in found]


def experience_label(number: int, name: str, length: int = _ON_AN_AXIS) -> str:
    """Returns number and name of an experience for an axis or a legend.

    Args:
        number: Counted from 1.
        name: Of `experience_names`; empty if it has none.
        length: Letters of the name that are shown at most; the rest is an ellipsis.

    Example:
        >>> experience_label(3, "the zoo at night", 8), experience_label(3, "")
        ('3: the zoo…', '3')
    """
    if not name:
        return str(number)
    return f"{number}: {cut(name, length)}"


def cut(name: str, length: int) -> str:
    """Returns a name of so many letters at most; an ellipsis stands for the rest.

    Example:
        >>> cut("cat, dog, emu", 10), cut("cat", 3)
        ('cat, dog…', 'cat')
    """
    return name if len(name) <= length else f"{name[: length - 1].rstrip(' ,')}\u2026"


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def _is_same(records: Sequence[RunRecord]) -> bool:
    first = records[0]
    return all(
        (each.classes, each.experiences) == (first.classes, first.experiences) for each in records
    )


def _returns(record: RunRecord) -> bool:
    # Whether a class comes in more than one experience.
    brought = [position for each in record.experiences for position in each]
    return len(set(brought)) < len(brought)


def _classes(record: RunRecord) -> list[str]:
    return [
        shortened([str(record.classes[place]) for place in places], _CLASSES)
        for places in record.experiences
    ]
