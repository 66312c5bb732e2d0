"""What a block's detectors say together: the best is the one to which the data is least strange."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cl_adapters.shift import find_detector
from cl_adapters.shift.bank import DetectorBank, Verdicts
from cl_adapters.shift.base import Verdict
from cl_adapters.shift.checks import draw_features

numbers = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_the_best_is_nearest_below_its_own_threshold(pairs: list[tuple[float, float]]) -> None:
    each = tuple(Verdict(score, limit) for score, limit in pairs)
    verdicts = Verdicts(7, each)
    gaps = [score - limit for score, limit in pairs]
    assert gaps[verdicts.best] == min(gaps)
    assert (verdicts.score, verdicts.threshold) == pairs[verdicts.best]
    assert verdicts.fired == all(score > limit for score, limit in pairs)


def test_an_event_says_what_was_found() -> None:
    found = Verdicts(7, (Verdict(5.0, 1.0), Verdict(2.0, 4.0))).describe()
    assert found == {
        "images": 7, "scores": [5.0, 2.0], "thresholds": [1.0, 4.0], "adapter": 1,
        "score": 2.0, "threshold": 4.0, "fired": False,
    }  # fmt: skip


@cache
def _of_two(kind: str) -> tuple[DetectorBank, Callable[[int, int, int], Tensor]]:
    """A block with two detectors, of worlds 0 and 1, and what draws features of a world."""

    def draw(count: int, seed: int, world: int) -> Tensor:
        return draw_features(count, 6, seed, world=world) + 6 * world

    first, second = (find_detector(kind)(6, seed=seed) for seed in (0, 1))
    first.fit(draw(150, 0, 0))
    second.fit(draw(150, 1, 1))
    bank = DetectorBank({3: first})
    bank.append(3, second)
    return bank, draw


@pytest.mark.parametrize("kind", ["descriptor", "mahalanobis"])
def test_a_mixture_of_what_is_known_is_known_and_a_third_is_not(kind: str) -> None:
    bank, draw = _of_two(kind)
    for seed in range(10, 15):
        mixed = torch.cat([draw(60, seed, 0), draw(40, seed, 1)])
        assert bank.judge(3, mixed).fired  # no single detector knows it
        assert not bank.judge_mixed(3, mixed).fired
        assert bank.judge_mixed(3, draw(100, seed, 2)).fired


@pytest.mark.parametrize("kind", ["descriptor", "mahalanobis"])
def test_each_sample_counts_by_the_detector_that_knows_it_best(kind: str) -> None:
    bank, draw = _of_two(kind)
    rows = torch.cat([draw(7, 3, 0), draw(5, 3, 1), draw(2, 3, 2)])
    limits = bank.judge(3, rows).thresholds
    chosen = []
    for row in rows:
        alone = [detector.check(row[None]).score for detector in bank.of(3)]
        chosen.append(min(zip(alone, limits, strict=True), key=lambda each: each[0] - each[1]))
    verdict = bank.judge_mixed(3, rows)
    assert verdict.score == pytest.approx(sum(score for score, _ in chosen) / 14, rel=1e-4)
    assert verdict.threshold == pytest.approx(sum(limit for _, limit in chosen) / 14)


def test_without_scores_of_samples_and_with_one_detector_windows_are_judged_whole() -> None:
    for kind in ("ks", "descriptor"):
        bank, draw = _of_two(kind)
        single = DetectorBank({3: bank.of(3)[0]})
        for each in (single, bank) if kind == "ks" else (single,):
            for world in (0, 1, 2):
                rows = draw(40, 5, world)
                whole = each.judge(3, rows)
                assert each.judge_mixed(3, rows) == Verdict(whole.score, whole.threshold)
                assert each.judge_mixed(3, rows).fired == whole.fired
