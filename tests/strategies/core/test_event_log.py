"""Times and events of an experience."""

import time

import pytest

from cl_adapters.strategies.core.event_log import EventLog


def test_pieces_of_work_under_one_name_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    log = EventLog()
    for name, seconds, images in (("scan", 2.0, 5), ("frozen", 1.0, 9), ("scan", 0.5, 7)):
        with log.timed(name, images):
            now[0] += seconds
        now[0] += 50.0  # what lies between is not counted
    assert log.timings == {"scan": (2.5, 12), "frozen": (1.0, 9)}
    log.begin_experience()
    assert log.timings == {}


def test_events_are_given_out_once_as_those_of_an_experience() -> None:
    log = EventLog()
    log.log_event("ridge", strength=2.0)
    log.log_event("mine", colour="red")
    found = log.pop_events(3)
    assert [(each.event, each.experience) for each in found] == [("ridge", 3), ("mine", 3)]
    assert log.pop_events(4) == []
