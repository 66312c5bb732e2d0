import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.reports.definitions import DETECTION_COLUMNS
from cl_adapters.reports.detection import detection, first_firing
from cl_adapters.reports.growth import History, linear_growth, read_history, strain
from tests.reports.lines import append_events

Events = list[dict[str, Any]]


def _event(event: str, experience: int, **values: Any) -> dict[str, Any]:
    return {"event": event, "experience": experience, "seconds": 0, **values}


def _domain(experience: int, name: str, *, changed: bool, seen_before: bool) -> dict[str, Any]:
    return _event("domain", experience, domain=name, changed=changed, seen_before=seen_before)


def _scan(
    experience: int, block: int, window: int, *scores: float, images: int = 100
) -> dict[str, Any]:
    # Every threshold is 1.
    return _event(
        "scan",
        experience,
        block=block,
        window=window,
        images=images,
        scores=list(scores),
        thresholds=[1.0] * len(scores),
        adapter=int(np.argmin(scores)),
        fired=min(scores) > 1,
        grown=False,
        reason="",
    )


def _active(experience: int, block: int, adapter: int, *, changed: bool) -> dict[str, Any]:
    return _event("active", experience, block=block, adapter=adapter, changed=changed)


def _growth(experience: int, block: int, adapters: int, parameters: int) -> dict[str, Any]:
    return _event("growth", experience, block=block, adapters=adapters, parameters=parameters)


def _by_hand() -> Events:
    """Six experiences of domains A A B A C C, two blocks, worked out below."""
    return [
        _domain(0, "A", changed=False, seen_before=False),
        *(_active(0, block, 0, changed=False) for block in (9, 10)),
        # 1: the same domain, and block 10 grows all the same: a false alarm.
        _domain(1, "A", changed=False, seen_before=True),
        _scan(1, 9, 0, 0.5),
        _scan(1, 10, 0, 0.7),
        _scan(1, 9, 1, 0.4),
        _scan(1, 10, 1, 1.5, images=28),
        _growth(1, 10, 2, 30),
        _active(1, 9, 0, changed=False),
        _active(1, 10, 1, changed=True),
        # 2: new domain B; block 10 has left adapter 0 but not its active one, 1; block 9 fires in
        # the third window, after 100 + 100 + 28 images.
        _domain(2, "B", changed=True, seen_before=False),
        _scan(2, 9, 0, 0.9),
        _scan(2, 10, 0, 2.0, 0.3),
        _scan(2, 9, 1, 0.8),
        _scan(2, 10, 1, 2.0, 0.4),
        _scan(2, 9, 2, 1.4, images=28),
        _growth(2, 9, 2, 10),
        _active(2, 9, 1, changed=True),
        _active(2, 10, 1, changed=False),
        # 3: back to A: block 9's active adapter 1 fires at once, adapter 0 knows it: reuse.
        _domain(3, "A", changed=True, seen_before=True),
        _scan(3, 9, 0, 0.2, 3.0),
        _scan(3, 10, 0, 0.2, 0.3),
        _active(3, 9, 0, changed=True),
        _active(3, 10, 1, changed=False),
        # 4: new domain C, and nothing fires: missed.
        _domain(4, "C", changed=True, seen_before=False),
        _scan(4, 9, 0, 0.2, 3.0),
        _scan(4, 10, 0, 0.2, 0.3),
        _active(4, 9, 0, changed=False),
        _active(4, 10, 1, changed=False),
        _domain(5, "C", changed=False, seen_before=True),
        _scan(5, 9, 0, 0.2, 3.0),
        _active(5, 9, 0, changed=False),
        _active(5, 10, 1, changed=False),
        *(_event("parameters", t, added=[100, 130, 140, 140, 140, 140][t]) for t in range(6)),
    ]


def _history(folder: Path, events: Events, num_experiences: int = 6) -> History:
    (folder / "events.jsonl").unlink(missing_ok=True)
    append_events(folder, events)
    return read_history(read_events(folder), num_experiences)


def test_detection_by_hand(tmp_path: Path) -> None:
    history = _history(tmp_path, _by_hand())
    assert detection(history) == {
        "changes": 3,  # 2, 3, 4
        "changes_found": 2,  # 2, 3
        "changes_missed": 1,  # 4
        "false_alarms": 1,  # 1
        "delay_windows": (3 + 1) / 2,
        "delay_images": (228 + 100) / 2,
        "adapters_grown_a_block": (1 + 1) / 2,
        "growing_experiences": 2,  # 1, 2
        "oracle_adapters": 2,  # B, C
        "reuse_on_recurrence": 100.0,
    }
    assert first_firing(history, 2) == (3, 228)
    assert first_firing(history, 3) == (1, 100)
    assert first_firing(history, 4) is None


def test_growth_on_a_known_domain_is_no_reuse(tmp_path: Path) -> None:
    values = detection(_history(tmp_path, [*_by_hand(), _growth(3, 9, 3, 10)]))
    assert values["reuse_on_recurrence"] == 0
    assert values["adapters_grown_a_block"] == 1.5


def test_windows_of_a_second_pass_count_again(tmp_path: Path) -> None:
    events = [
        _domain(0, "A", changed=False, seen_before=False),
        _active(0, 9, 0, changed=False),
        _domain(1, "B", changed=True, seen_before=False),
        # A pass of two windows, 50 and 20 images; the second pass fires in its second window.
        _scan(1, 9, 0, 0.5, images=50),
        _scan(1, 9, 1, 0.5, images=20),
        _scan(1, 9, 0, 0.5, images=50),
        _scan(1, 9, 1, 1.5, images=20),
        _active(1, 9, 0, changed=True),
    ]
    values = detection(_history(tmp_path, events, 2))
    assert (values["delay_windows"], values["delay_images"]) == (4, 140)


