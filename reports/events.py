"""What readers ask of events beyond their types, as a sentence where it is not so."""

import math

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Event
from cl_adapters.records.events import name_event

__all__ = ["check_finite", "event_error"]


def check_finite(event: Event) -> None:
    """Refuses an event with a number that is NaN or infinite, as a run that diverged leaves it.

    Raises:
        InputError: If there is one.
    """
    for name, value in event.values.items():
        for number in _numbers(value):
            if not math.isfinite(number):
                raise event_error(event, name, "must be finite numbers", number)


def event_error(event: Event, name: str, rule: str, value: object) -> InputError:
    """Returns the error of a key that breaks a rule.

    Args:
        event: The event.
        name: The key.
        rule: What it must be.
        value: What it is.

    Example:
        >>> from cl_adapters.records.events import make_event
        >>> str(event_error(make_event("ridge", strength=-1.0), "strength", "must be above 0", -1))
        'events.jsonl: strength of a ridge event: must be above 0, got -1'
    """
    kind = name_event(event.event)
    return InputError(f"events.jsonl: {name} of {kind} event: {rule}, got {repr(value)[:60]}")


def _numbers(value: object) -> list[float]:
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, float) else []
