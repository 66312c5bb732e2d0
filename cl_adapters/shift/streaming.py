"""river's detectors of change in a stream of numbers, as detectors of strange windows.

The stream is the distance of each sample to a part of the reference
(`cl_adapters.shift.mahalanobis`): first the distances of its other, held-out part, then those of
the window. A signal within the window's part is a change.

ADWIN and Page-Hinkley get a distance as its rank among the held-out ones, in [0, 1], and the latter
in an even order, so that no stream starts out near an alarm. Without a shift the ranks' law depends
on nothing but the numbers m and n, so their sensitivity is calibrated once for each (m, n), on
streams of uniform numbers. KSWIN depends on ranks anyway; its level is
divided by its number of tests, n.

References: Albert Bifet, Ricard Gavaldà, "Learning from Time-Changing Data with Adaptive
Windowing", SDM 2007. E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954. Christoph
Raab, Moritz Heusinger, Frank-Michael Schleif, "Reactive Soft Prototype Computing for Concept Drift
Streams", Neurocomputing 416, 2020 (KSWIN). Jacob Montiel et al., "River: Machine Learning for
Streaming Data in Python", JMLR 22, 2021.

Shapes: n samples of a window, m held out, D features.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from river import drift
from river.base import DriftDetector
from torch import Tensor

from cl_adapters.errors import InputError, check_positive
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.mahalanobis import Mahalanobis

__all__ = ["ADWIN", "KSWIN", "PageHinkley", "StreamDetector"]

_STREAMS: Final = 600  # simulated for a calibration; enough for levels down to 1 / 601
_HALVINGS: Final = 7
_GOLDEN: Final = (math.sqrt(5) - 1) / 2

_Floats = NDArray[np.float64]


class StreamDetector(Detector):
    """Feeds one of river's detectors; the score is 1 if it signals a change, else 0.

    Args:
        num_features: D.
        false_alarm: Share of known windows that may fire.
        seed: Seed of the hold-out and of the detector's own chance.
        holdout: Share of the reference that is held out, in (0, 1).
        max_held_out: Distances that are kept of it; positive.
    """

    min_samples: ClassVar[int] = 20

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        holdout: float = 0.5,
        max_held_out: int = 200,
    ) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        if not 0 < holdout < 1:
            raise InputError(f"`holdout` must lie in (0, 1), got {holdout}")
        check_positive("max_held_out", max_held_out)
        self.holdout = holdout
        self.known = Mahalanobis(num_features, seed=seed)
        self.register_buffer("held_out", torch.zeros(max_held_out, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.held_out: Tensor
        self.count: Tensor

    def reset(self) -> None:
        """Forgets the reference."""
        self.known.reset()
        self.held_out.zero_()
        self.count.zero_()

    def fit(self, features: Tensor) -> None:
        """Takes mean and covariance of one part, and the distances of the held-out one."""
        features = self.checked(features, self.min_samples)
        views = features if features.ndim == 3 else features[None]
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(views.shape[1], generator=generator)
        held = round(self.holdout * len(order))
        held = min(max(held, 2), len(order) - self.known.min_samples)
        self.reset()
        self.known.fit(views[:, order[held:]])
        # One view: the distances of several views of an image are not independent.
        distances = self.known.distance(views[0, order[:held]])[: len(self.held_out)]
        self.held_out[: len(distances)] = distances
        self.count.fill_(len(distances))

    def check(self, features: Tensor) -> Verdict:
        """Feeds a new detector with the held-out distances and then with the window's."""
        if not int(self.count):
            raise InputError("a detector must be fitted before it is asked")
        known, window = self.held_out[: int(self.count)], self.known.distance(features)
        signalled = self.signals(known.cpu().numpy(), window.cpu().numpy())
        return Verdict(float(signalled), 0.5)

    @abstractmethod
    def signals(self, known: _Floats, window: _Floats) -> bool:
        """Says whether the detector signals a change within the window.

        Shape:
            known: (m,). window: (n,).
        """


