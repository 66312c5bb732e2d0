"""What every detector must satisfy, as one call: for those here and for a user's own."""

import copy
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.plugins.conformance import run_suite
from cl_adapters.shift.base import Detector

__all__ = ["DETECTOR_CHECKS", "check_detector", "draw_features"]

Make = Callable[[int], Detector]

_REFERENCES: Final = 52
_ROWS: Final = (100, 300)  # of a reference
_SIZES: Final = (32, 128)  # of a window
_EACH: Final = 2  # windows of a size to a reference
_CHANCE: Final = 1e-3  # that a detector which keeps its level fails


def draw_features(count: int, num_features: int, seed: int, *, world: int = 0) -> Tensor:
    """Returns features that depend on each other and are not Gaussian.

    Four skewed sources, mixed, and noise whose size varies from sample to sample.

    Args:
        count: N.
        num_features: D.
        seed: Of the samples.
        world: Number of the distribution.

    Shape:
        Output: (N, D).
    """
    fixed = torch.Generator().manual_seed(world)
    mixing = torch.randn(4, num_features, generator=fixed)
    rng = np.random.default_rng([seed, world])
    sources = rng.exponential(size=(count, 4)) - 1
    noise = rng.normal(size=(count, num_features)) * rng.uniform(0.3, 0.7, size=(count, 1))
    return torch.from_numpy(sources).float() @ mixing + torch.from_numpy(noise).float()


def check_detector(make: Make, *, checks: Iterable[str] | None = None) -> list[str]:
    """Tests a detector from outside, with some sixty fits and three hundred windows.

    Its false alarms are counted on 208 windows of 32 and 128 samples over 52 references of 100 and
    300 samples, all drawn anew from correlated, skewed distributions. More alarms than a binomial
    count of the stated level exceeds with probability 0.001 are a failure.

    Args:
        make: Makes a new detector, not fitted, of a seed; otherwise always the same.
        checks: Names of the checks; None runs all.

    Returns:
        A sentence for each rule that is broken, headed by the name of its check.

    Raises:
        InputError: If a check is unknown.

    Example:
        >>> from cl_adapters.shift import find_detector
        >>> check_detector(lambda seed: find_detector("ks")(4, seed=seed))
        []
    """
    return run_suite(DETECTOR_CHECKS, make, checks)


def _fitted(make: Make, seed: int = 0, rows: int = 200) -> Detector:
    detector = make(seed)
    detector.fit(draw_features(rows, detector.num_features, seed, world=seed))
    return detector


def _windows(detector: Detector, count: int = 4) -> list[Tensor]:
    width = detector.num_features
    known = [draw_features(32, width, 1000 + number) for number in range(count)]
    return [window + number % 2 for number, window in enumerate(known)]


def _fires(make: Make) -> Iterator[str]:
    """Fires on a shift that is plain to see."""
    for size in _SIZES:
        detector = _fitted(make, rows=_ROWS[-1])
        window = draw_features(size, detector.num_features, 1)
        signs = torch.arange(detector.num_features) % 2 * 2 - 1
        verdict = detector.check(window + 4 * window.std(dim=0) * signs)
        if not verdict.fired:
            yield (
                f"a window of {size} samples, shifted by four standard deviations in every feature,"
                f" must fire, got score {verdict.score:.3g} at threshold {verdict.threshold:.3g}"
            )


def _level(make: Make) -> Iterator[str]:
    """Keeps the false alarms at the stated level."""
    alarms = 0
    for reference in range(_REFERENCES):
        detector = _fitted(make, reference, _ROWS[reference % len(_ROWS)])
        for number, size in enumerate(_SIZES * _EACH):
            window = draw_features(size, detector.num_features, 10_000 + number, world=reference)
            alarms += detector.check(window).fired
    windows, level = _REFERENCES * len(_SIZES) * _EACH, make(0).false_alarm
    allowed = int(stats.binom.isf(_CHANCE, windows, level))
    if alarms > allowed:
        yield (
            f"at most {allowed} of {windows} windows without a shift may fire at level {level}, "
            f"got {alarms}"
        )


