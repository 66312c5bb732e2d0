"""One line of `events.jsonl` as a checked value, or a sentence that says what is wrong with it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cl_adapters.errors import InputError

__all__ = ["name_event", "parse_event"]

Event = TypeVar("Event", bound=BaseModel)


def name_event(kind: str) -> str:
    """Returns a kind of event with its article.

    Example:
        >>> name_event("scan"), name_event("active")
        ('a scan', 'an active')
    """
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def parse_event(model: type[Event], line: Mapping[str, Any]) -> Event:
    """Returns an event as the model has it.

    Args:
        model: What an event of this kind holds.
        line: The event as it was read.

    Raises:
        InputError: If a key is missing or its value does not fit.
    """
    try:
        return model.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "values"
        message = first["msg"].removeprefix("Value error, ")
        kind, shown = name_event(str(line["event"])), repr(first["input"])[:60]
        raise InputError(f"events.jsonl: {name} of {kind} event: {message}, got {shown}") from error