class ADWIN(StreamDetector):
    """Fires where adaptive windowing finds two parts of the stream with different means.

    `false_alarm` is held by calibration of ADWIN's `delta` on simulated streams, up to their number
    (600); independent of the features' distribution. Options as in `StreamDetector`.
    """

    def signals(self, known: _Floats, window: _Floats) -> bool:
        """Says whether ADWIN signals a change within the window."""
        strictness = _calibrated(_adwin, -0.5, 15.5, len(known), len(window), self.false_alarm)
        return _first_signal(_adwin(strictness), *_ranks(known, window))


class PageHinkley(StreamDetector):
    """Fires where the cumulated deviation from the running mean of the stream is large.

    `false_alarm` is held by calibration of the threshold on simulated streams, up to their number
    (600); independent of the features' distribution. Options as in `StreamDetector`.
    """

    def signals(self, known: _Floats, window: _Floats) -> bool:
        """Says whether Page and Hinkley's test signals a change within the window."""
        total = len(known) + len(window)
        strictness = _calibrated(_page_hinkley, 0, total, len(known), len(window), self.false_alarm)
        return _first_signal(_page_hinkley(strictness), *_ranks(known, window))


class KSWIN(StreamDetector):
    """Fires where the newest samples of the stream are distributed unlike the ones before.

    `false_alarm` bounds the share of known windows that fire, by Bonferroni's inequality over the n
    tests of a window: it is not reached, and n below about 10 never fire. Options as in
    `StreamDetector`.
    """

    def signals(self, known: _Floats, window: _Floats) -> bool:
        """Says whether KSWIN signals a change within the window."""
        size = min(100, len(known))
        detector = drift.KSWIN(
            alpha=self.false_alarm / len(window),
            window_size=size,
            stat_size=min(30, size // 2),
            seed=self.seed,
            window=known[-size:].tolist(),
        )
        return _first_signal(detector, known[:0], window)


def _ranks(known: _Floats, window: _Floats) -> tuple[_Floats, _Floats]:
    """Returns each number's rank among the known ones, in [0, 1]; ties take the middle.

    The known ones come in the order of a golden-section sequence: every stretch of it is even.
    """
    ordered = np.sort(known)
    known = ordered[np.argsort(np.argsort(np.arange(len(known)) * _GOLDEN % 1))]
    low, high = (
        [np.searchsorted(ordered, part, side) for part in (known, window)]
        for side in ("left", "right")
    )
    first, second = ((a + b) / (2 * len(known)) for a, b in zip(low, high, strict=True))
    return first, second


def _first_signal(detector: DriftDetector, known: _Floats, window: _Floats) -> bool:
    for value in known.tolist():
        detector.update(value)
    for value in window.tolist():
        detector.update(value)
        if detector.drift_detected:
            return True
    return False


def _adwin(strictness: float) -> DriftDetector:
    return drift.ADWIN(delta=10**-strictness, clock=4)  # type: ignore[no-untyped-call]


def _page_hinkley(strictness: float) -> DriftDetector:
    return drift.PageHinkley(threshold=strictness)


@lru_cache(maxsize=256)
def _calibrated(
    make: Callable[[float], DriftDetector],
    low: float,
    high: float,
    known: int,
    window: int,
    false_alarm: float,
) -> float:
    """Returns the least strictness, up to bisection, that keeps the level on simulated streams.

    Args:
        make: A detector of some strictness.
        low: Too lax, if anything is.
        high: So strict that nothing fires.
        known: m.
        window: n.
        false_alarm: The level.
    """
    rng = np.random.default_rng([known, window])
    allowed = math.floor(false_alarm * (_STREAMS + 1))
    streams = [_ranks(rng.random(known), rng.random(window)) for _ in range(_STREAMS)]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        alarms = (1 for stream in streams if _first_signal(make(middle), *stream))
        if next(islice(alarms, allowed, None), None) is None:  # at most as many as allowed
            high = middle
        else:
            low = middle
    return high
