"""What an experience is called: its name where it has one, else the classes that it brings."""

from collections.abc import Sequence
from typing import Final

from cl_adapters.records.run_record import RunRecord

__all__ = ["called", "given_names", "shortened"]

_CLASSES: Final = 3  # that are named; more are counted


def given_names(record: RunRecord) -> list[str]:
    """Returns the name of each experience, empty where it has none.

    Names come from `--experiences file.toml` and from the folders of `--domain-folders`.
    """
    names = record.fingerprint.get("experience_names")
    if not isinstance(names, list) or len(names) != len(record.experiences):
        return [""] * len(record.experiences)
    return [str(each) for each in names]


def called(record: RunRecord, experience: int) -> str:
    """Returns what tells an experience from others: its name, or its classes; empty for all.

    Args:
        record: Record of a run.
        experience: Number of the experience, counted from 0.
    """
    name = given_names(record)[experience]
    if name:
        return name
    places = record.experiences[experience]
    if len(places) == len(record.classes) and len(record.experiences) > 1:
        return ""  # every experience has all of them, which tells nothing
    return shortened([record.classes[place] for place in places], _CLASSES)


def shortened(names: Sequence[str], most: int) -> str:
    """Returns the first `most` names and how many there are more.

    >>> shortened(["ant", "bee", "cat", "dog", "elk"], 3)
    'ant, bee, cat and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