def test_a_single_window_scanned_twice_is_two_windows(tmp_path: Path) -> None:
    events = [
        _scan(1, 9, 0, 0.5, images=50),
        _scan(1, 10, 0, 0.5, images=50),
        _scan(1, 9, 0, 1.5, images=50),
    ]
    assert first_firing(_history(tmp_path, events, 2), 1) == (2, 100)


def test_without_scans_no_detection_is_claimed(tmp_path: Path) -> None:
    events = [event for event in _by_hand() if event["event"] != "scan"]
    values = detection(_history(tmp_path, events))
    unknown = {"changes_found", "changes_missed", "false_alarms", "delay_windows", "delay_images"}
    assert {name for name, value in values.items() if math.isnan(value)} == unknown
    assert values["growing_experiences"] == 2


def test_every_value_of_detection_has_a_definition(tmp_path: Path) -> None:
    names = [column.name for column in DETECTION_COLUMNS]
    assert list(detection(_history(tmp_path, _by_hand()))) == names


def test_linear_growth_by_hand(tmp_path: Path) -> None:
    # Blocks cost 10 and 30, so that each experience adds 40 to the first 100.
    history = _history(tmp_path, _by_hand())
    assert linear_growth([history]).tolist() == [[100, 140, 180, 220, 260, 300]]


def test_linear_growth_of_a_block_that_never_grew_takes_the_mean_cost(tmp_path: Path) -> None:
    events = [*_by_hand(), _active(0, 11, 0, changed=False)]
    # 10 + 30 + (10 + 30) / 2 = 60; what grows anyway, 7 an experience here, stays in.
    for event in events:
        if event["event"] == "parameters":
            event["added"] += 7 * event["experience"]
    history = _history(tmp_path, events)
    assert linear_growth([history]).tolist() == [[100 + 67 * t for t in range(6)]]
    still = _history(tmp_path, [event for event in events if event["event"] != "growth"])
    assert np.isnan(linear_growth([still])).all()
    # A seed that never grew takes the cost from the others: 60 an experience on top of its own.
    shared = linear_growth([history, still])
    assert shared[1, 1] - still.added[1] == 60


def test_a_run_that_grows_everywhere_lies_on_its_linear_line(tmp_path: Path) -> None:
    events = [_growth(t, block, t + 1, 5 + block) for t in (1, 2, 3) for block in (0, 1)]
    events += [_event("parameters", t, added=50 + 11 * t) for t in range(4)]
    history = _history(tmp_path, events, 4)
    assert linear_growth([history])[0] == pytest.approx(history.added)


@pytest.mark.parametrize("threshold", [2.0, 0.1, -0.5, -3.0])
@pytest.mark.parametrize("margin", [-1.0, -0.01, 0.01, 4.0])
def test_strain_is_above_one_exactly_if_it_fires(threshold: float, margin: float) -> None:
    score = threshold + margin
    assert (strain(score, threshold) > 1) == (score > threshold)
    if threshold > 0:
        assert strain(score, threshold) == pytest.approx(score / threshold)


def test_only_the_last_router_is_kept(tmp_path: Path) -> None:
    events = [
        _event("router", 0, block=3, weights=[[1.0]]),
        _event("router", 1, block=3, weights=[[0.25, 0.75], [0.5, 0.5]]),
    ]
    history = _history(tmp_path, events, 2)
    assert {block: weights.tolist() for block, weights in history.router.items()} == {
        3: [[0.25, 0.75], [0.5, 0.5]]
    }


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (_scan(1, 9, 0, 0.5) | {"scores": "high"}, "scores of a scan event.*'high'"),
        (_scan(1, 9, 0, 0.5) | {"scores": []}, "scores of a scan event"),
        (_scan(1, 9, 0, 0.5) | {"thresholds": [1.0, 2.0]}, "name the same adapters"),
        (_scan(1, 9, 0, 0.5) | {"adapter": 1}, "name the same adapters"),
        (_scan(1, 9, 0, 0.5) | {"scores": [float("nan")]}, "finite"),
        (_scan(1, 9, -1, 0.5), "window of a scan event.*got -1"),
        (_scan(7, 9, 0, 0.5), r"must lie in \[0, 6\), got 7"),
        (_growth(1, 10, 2, 30) | {"parameters": 1.5}, "parameters of a growth event"),
        (_growth(1, 10, 2, 30), "a growth event must stand once"),
        (_domain(1, "A", changed=True, seen_before=False), "a domain event must stand once"),
        (_active(1, 9, 0, changed=True) | {"changed": "yes"}, "changed of an active event"),
        (_event("router", 1, block=9, weights=[[0.5], [0.5, 0.5]]), "one row an experience"),
        (
            _event("router", 1, block=9, weights=[[1.5]]),
            r"weights of a router event: must lie in \[0, 1\], got 1.5",
        ),
    ],
)
def test_damaged_events_are_named(tmp_path: Path, event: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        _history(tmp_path, [*_by_hand(), event])


def test_the_first_adapters_are_no_growth(tmp_path: Path) -> None:
    values = detection(
        _history(tmp_path, [*_by_hand(), _growth(0, 9, 1, 10), _growth(0, 10, 1, 30)])
    )
    assert values["adapters_grown_a_block"] == (1 + 1) / 2
    assert values["growing_experiences"] == 2


def test_what_grows_in_whole_sets_is_called_the_network(tmp_path: Path) -> None:
    network = [_event("growth", 1, block=0, adapters=2, parameters=10)]
    assert _history(tmp_path, network, 2).place(0) == "network"
    blocks = [*network, _event("growth", 1, block=3, adapters=2, parameters=10)]
    assert _history(tmp_path, blocks, 2).place(0) == "block 0"