def _purity(make: Make) -> Iterator[str]:
    """Judges without changing anything."""
    detector = _fitted(make)
    windows = _windows(detector)
    copies = [window.clone() for window in windows]
    first = [detector.check(window) for window in windows]
    again = [detector.check(window) for window in reversed(windows)][::-1]
    if first != again:
        yield "a window must get the same verdict whatever was asked before, got another one"
    if not all(torch.equal(a, b) for a, b in zip(windows, copies, strict=True)):
        yield "`check` must leave the features as they are, got them changed"
    twin = _fitted(make)
    if [twin.check(window) for window in windows] != first:
        yield "two detectors of one seed must agree, got different verdicts"


def _chance(make: Make) -> Iterator[str]:
    """Leaves the global random states alone."""
    before = _global_states()
    detector = _fitted(make)
    detector.check(_windows(detector)[0])
    if _global_states() != before:
        yield "global random states must stay as they are, got one of them changed"


def _global_states() -> list[bytes]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - the one that must not move
    states = torch.random.get_rng_state().tolist(), numpy_state, random.getstate()
    return [pickle.dumps(state) for state in states]


def _reset(make: Make) -> Iterator[str]:
    """Forgets when it is told to."""
    detector = _fitted(make)
    window = _windows(detector)[0]
    expected = detector.check(window)
    detector.reset()
    if not _refuses(lambda: detector.check(window)):
        yield "`check` after `reset` must raise InputError, got a verdict"
    detector.fit(draw_features(200, detector.num_features, 1, world=1))
    detector.fit(draw_features(200, detector.num_features, 0))
    if detector.check(window) != expected:
        yield "`fit` must forget earlier references, got another verdict than of a new detector"


def _round_trip(make: Make) -> Iterator[str]:
    """Is all in its state, and can be pickled."""
    detector = _fitted(make)
    windows = _windows(detector)
    expected = [detector.check(window) for window in windows]
    used = _fitted(make, 1, 100)
    used.check(windows[0])
    for target, name in ((make(0), "a new detector"), (used, "a fitted one")):
        target.seed = detector.seed
        target.load_state_dict(copy.deepcopy(detector.state_dict()))
        if [target.check(window) for window in windows] != expected:
            yield f"a state loaded into {name} must give the same verdicts, got others"
    if [pickle.loads(pickle.dumps(detector)).check(window) for window in windows] != expected:
        yield "a pickled detector must give the same verdicts, got others"


def _memory(make: Make) -> Iterator[str]:
    """Does not grow with what it has seen."""
    small, large = _size(_fitted(make, 0, 2000)), _size(_fitted(make, 0, 4000))
    if large > small:
        yield (
            f"the state must not grow with the reference beyond 2000 samples, got {small} bytes "
            f"for 2000 and {large} for 4000"
        )
    detector = _fitted(make)
    windows = _windows(detector)
    sizes = []
    for _ in range(3):
        sizes.append(len(pickle.dumps(detector)))
        for window in windows:
            detector.check(window)
    if sizes[2] > sizes[1]:
        yield (
            f"the detector must not grow with the number of checks, got {sizes[1]} bytes after 4 "
            f"and {sizes[2]} after 8"
        )


def _size(detector: Detector) -> int:
    return sum(value.numel() * value.element_size() for value in detector.state_dict().values())


def _refusals(make: Make) -> Iterator[str]:
    """Refuses what it cannot judge."""
    detector = make(0)
    width, least = detector.num_features, detector.min_samples
    good = draw_features(max(200, least), width, 0)
    if not _refuses(lambda: detector.check(good)):
        yield "`check` before `fit` must raise InputError, got a verdict"
    broken = good.clone()
    broken[3, 0] = torch.nan
    bad = {
        "NaN": broken,
        "another number of features": torch.cat((good, good), dim=1),
        "fewer samples than `min_samples`": good[: least - 1],
    }
    for name, features in bad.items():
        if not _refuses(lambda given=features: make(0).fit(given)):  # type: ignore[misc]
            yield f"`fit` must refuse {name} with InputError, got no error"
    detector.fit(good)
    del bad["fewer samples than `min_samples`"]
    for name, features in {**bad, "an empty window": good[:0]}.items():
        if not _refuses(lambda given=features: detector.check(given)):  # type: ignore[misc]
            yield f"`check` must refuse {name} with InputError, got a verdict"


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except InputError:
        return True
    return False


DETECTOR_CHECKS: Final[dict[str, Callable[[Make], Iterator[str]]]] = {
    "fires": _fires,
    "level": _level,
    "pure": _purity,
    "global_state": _chance,
    "reset": _reset,
    "state": _round_trip,
    "memory": _memory,
    "refuses": _refusals,
}
