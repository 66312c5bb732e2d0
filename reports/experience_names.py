"""What the experiences of a stream bring, by name: for who reads "experience 3"."""

from collections.abc import Sequence
from typing import Final

from cl_adapters.records.run_record import RunRecord

__all__ = ["experience_sentence"]

_CLASSES: Final = 4  # of an experience, in a sentence
_EXPERIENCES: Final = 20


def experience_sentence(records: Sequence[RunRecord]) -> str:
    """Returns the number, the name and the classes of each experience.

    Empty where runs differ in them, as seeds with class orders of their own do, and where classes
    come in several experiences that have no names.

    Args:
        records: The runs' records, at least one.
    """
    first = records[0]
    brought = [position for each in first.experiences for position in each]
    is_same = all(
        (each.classes, each.experiences) == (first.classes, first.experiences) for each in records
    )
    names = _names(first)
    if not is_same or (not any(names) and len(set(brought)) < len(brought)):
        return ""
    parts = [
        f"{number}{name} ({_shortened([first.classes[place] for place in places], _CLASSES)})"
        for number, (name, places) in enumerate(zip(names, first.experiences, strict=True), 1)
    ]
    return f"experiences: {_shortened(parts, _EXPERIENCES)}"


def _names(record: RunRecord) -> list[str]:
    names = record.fingerprint.get("experience_names")
    if not isinstance(names, list) or len(names) != len(record.experiences):
        return [""] * len(record.experiences)
    return [f" {name}" for name in names]


def _shortened(texts: Sequence[str], most: int) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
