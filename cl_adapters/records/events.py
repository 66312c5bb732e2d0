"""The events of a run directory, one JSON object a line; see `records.event_kinds`."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import EVENT_KINDS, Event, OtherEvent
from cl_adapters.records.files import atomic_path, delayed_ctrl_c
from cl_adapters.records.integrity import EVENTS, read_checked
from cl_adapters.records.upgrade import upgrade_event

__all__ = [
    "Event",
    "OtherEvent",
    "append_events",
    "make_event",
    "name_event",
    "parse_event",
    "read_events",
    "truncate_events",
]

_FILE: Final = EVENTS


def make_event(
    event: str, /, *, experience: int = 0, seconds: float = 0.0, **values: object
) -> Event:
    """Returns an event as its kind has it.

    Args:
        event: Kind of event; one that is not in `EVENT_KINDS` may have any keys.
        experience: Index of the experience it belongs to.
        seconds: Duration of what it describes; 0 for a mere fact.
        **values: Further keys of this kind of event, as JSON can hold them.

    Raises:
        InputError: If a key is missing or its value does not fit.

    Example:
        >>> make_event("reused", experience=2, run="seed0-abc").as_line()
        {'event': 'reused', 'experience': 2, 'seconds': 0.0, 'run': 'seed0-abc'}
    """
    taken = sorted(set(values) & {"event", "experience", "seconds"})
    if taken:
        raise InputError(f"{name_event(event)} event must have keys of its own, got {taken}")
    found = _as_kind({"event": event, "experience": experience, "seconds": seconds, **values})
    for name, value in (found.model_extra or {}).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name} of {name_event(event)} event must be plain JSON, got {repr(value)[:60]}"
            ) from error
    return found


def parse_event(line: Mapping[str, Any]) -> Event:
    """Returns the event of a line that was read, whichever version wrote it.

    Raises:
        InputError: If a key is missing or its value does not fit.
    """
    try:
        return _as_kind(upgrade_event(line))
    except InputError as error:
        raise InputError(f"{_FILE}: {error}") from error


def name_event(kind: str) -> str:
    """Returns a kind of event with its article.

    Example:
        >>> name_event("scan"), name_event("active")
        ('a scan', 'an active')
    """
    return f"{'an' if kind[:1] in tuple('aeiou') else 'a'} {kind}"


def _as_kind(line: Mapping[str, Any]) -> Event:
    kind = line["event"]
    model = EVENT_KINDS.get(kind, OtherEvent) if isinstance(kind, str) else OtherEvent
    try:
        return model.model_validate(dict(line))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "values"
        message = first["msg"].removeprefix("Value error, ")
        shown = repr(first["input"])[:60]
        raise InputError(
            f"{name} of {name_event(str(kind))} event: {message}, got {shown}"
        ) from error


def append_events(folder: Path, events: Iterable[Event]) -> None:
    """Appends lines to `events.jsonl`; they are on disk when the function returns.

    Args:
        folder: The run directory.
        events: What `make_event` returned.
    """
    lines = [_text(event) for event in events]
    with delayed_ctrl_c(), (folder / _FILE).open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def read_events(folder: Path) -> list[Event]:
    """Reads the events of a run directory; a last line torn by a crash is left out.

    Raises:
        InputError: If any other line is not an event, a value does not fit its kind, or the file is
            not as it was written.
    """
    path = folder / _FILE
    data = read_checked(folder, _FILE)
    if data is None:
        return []
    lines = data.decode("utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    events: list[Event] = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not {"event", "experience", "seconds"} <= set(values):
            if number == len(lines):
                break
            raise InputError(f"{path} line {number} must be an event, got {line[:40]!r}")
        events.append(parse_event(values))
    return events


def truncate_events(folder: Path, experiences_done: int) -> None:
    """Drops the events of experiences that did not finish, before they are run again."""
    kept = [event for event in read_events(folder) if event.experience < experiences_done]
    with atomic_path(folder / _FILE) as path:
        path.write_text("".join(map(_text, kept)), "utf-8")


def _text(event: Event) -> str:
    return json.dumps(event.as_line(), ensure_ascii=False) + "\n"
