"""The events of a run directory, one JSON object a line."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cl_adapters.errors import InputError
from cl_adapters.records.files import _ctrl_c_waits, atomic_path

__all__ = ["append_event", "append_events", "read_events", "truncate_events"]


def append_event(
    folder: Path, event: str, experience: int, seconds: float, **values: object
) -> None:
    """Appends one line to `events.jsonl`.

    Args:
        folder: The run directory.
        event: Kind of event, such as `phase`, `evaluation` or `parameters`.
        experience: Index of the experience it belongs to.
        seconds: Duration of what the event describes; 0 for a mere fact.
        **values: Further keys of this kind of event.
    """
    line = {"event": event, "experience": experience, "seconds": round(seconds, 6), **values}
    append_events(folder, [line])


def append_events(folder: Path, events: Iterable[Mapping[str, object]]) -> None:
    """Appends lines to `events.jsonl`; they are on disk when the function returns.

    Args:
        folder: The run directory.
        events: Each with `event`, `experience`, `seconds` and the further keys of its kind.
    """
    lines = [json.dumps(dict(event), ensure_ascii=False) + "\n" for event in events]
    with _ctrl_c_waits(), (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Reads the events of a run directory; a last line torn by a crash is left out.

    Raises:
        InputError: If any other line is not an event.
    """
    path = folder / "events.jsonl"
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not {"event", "experience", "seconds"} <= set(event):
            if number == len(lines):
                break
            raise InputError(f"{path} line {number} must be an event, got {line[:40]!r}")
        events.append(event)
    return events


def truncate_events(folder: Path, experiences_done: int) -> None:
    """Drops the events of experiences that did not finish, before they are run again."""
    kept = [event for event in read_events(folder) if event["experience"] < experiences_done]
    with atomic_path(folder / "events.jsonl") as path:
        lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
        path.write_text(lines, "utf-8")
