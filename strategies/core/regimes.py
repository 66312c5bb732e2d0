"""Regimes: the parts of a stream that a method with whole sets of PEFT modules tells apart.

A set has a module in many blocks, so the network grows as one place: `PLACE` in the events, where a
method with adapters of its own in each block has the blocks' numbers. A regime's detector looks at
the frozen network's features of its first experience, which nothing that is learned can change. An
experience belongs to the regime that recognises most of its images; where none does, to a new one.

Shapes: B batch, D features, T experiences, R regimes, G groups (the classes of each regime).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.growth import Budget, Policy
from cl_adapters.peft.merging import merge_
from cl_adapters.shift.bank import DetectorBank
from cl_adapters.strategies.core.detection import GrowthConfig

__all__ = ["PLACE", "Regimes", "SetGrowthConfig"]

PLACE: Final = 0


class SetGrowthConfig(GrowthConfig):
    """When a method makes a new set, and what that may cost."""

    # The policy under which the method is the paper's, which knows of no regimes.
    plain_policy: ClassVar[Policy] = "every_experience"
    policy: Policy = Field(default="every_experience", description="when a new set is made")
    # On frozen features of the last block, which differ between classes more than tokens do.
    detector: str = Field(default="class_mmd", description="name of a shift detector")

    @property
    def decides(self) -> bool:
        """Whether anything asks if an experience gets a set of its own."""
        is_bounded = self.policy == "every_experience" and self.budget != Budget()
        return self.policy != self.plain_policy or is_bounded

    def build_regimes(
        self, num_features: int, seed: int, example: nn.Module, *, finds_images: bool = False
    ) -> "Regimes | None":
        """Returns the regimes of a stream, without an experience yet; None where nothing decides.

        Args:
            num_features: Width of the frozen network's features.
            seed: Seed of the detectors.
            example: What each regime stores.
            finds_images: As of `Regimes`.

        Raises:
            InputError: If the budget does not hold one set.
        """
        if not self.decides:
            return None
        regimes = Regimes(self, num_features, seed, example, finds_images=finds_images)
        self.budget.check(regimes.cost, is_set=True)
        return regimes


class Regimes(GrowingBuffers):
    """The regime of each experience, the detectors that recognise them, and who finds an image's.

    Args:
        config: Which detector, and whether it is asked.
        num_features: D.
        seed: Seed of the detectors.
        example: What each regime stores.
        beside: Numbers that each regime holds besides.
        finds_images: Keep a discriminant on frozen features that finds the regime of an image: that
            of the likeliest among the classes of all regimes, Gaussians with one covariance.

    Attributes:
        cost: Numbers that one more regime holds before its classes, its detector included.
        is_new: Whether the last experience made a regime.
        nearest: The earlier regime that recognised most of its images, or least few.
        of_experience: (T,) int64, the regime of each experience.
        set_of: (R,) int64, the stored set of each regime; shorter while a new one is trained.
        group_regimes, group_classes: (G,) int64, what each group of the discriminant is.
    """

    grows_by_learning = True

    def __init__(
        self,
        config: GrowthConfig,
        num_features: int,
        seed: int,
        example: nn.Module,
        *,
        beside: int = 0,
        finds_images: bool = False,
    ) -> None:
        super().__init__()
        self.config, self._num_features, self._seed = config, num_features, seed
        for name in ("of_experience", "set_of", "group_regimes", "group_classes"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        self.of_experience: Tensor
        self.set_of: Tensor
        self.group_regimes: Tensor
        self.group_classes: Tensor
        first = {PLACE: config.make_detector(num_features, seed)}
        self.detectors = DetectorBank(first) if config.asks_detectors else None
        self.discriminant = LinearDiscriminant(num_features) if finds_images else None
        held = sum(int(value.numel()) for value in example.state_dict().values())
        self.cost = held + beside + (0 if self.detectors is None else self.detectors.cost(PLACE))
        self.is_new = True
        self.nearest = 0

    @property
    def count(self) -> int:
        """R."""
        return int(self.of_experience.max()) + 1 if len(self.of_experience) else 0

    @property
    def active(self) -> int:
        """The regime of the last experience."""
        return int(self.of_experience[-1])

    @property
    def experiences(self) -> int:
        """How many experiences the active regime has had, the last one counted."""
        return self.experiences_in(self.active)

    def experiences_in(self, regime: int) -> int:
        """Returns how many experiences a regime has had."""
        return int((self.of_experience == regime).sum())

    def first_of(self, regime: int) -> int:
        """Returns the experience that brought a regime."""
        return int((self.of_experience == regime).nonzero()[0, 0])

    def add_experience(self, regime: int) -> None:
        """Gives an experience to a regime; R makes a new one."""
        self.is_new = regime == self.count
        if self.is_new and regime > 0:
            self._add_detector()
        self.of_experience = functional.pad(self.of_experience, (0, 1), value=regime)

    def _add_detector(self) -> None:
        if self.detectors is None:
            return
        number = len(self.detectors.of(PLACE))
        detector = self.config.make_detector(self._num_features, self._seed + number)
        self.detectors.append(PLACE, detector.to(self.of_experience.device))

    def keep(self, bank: AdapterBank, tensors: Sequence[Tensor], share: float | None) -> None:
        """Stores the set of the active regime, which has been trained on.

        A set that was continued is merged, in place, into the one it came from. The first set is
        not written over, since task predictors have statistics of its features: a set that it is
        merged into gets a place of its own, once.

        Args:
            bank: The stored sets.
            tensors: Of the trained set, as a stack gives them.
            share: Of the trained set in a merged one; None: one experience's among the regime's.
        """
        if self.active == len(self.set_of):
            bank.append(tensors)
            self.set_of = functional.pad(self.set_of, (0, 1), value=len(bank) - 1)
            return
        place = self.active_set
        merge_(tensors, bank.at(place), 1 - (1 / self.experiences if share is None else share))
        if place > 0:
            bank.replace(place, tensors)
            return
        bank.append(tensors)
        self.set_of[self.active] = len(bank) - 1

    def brought_by(self, sets: Tensor) -> Tensor:
        """Returns the experience that brought the regime of each stored set; -1 where it is -1.

        Shape:
            sets: Any, -1 or places of regimes in the bank. Output: the same.
        """
        first = [(self.of_experience == each).nonzero()[0, 0] for each in range(len(self.set_of))]
        table = self.set_of.new_zeros(int(self.set_of.max()) + 1)
        table[self.set_of] = torch.stack(first)
        return torch.where(sets < 0, sets, table[sets.clamp_min(0)])

    @property
    def active_set(self) -> int:
        """The stored set of the active regime."""
        return int(self.set_of[self.active])

    def nearest_set(self) -> int:
        """Returns the stored set of the earlier regime that recognised most images."""
        return int(self.set_of[self.nearest])

    @property
    def stored(self) -> list[int]:
        """The stored sets that regimes have, each once: the places in the bank."""
        return sorted(set(self.set_of.tolist()))

    def sets_of(self, experiences: Tensor) -> Tensor:
        """Returns the stored set that each experience's regime has; -1 where it is -1.

        A regime that is being trained for the first time has none yet: the last one stands in.

        Shape:
            experiences: (C,), -1 or below T. Output: (C,).
        """
        regimes = self.of_experience[experiences.clamp(0, len(self.of_experience) - 1)]
        found = self.set_of[regimes.clamp_max(len(self.set_of) - 1)]
        return torch.where(experiences < 0, experiences, found)

    def group_numbers(self, groups: int) -> int:
        """Returns the numbers that so many groups of the discriminant hold."""
        # Sum and count of a group, and what it is.
        return 0 if self.discriminant is None else groups * (self._num_features + 3)

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor) -> int:
        """Adds images to the active regime, for those to come that ask for theirs.

        Shape:
            features: (B, D). labels: (B,).

        Returns:
            The numbers that new groups hold.
        """
        if self.discriminant is None:
            return 0
        groups = torch.empty_like(labels)
        before = len(self.group_regimes)
        for label in torch.unique(labels).tolist():
            is_it = (self.group_regimes == self.active) & (self.group_classes == label)
            if not bool(is_it.any()):
                self.group_regimes = functional.pad(self.group_regimes, (0, 1), value=self.active)
                self.group_classes = functional.pad(self.group_classes, (0, 1), value=label)
                is_it = functional.pad(is_it, (0, 1), value=True)
            groups[labels == label] = int(is_it.nonzero()[0, 0])
        added = len(self.group_regimes) - before
        self.discriminant.add_classes(range(len(self.group_regimes)))
        self.discriminant.add(features, groups)
        return self.group_numbers(added)

    def of_images(self, features: Tensor) -> Tensor:
        """Returns the regime of each image, whatever else is in its batch.

        Shape:
            features: (B, D), the frozen network's. Output: (B,).
        """
        if self.discriminant is None or not len(self.group_regimes):
            return torch.zeros(len(features), dtype=torch.int64, device=features.device)
        found: Tensor = self.group_regimes[self.discriminant(features).argmax(dim=1)]
        return found

    def held(self, state: Mapping[str, Tensor]) -> int:
        """Returns how many regimes a method's checkpoint holds; 0 if it does not say."""
        found = state.get("regimes.of_experience", torch.zeros(0))
        return int(found.max()) + 1 if found.numel() else 0

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for what a method's checkpoint holds."""
        while self.detectors is not None and len(self.detectors.of(PLACE)) < self.held(state):
            self._add_detector()
        if self.discriminant is not None:
            groups = state.get("regimes.group_regimes", torch.zeros(0))
            self.discriminant.add_classes(range(len(groups)))
