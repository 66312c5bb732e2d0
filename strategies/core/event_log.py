"""What a strategy says of itself: events for the run record, and times."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cl_adapters.records.events import Event, make_event, parse_event

__all__ = ["EventLog"]


class EventLog:
    """Collects events and times until who records a run asks for them.

    Attributes:
        timings: Seconds and images of work outside of epochs, by name, in this experience.
    """

    def __init__(self) -> None:
        self.timings: dict[str, tuple[float, int]] = {}
        self._events: list[Event] = []

    def begin_experience(self) -> None:
        """Starts the times of an experience; events wait for `pop_events`."""
        self.timings = {}

    def log_event(self, event: str, /, **values: Any) -> None:  # noqa: ANN401 - of its kind
        """Keeps a fact for the run record.

        Args:
            event: Kind of event, one of `cl_adapters.records.event_kinds` or one of your own.
            **values: Its keys, as JSON can hold them.

        Raises:
            InputError: If they do not fit a known kind.
        """
        self._events.append(make_event(event, **values))

    def pop_events(self, experience: int) -> list[Event]:
        """Returns the events since the last call, as those of an experience."""
        events, self._events = self._events, []
        return [each.model_copy(update={"experience": experience}) for each in events]

    def load(
        self, events: Sequence[Mapping[str, Any]], timings: Mapping[str, Sequence[float]]
    ) -> None:
        """Takes over the events, as lines, and times of an experience that was trained before."""
        self._events.extend(map(parse_event, events))
        self.timings = {name: (each[0], int(each[1])) for name, each in timings.items()}

    @contextmanager
    def timed(self, name: str, images: int) -> Iterator[None]:
        """Adds the block's time to `timings`, under a name, for work outside of epochs."""
        since = time.perf_counter()
        yield
        seconds, before = self.timings.get(name, (0.0, 0))
        self.timings[name] = (seconds + time.perf_counter() - since, before + images)
