"""Every detector passes the suite; each broken one fails it with the sentence that fits."""

import random
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift import DETECTORS, Detector, Verdict
from cl_adapters.shift.checks import DETECTOR_CHECKS, check_detector, draw_features

DIM = 8


def sentences_about(name: str, checks: Iterable[str]) -> list[str]:
    options: dict[str, Any] = {"epochs": 2, "folds": 2} if name == "descriptor" else {}
    return check_detector(lambda seed: DETECTORS[name](DIM, seed=seed, **options), checks=checks)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_satisfies_the_suite(name: str) -> None:
    assert sentences_about(name, [each for each in DETECTOR_CHECKS if each != "level"]) == []


# By default `test_known_windows_fire_no_more_often_than_stated` counts the alarms.
@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_keeps_its_level_in_the_suite(name: str) -> None:
    assert sentences_about(name, ["level"]) == []


class Sound(Detector):
    """The z-test of the mean of the first feature: what the broken ones are made from."""

    min_samples: ClassVar[int] = 10

    def __init__(self, num_features: int, *, seed: int = 0, limit: float = 4.0) -> None:
        super().__init__(num_features, seed=seed)
        self.limit = limit
        self.register_buffer("statistics", torch.zeros(3))
        self.statistics: Tensor

    def fit(self, features: Tensor) -> None:
        column = self.checked(features, self.min_samples)[..., 0].flatten()
        self.statistics = torch.stack((column.mean(), column.std(), torch.tensor(len(column))))

    def check(self, features: Tensor) -> Verdict:
        column = self.checked(features)[:, 0]
        if not self.statistics[2]:
            raise InputError("a detector must be fitted before it is asked")
        mean, spread, count = self.statistics
        error = spread * (1 / len(column) + 1 / count).sqrt()
        return Verdict(float((column.mean() - mean).abs() / error), self.limit)

    def reset(self) -> None:
        self.statistics = torch.zeros(3)


class Remembers(Sound):
    asked = 0

    def check(self, features: Tensor) -> Verdict:
        self.asked += 1
        return Verdict(super().check(features).score + self.asked, self.limit)


class Hoards(Sound):
    def fit(self, features: Tensor) -> None:
        super().fit(features)
        self.register_buffer("reference", features.clone())

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        self.register_buffer("reference", state[f"{prefix}reference"].clone())
        super()._load_from_state_dict(state, prefix, *rest)


class Logs(Sound):
    def check(self, features: Tensor) -> Verdict:
        self.log = [*getattr(self, "log", []), features.sum().item()]
        return super().check(features)


class DrawsGlobally(Sound):
    def fit(self, features: Tensor) -> None:
        torch.rand(1)
        super().fit(features)


class DrawsGloballyFromNumpy(Sound):
    def check(self, features: Tensor) -> Verdict:
        np.random.rand()  # noqa: NPY002
        return super().check(features)


class DrawsGloballyFromPython(Sound):
    def check(self, features: Tensor) -> Verdict:
        random.random()
        return super().check(features)


class Unseeded(Sound):
    def fit(self, features: Tensor) -> None:
        super().fit(features)
        self.statistics[0] += 1e-3 * np.random.default_rng().random()


class LosesState(Sound):
    def fit(self, features: Tensor) -> None:
        super().fit(features)
        self.mean = float(self.statistics[0])

    def check(self, features: Tensor) -> Verdict:
        verdict = super().check(features)
        return Verdict(verdict.score + getattr(self, "mean", 0.0), self.limit)


class KeepsAfterReset(Sound):
    def reset(self) -> None:
        pass


class Accumulates(Sound):
    def fit(self, features: Tensor) -> None:
        before = self.statistics[0].clone()
        super().fit(features)
        self.statistics[0] += before / 10


class Overwrites(Sound):
    def check(self, features: Tensor) -> Verdict:
        verdict = super().check(features)
        features[0, 0] += 1e-6 + features[0, 0].abs() * 1e-3
        return verdict


class Swallows(Sound):
    def checked(self, features: Tensor, least: int = 1) -> Tensor:
        return super().checked(torch.nan_to_num(features), least)


def test_the_sound_detector_that_the_broken_ones_are_made_from_passes() -> None:
    assert check_detector(lambda seed: Sound(DIM, seed=seed)) == []


BROKEN: list[tuple[type[Sound], dict[str, Any], list[str]]] = [
    (Sound, {"limit": 1e9}, ["a window of 32 samples, shifted", "a window of 128 samples, s"]),
    (Sound, {"limit": -1.0}, ["at most 8 of 208 windows .* at level 0.01, got 208"]),
    (Sound, {"limit": 1.8}, [r"at most 8 of 208 windows .* at level 0.01, got \d\d$"]),
    (Remembers, {}, ["the same verdict whatever was asked before"]),
    (Hoards, {}, ["the state must not grow with the reference .* got 64012 bytes for 2000"]),
    (Logs, {}, ["must not grow with the number of checks"]),
    (DrawsGlobally, {}, ["global random states must stay"]),
    (DrawsGloballyFromNumpy, {}, ["global random states must stay"]),
    (DrawsGloballyFromPython, {}, ["global random states must stay"]),
    (Unseeded, {}, ["two detectors of one seed must agree"]),
    (LosesState, {}, ["loaded into a new detector must give the same verdicts"]),
    (KeepsAfterReset, {}, ["`check` after `reset` must raise InputError, got a verdict"]),
    (Accumulates, {}, ["`fit` must forget earlier references"]),
    (Overwrites, {}, ["must leave the features as they are"]),
    (Swallows, {}, ["`fit` must refuse NaN", "`check` must refuse NaN with InputError"]),
]


@cache
def broken_rules(kind: type[Sound], **options: Any) -> list[str]:
    return check_detector(lambda seed: kind(DIM, seed=seed, **options))


@pytest.mark.parametrize(("kind", "options", "sentences"), BROKEN)
def test_broken_detectors_fail_with_the_rule_that_they_break(
    kind: type[Sound], options: dict[str, Any], sentences: list[str]
) -> None:
    found = broken_rules(kind, **options)
    for sentence in sentences:
        assert any(re.search(sentence, each) for each in found), found


def test_every_check_has_an_offender() -> None:
    caught = {
        line.partition(":")[0]
        for kind, options, _ in BROKEN
        for line in broken_rules(kind, **options)
    }
    assert caught == set(DETECTOR_CHECKS)


def test_the_features_depend_on_each_other_and_are_skewed() -> None:
    features = draw_features(4000, DIM, 1).double().numpy()
    correlations = np.abs(np.corrcoef(features.T)[np.triu_indices(DIM, 1)])
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    assert correlations.max() > 0.5
    assert np.abs((standard**3).mean(axis=0)).max() > 0.5
    assert torch.equal(draw_features(5, DIM, 1), draw_features(5, DIM, 1))
