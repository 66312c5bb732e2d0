"""A strategy that decides, experience by experience, whether a new set of PEFT modules is needed.

The detectors are SEMA's, and so are policies, budgets (`cl_adapters.peft.growth_round`) and events;
what they look at is said in `core/regimes.py`. Under `per_block`, which is `whole_network` here, a
window to which the detectors of all regimes fire makes a new one; else the experience belongs to
the regime that recognises most of its images. Under `never`, and where a budget is spent and no
detector has an answer, it belongs to that of the experience before.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.growth_round import BlockSize, GrowthRound
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.strategies.core.labels import classes_of
from cl_adapters.strategies.core.regimes import PLACE, Regimes
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.core.tokens import ExperienceFeatures

__all__ = ["GrowingStrategy"]


class GrowingStrategy(AdapterStrategy):
    """Finds the regime of each experience; a model with `regimes` of None is never asked.

    Attributes:
        watched: The frozen features of the experience that detectors were shown, as training shows
            its images.
    """

    config: Any  # with the options of `GrowthConfig`
    watched: CachedFeatures

    @property
    def regimes(self) -> Regimes | None:
        """The model's, None where its options ask for none."""
        found: Regimes | None = self.model.regimes
        return found

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for the regimes that a checkpoint holds."""
        if self.regimes is not None:
            self.regimes.rebuild(state)

    @property
    def least_images(self) -> int:
        """Images that each experience must hold, for the detectors that are asked."""
        asked = None if self.regimes is None else self.regimes.detectors
        return 1 if asked is None else asked.newest(PLACE).min_samples

    def check_experience(self, dataset: AvalancheDataset) -> None:
        """Refuses an experience too small for the detectors, or of classes beyond `num_classes`."""
        if len(dataset) < self.least_images:
            raise InputError(
                f"an experience must hold at least {self.least_images} training images for "
                f"detector {self.config.detector!r}, got {len(dataset)}"
            )
        told = getattr(self.config, "num_classes", None)
        needed = 1 + max(classes_of(dataset), default=-1)
        if told is not None and told < needed:
            raise InputError(
                f"`num_classes` must be at least the classes of the stream, {needed} so far, got "
                f"{told}"
            )

    def find_regime(self) -> Regimes | None:
        """Gives the current experience to a regime, known or new; None where nothing decides."""
        if self.regimes is None:
            return None
        regimes, seen = self.regimes, self._frozen_features()
        growth = GrowthRound(
            [PLACE],
            regimes.config.policy,
            regimes.config.budget,
            lambda: {PLACE: self._size(regimes)},
        )
        is_first = regimes.count == 0
        grown = is_first or self._scan(regimes, seen, growth)
        recognised, features = growth.recognised(PLACE), seen.all("regime")
        regimes.nearest = _likeliest(regimes, features) if recognised is None else recognised
        known = regimes.active if not is_first and recognised is None else recognised or 0
        regimes.add_experience(regimes.count if grown else known)
        regimes.learn(features, seen.cached.targets.to(self.device))
        if grown:
            self._fit_detector(regimes, seen)
        if grown and not is_first:
            numbers = self._numbers_of(regimes, len(self.classes_by_experience) - 1)
            self.log_event("growth", block=PLACE, adapters=regimes.count, parameters=numbers)
        changed = growth.changed[PLACE]
        self.log_event("active", block=PLACE, adapter=regimes.active, changed=changed)
        return regimes

    def numbers_of_classes(self, classes: int) -> int:
        """Returns what so many classes add to a regime, in numbers."""
        del classes
        return 0

    def _numbers_of(self, regimes: Regimes, experience: int) -> int:
        # What a regime holds that an experience made, or would make, with the classes of this one.
        classes = len(self.classes_by_experience[experience])
        return regimes.cost + regimes.group_numbers(classes) + self.numbers_of_classes(classes)

    def _size(self, regimes: Regimes) -> BlockSize:
        grown = [regimes.first_of(each) for each in range(1, regimes.count)]
        spent = sum(self._numbers_of(regimes, each) for each in grown)
        cost = self._numbers_of(regimes, len(self.classes_by_experience) - 1)
        return BlockSize(regimes.count, cost, spent)

    def _scan(self, regimes: Regimes, seen: ExperienceFeatures, growth: GrowthRound) -> bool:
        """Asks the detectors window by window; says whether a new set is wanted."""
        config = regimes.config
        if config.policy == "every_experience":
            return bool(growth.affordable())
        if regimes.detectors is None:
            return False
        moment, size = "scan 0", config.detect_batch_size
        source = self.generator(moment)
        windows = seen.windows(size, source, moment, merge_last=config.merge_last)
        for window, (features, labels) in enumerate(windows):
            with self.events.timed("scan", len(features)):
                scan = regimes.detectors.judge(PLACE, features.float(), labels)
            growth.vote(PLACE, scan.best, scan.images, changed=scan.each[regimes.active].fired)
            grown = bool(growth.to_grow({PLACE: scan.fired}))
            self.log_event("scan", **growth.told(PLACE, window, scan, grown=grown))
            if grown:
                return True
        return False

    def _fit_detector(self, regimes: Regimes, seen: ExperienceFeatures) -> None:
        if regimes.detectors is None:
            return
        is_one = self.augmentation.fixed_views is True
        count = 1 if is_one else regimes.config.views or regimes.config.descriptor_epochs
        with self.events.timed("descriptor", count * len(seen)):
            views = torch.stack([seen.all(f"view {k}") for k in range(count)])
            regimes.detectors.newest(PLACE).fit_labelled(views, seen.cached.targets)

    def _frozen_features(self) -> ExperienceFeatures:
        frozen = self.features.feature_extractor(self.backbone, self.backbone)
        same = self.augmentation.fixed_views
        self.watched = cached = CachedFeatures(
            self.adapted_dataset, frozen, same=same, cache=self.cache
        )
        with self.events.timed("frozen", len(cached)):
            cached.prepare()
        return ExperienceFeatures(cached, self.set_augmentation_seed)


def _likeliest(regimes: Regimes, features: Tensor) -> int:
    # The regime that most images would be given to, where no detector was asked.
    return int(regimes.of_images(features).mode().values)
