"""The streaming detectors against river itself, fed by hand."""

import math

import numpy as np
import pytest
import torch
from river import drift
from sklearn.covariance import LedoitWolf
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift import DETECTORS
from cl_adapters.shift.checks import draw_features
from cl_adapters.shift.streaming import (
    ADWIN,
    KSWIN,
    PageHinkley,
    StreamDetector,
    _adwin,
    _calibrated,
    _page_hinkley,
    _ranks,
)
from tests.marks import by_default

DIM = 6
STREAMS = ["adwin", "kswin", "page_hinkley"]


def parts(detector: StreamDetector, reference: Tensor) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    order = torch.randperm(len(reference), generator=torch.Generator().manual_seed(detector.seed))
    held = round(detector.holdout * len(reference))
    known, held_out = reference[order[held:]], reference[order[:held]]
    return known.double().numpy(), held_out.double().numpy()


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_kswin_is_rivers_fed_with_scikit_learns_distances(shift: float) -> None:
    reference, window = draw_features(160, DIM, 0), draw_features(60, DIM, 1) + shift
    detector = KSWIN(DIM, seed=3)
    detector.fit(reference)
    known, held_out = parts(detector, reference)
    oracle = LedoitWolf().fit(known)
    stream = drift.KSWIN(alpha=0.01 / 60, window_size=80, stat_size=30, seed=3)
    signals = []
    for distance in np.sqrt(oracle.mahalanobis(np.concatenate((held_out, window.double())))):
        stream.update(distance)
        signals.append(stream.drift_detected)
    assert detector.check(window).fired == any(signals[80:])


def plain_ranks(known: list[float], values: list[float]) -> list[float]:
    return [
        sum(1.0 if other < value else 0.5 if other == value else 0.0 for other in known)
        / len(known)
        for value in values
    ]


def test_ranks_are_those_of_a_plain_loop_and_known_ones_come_evenly() -> None:
    rng = np.random.default_rng(0)
    known, window = rng.integers(0, 30, 40).astype(float), rng.integers(-5, 35, 20).astype(float)
    first, second = _ranks(known, window)
    assert second.tolist() == pytest.approx(plain_ranks(known.tolist(), window.tolist()))
    assert sorted(first) == pytest.approx(sorted(plain_ranks(known.tolist(), known.tolist())))
    # Every stretch of the stream has nearly the mean of all; by chance some would be 0.05 off.
    even = _ranks(rng.random(400), window)[0]
    assert np.abs(even.reshape(10, 40).mean(axis=1) - 0.5).max() < 0.03


@pytest.mark.parametrize(
    ("make", "low", "high"), [(_adwin, -0.5, 15.5), (_page_hinkley, 0.0, 90.0)]
)
def test_calibrated_strictness_holds_the_level_in_fresh_streams_and_half_of_it_does_not(
    make, low: float, high: float
) -> None:
    strictness = _calibrated(make, low, high, 50, 40, 0.05)
    rng = np.random.default_rng(11)

    def share(value: float) -> float:
        alarms = 0
        for _ in range(400):
            # The ranks' law does not depend on the scores' law: here it is log-normal.
            known, window = _ranks(rng.lognormal(size=50), rng.lognormal(size=40))
            detector, signals = make(value), []
            for score in [*known, *window]:
                detector.update(float(score))
                signals.append(detector.drift_detected)
            alarms += any(signals[50:])
        return alarms / 400

    # Two-sided error of 400 streams at 5 %, and that of the 600 of the calibration: 0.022 together.
    assert share(strictness) < 0.05 + 3 * math.sqrt(0.05 * 0.95 * (1 / 400 + 1 / 600))
    assert share(low + (strictness - low) / 2) > share(strictness)


def test_adwin_and_page_hinkley_are_rivers_with_the_calibrated_sensitivity() -> None:
    reference = draw_features(160, DIM, 0)
    for kind in (ADWIN, PageHinkley):
        detector = kind(DIM)
        detector.fit(reference)
        known, held_out = parts(detector, reference)
        oracle = LedoitWolf().fit(known)
        for shift in (0.0, 1.0, 2.0, 4.0):
            window = draw_features(50, DIM, 1) + shift
            scores = [np.sqrt(oracle.mahalanobis(each)) for each in (held_out, window.double())]
            first, second = _ranks(*scores)
            if kind is ADWIN:
                strictness = _calibrated(_adwin, -0.5, 15.5, 80, 50, 0.01)
                stream = drift.ADWIN(delta=10**-strictness, clock=4)
            else:
                strictness = _calibrated(_page_hinkley, 0, 130, 80, 50, 0.01)
                stream = drift.PageHinkley(threshold=strictness)
            signals = []
            for value in [*first, *second]:
                stream.update(float(value))
                signals.append(stream.drift_detected)
            verdict = detector.check(window)
            assert (verdict.score, verdict.threshold) == (float(any(signals[80:])), 0.5)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", by_default([1, 2, 7], [1]))
def test_the_smallest_windows_keep_the_level(name: str, size: int) -> None:
    fired = 0
    for seed in range(50):
        detector = DETECTORS[name](DIM, seed=seed)
        detector.fit(draw_features(100, DIM, seed, world=seed))
        fired += detector.check(draw_features(size, DIM, 900, world=seed)).fired
    assert fired <= 4  # 5 or more of 50 at 1 % come by chance once in 5000 times


@pytest.mark.parametrize("name", STREAMS)
def test_the_smallest_reference_can_be_fitted_and_asked(name: str) -> None:
    detector = DETECTORS[name](DIM)
    detector.fit(draw_features(detector.min_samples, DIM, 0))
    assert not detector.check(draw_features(64, DIM, 1)).fired


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 0.0}, r"`holdout` must lie in \(0, 1\), got 0.0"),
        ({"holdout": 1.0}, r"`holdout` must lie in \(0, 1\), got 1.0"),
        ({"max_held_out": 0}, "`max_held_out` must be a positive integer, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ADWIN(DIM, **options)  # type: ignore[arg-type]
