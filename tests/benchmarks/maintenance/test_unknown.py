"""The comparison of scores: its measures against plain loops, its rule, and its page."""

import json
from pathlib import Path

import numpy as np
import pytest

from cl_adapters.benchmarks.maintenance.unknown import Point, chosen, tables, told_apart
from cl_adapters.bundle.rejection import DEFAULT_SCORE

ROOT = Path(__file__).parents[3]
STORED = ROOT / "docs" / "benchmarks" / "unknown.json"


def test_auroc_and_passing_strangers_are_those_of_plain_loops() -> None:
    source = np.random.default_rng(0)
    known, strangers = source.normal(size=60).round(1), source.normal(1, 1, size=45).round(1)
    pairs = [(a < b) + 0.5 * (a == b) for a in known for b in strangers]
    threshold = min(value for value in known if np.mean(known <= value) >= 0.95)
    auroc, passing = told_apart(known, strangers)
    assert auroc == pytest.approx(np.mean(pairs))
    assert passing == pytest.approx(sum(each <= threshold for each in strangers) / 45)


def point(score: str, half: str, auroc: float, strategy: str = "") -> Point:
    return Point("signs", strategy, 0, score, half, auroc, 1 - auroc)


def test_the_choosing_half_alone_chooses() -> None:
    points = [
        point("cosine", "choosing", 0.8),
        point("cosine", "shown", 0.6),
        point("mahalanobis", "choosing", 0.7),
        point("mahalanobis", "shown", 0.9),
        point("energy", "choosing", 0.9, "mos"),
        point("energy", "choosing", 0.5, "sema"),
    ]
    assert list(chosen(points).items()) == [
        ("cosine", 0.8), ("mahalanobis", 0.7), ("energy", 0.7),
    ]  # fmt: skip
    assert "| cosine | 60.0 / 40 | 60.0 / 40 | 80.0 |" in tables(points)


def test_the_page_shows_what_was_measured_and_the_default_follows_from_it() -> None:
    points = [Point(*each) for each in json.loads(STORED.read_text("utf-8"))]
    page = (ROOT / "docs" / "unknown.md").read_text("utf-8")
    for table in tables(points).strip().split("\n\n"):
        assert table.strip() in page
    assert next(iter(chosen(points))) == DEFAULT_SCORE
