"""Lines of `events.jsonl` as another program would write them: right ones and wrong ones."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def append_events(folder: Path, events: Iterable[Mapping[str, object]]) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(event)) + "\n" for event in events)


def append_event(
    folder: Path, event: str, experience: int, seconds: float, **values: object
) -> None:
    line = {"event": event, "experience": experience, "seconds": seconds, **values}
    append_events(folder, [line])
