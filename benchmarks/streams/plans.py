"""The plan of a stream: what each experience holds, before any image is read.

Inside a stream a class is its position in the class order, 0 to C - 1. In a stream that does not
tell where its experiences end, those of the plan are the segments that were announced, and the
stream as it really is stands beside them as the hidden truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.stores import ChangedStore, PickedStore
from cl_adapters.benchmarks.streams.changes import PixelChange

__all__ = ["ExperienceDomain", "HiddenTruth", "Indices", "StreamPlan", "experience_domains"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ExperienceDomain:
    """The truth about the domain of one experience, which a detector of changes has to find.

    Attributes:
        name: Name of the domain.
        changed: Whether it differs from the domain of the experience before; never in the first.
        seen_before: Whether any earlier experience had it; a change to it is then a return.
        severity: How far the pixels are changed, in [0, 1]: 0 for unchanged images, and 1 for a
            domain that the data bring along.
        share: Share of the images that are in the domain, in (0, 1]; the others are still in the
            one before.
        change: What is done to the pixels of train and test images; None for nothing.
    """

    name: str
    changed: bool
    seen_before: bool
    severity: float = 1.0
    share: float = 1.0
    change: PixelChange | None = None

    def truth(self) -> dict[str, object]:
        """Returns the keys of the event `domain`; `share` only where it is not 1."""
        share = {} if self.share == 1 else {"share": round(self.share, 6)}
        return {
            "domain": self.name,
            "changed": self.changed,
            "seen_before": self.seen_before,
            "severity": self.severity,
            **share,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamPlan:
    """What a stream brings, and when.

    Attributes:
        rule: Name of the class order's rule, or `explicit`.
        order: Index in the source of the class at each position. A class that is not among them is
            no part of the stream, and its images are in no experience.
        classes: Class names by position.
        experiences: Positions of the classes that each experience brings, seen or not. Where
            images of a class are dealt out by chance, blurry or returning, it is listed in its own
            or first experience only: for all seeds alike, and with its test images.
        train: Indices in `source.train` of each experience's images.
        test: Indices in `source.test` of each experience's images.
        domains: The domain of each experience; empty where the stream has none.
        scenario: What a run's fingerprint says beside the class order and the experiences.
        hidden: Where the experiences are segments that were announced, the stream as it really is.
        num_absent: How many of the experiences, the first ones, were learned from images that are
            no longer there.
        first_sample: Number of the first test image in a run's predictions.
    """

    rule: str
    order: tuple[int, ...]
    classes: tuple[str, ...]
    experiences: tuple[tuple[int, ...], ...]
    train: tuple[Indices, ...]
    test: tuple[Indices, ...]
    domains: tuple[ExperienceDomain, ...] = ()
    scenario: Mapping[str, object] = field(default_factory=dict)
    hidden: "HiddenTruth | None" = None
    num_absent: int = 0
    first_sample: int = 0

    def describe(self) -> dict[str, object]:
        """Returns the plan for a run's fingerprint: equal for all seeds of one rule."""
        order = list(self.order) if self.rule == "explicit" else self.rule
        told = self.hidden.plan if self.hidden else self
        sizes = [len(each) for each in told.experiences]
        return {"class_order": order, "experiences": sizes, **self.scenario}

    @property
    def experience_of_class(self) -> Indices:
        """The experience that is the first to bring the class of each position, (C,)."""
        first: dict[int, int] = {}
        for experience, positions in enumerate(self.experiences):
            for position in positions:
                first.setdefault(position, experience)
        return np.array([first[position] for position in range(len(self.order))], dtype=np.int64)

    def positions(self, images: LabelledImages) -> Indices:
        """Returns the position of each image's class, (N,); -1 where no experience brings it."""
        places = np.full(len(images.classes), -1, dtype=np.int64)
        places[list(self.order)] = np.arange(len(self.order))
        return places[images.targets]

    def change(self, experience: int) -> PixelChange | None:
        """Returns what an experience does to the pixels of its images; None for nothing."""
        return self.domains[experience].change if self.domains else None

    def images(self, images: LabelledImages, indices: Indices, experience: int) -> LabelledImages:
        """Returns some of the images, with the pixels that an experience has them in."""
        change, taken = self.change(experience), images.take(indices)
        if change is None:
            return taken
        store = ChangedStore(images.store, change)
        return LabelledImages(store, taken.rows, taken.targets, taken.classes)

    def pick(
        self, images: LabelledImages, indices: Indices, experiences: Indices
    ) -> LabelledImages:
        """Returns some of the images, each with the pixels that its own experience has it in.

        Args:
            images: Train or test images of the source.
            indices: Which of them, (N,).
            experiences: The experience of each, (N,).
        """
        taken = images.take(indices)
        changes = [self.change(each) for each in range(len(self.experiences))]
        if not any(changes):
            return taken
        stores = [ChangedStore(images.store, each) if each else images.store for each in changes]
        pairs = zip(experiences.tolist(), taken.rows.tolist(), strict=True)
        picked = PickedStore([(stores[experience], row) for experience, row in pairs])
        return LabelledImages(picked, np.arange(len(taken)), taken.targets, taken.classes)

    def part(
        self, images: LabelledImages, split: Literal["train", "test"], experience: int
    ) -> LabelledImages:
        """Returns the train or the test images of an experience as it has them.

        Args:
            images: Those of the source's split.
            split: Which split that is.
            experience: The experience.
        """
        indices = (self.train if split == "train" else self.test)[experience]
        if self.hidden is None:
            return self.images(images, indices, experience)
        origins = self.hidden.train if split == "train" else self.hidden.test
        return self.hidden.plan.pick(images, indices, origins[experience])

    def samples(self, experience: int) -> Indices:
        """Returns the number of each test image of an experience in a run's predictions."""
        indices = self.test[experience]
        if self.hidden is not None:
            return self.hidden.samples(indices, experience)
        return indices + self.first_sample


@dataclass(frozen=True, kw_only=True, eq=False)
class HiddenTruth:
    """What a stream really is whose experiences are segments that were announced.

    Attributes:
        plan: The stream with its own experiences, of which no strategy is told.
        train: The experience of `plan` that each train image of a segment comes from.
        test: The same of its test images.
        truth: The keys of each segment's event `segment`, see `cl_adapters.records`.
    """

    plan: StreamPlan
    train: tuple[Indices, ...]
    test: tuple[Indices, ...]
    truth: tuple[Mapping[str, object], ...]

    def samples(self, indices: Indices, segment: int) -> Indices:
        """Returns the number of each test image of a segment in a run's predictions.

        That is the index; where the truth tests an image in several experiences, which a segment
        may hold together, it is index + N · experience, with N - 1 the largest index.
        """
        every = np.concatenate(self.plan.test)
        if len(np.unique(every)) == len(every):
            return indices
        return indices + (int(every.max()) + 1) * self.test[segment]


def experience_domains(names: list[str]) -> list[ExperienceDomain]:
    """Returns the truth about the domains that follow each other.

    Example:
        >>> [each.seen_before for each in experience_domains(["a", "a", "b", "a"])]
        [False, True, False, True]
    """
    domains = []
    for place, name in enumerate(names):
        changed = place > 0 and name != names[place - 1]
        seen_before = name in names[:place]
        domains.append(ExperienceDomain(name=name, changed=changed, seen_before=seen_before))
    return domains
