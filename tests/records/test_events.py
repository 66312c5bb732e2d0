"""Events: round trips, what is unknown, what does not fit, what older versions wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Cache, OtherEvent, Phase, Statistics
from cl_adapters.records.events import (
    append_events,
    make_event,
    parse_event,
    read_events,
    truncate_events,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.text(min_size=1, max_size=6).filter(
    lambda name: name not in {"event", "experience", "seconds", "memo"} and name.isprintable()
)


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "events.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def test_a_line_has_the_keys_that_were_given_in_the_order_of_the_kind(tmp_path: Path) -> None:
    events = [
        make_event("phase", seconds=1.23456789, images=7, name="train"),
        make_event("statistics", experience=2, rule="mean", **{"class": 3}),
    ]
    append_events(tmp_path, events)
    assert (tmp_path / "events.jsonl").read_text() == (
        '{"event": "phase", "experience": 0, "seconds": 1.234568, "name": "train", "images": 7}\n'
        '{"event": "statistics", "experience": 2, "seconds": 0.0, "class": 3, "rule": "mean"}\n'
    )
    first, second = read_events(tmp_path)
    assert isinstance(first, Phase)
    assert (first.name, first.images, first.losses) == ("train", 7, [])
    assert isinstance(second, Statistics)
    assert second.class_ == 3


@given(
    kind=NAMES.filter(lambda name: name not in {"phase", "cache"}),
    values=st.dictionaries(NAMES, PLAIN, max_size=4),
)
def test_a_kind_of_a_plugin_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, kind: str, values: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    line = {"event": f"my {kind}", "experience": 1, "seconds": 0.5, **values}
    append_events(folder, [parse_event(line)])
    assert lines(folder) == [line]
    (event,) = read_events(folder)
    assert isinstance(event, OtherEvent)
    assert event.values == values


def test_keys_of_a_later_version_survive_reading_and_writing(tmp_path: Path) -> None:
    line = {"event": "memory", "experience": 0, "seconds": 0.0, "peak_bytes": 1, "swap": [2]}
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")
    truncate_events(tmp_path, 1)
    assert lines(tmp_path) == [line]


def test_an_earlier_versions_event_comes_under_todays_name(tmp_path: Path) -> None:
    old = {"event": "memo", "experience": 0, "seconds": 0, "mode": "exact", "read": 3,
           "computed": 2, "inherited": 1}  # fmt: skip
    (tmp_path / "events.jsonl").write_text(json.dumps(old) + "\n")
    (event,) = read_events(tmp_path)
    assert event == Cache(
        experience=0, seconds=0.0, mode="exact", read=3, computed=2, earlier_hits=1
    )
    truncate_events(tmp_path, 1)
    assert lines(tmp_path)[0]["event"] == "cache"
    assert lines(tmp_path)[0]["earlier_hits"] == 1


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("memory", {}, "peak_bytes of a memory event: Field required"),
        ("memory", {"peak_bytes": "many"}, "peak_bytes of a memory event: .* integer, got 'many'"),
        ("active", {"block": -1, "adapter": 0, "changed": True}, "block of an active event.* -1"),
        ("drift", {"distances": [[0.0, 1.0]]}, "of a drift event: distances must be a square"),
        ("router", {"block": 1, "weights": [[]]}, "weights must have one row"),
        ("mine", {"value": object()}, "value of a mine event must be plain JSON, got <object"),
        ("memory", {"peak_bytes": 1, "more": {1}}, "more of a memory event must be plain JSON"),
        ("mine", {"experience": -1}, "experience of a mine event"),
    ],
)
def test_what_does_not_fit_its_kind_is_one_sentence(
    kind: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_event(kind, **values)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_wrong_type_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"event": "memory", "experience": 0, "seconds": 0, "peak_bytes": "1"}\n'
    )
    with pytest.raises(InputError, match=r"events.jsonl: peak_bytes of a memory event"):
        read_events(tmp_path)


def test_an_event_moves_to_another_experience() -> None:
    event = make_event("mine", experience=0, value=1)
    assert event.of_experience(3).as_line() == {**event.as_line(), "experience": 3}
    assert event.experience == 0
