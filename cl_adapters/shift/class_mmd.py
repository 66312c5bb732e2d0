"""Maximum mean discrepancy that takes new classes for granted.

A test of two samples finds new classes of the same kind of images as surely as images of another
kind, if it sees enough of them. How far apart new classes lie from known ones can be read from the
known ones alone: split into two halves A and B at random, class by class, they are new to each
other. With MMD^2 as in `mmd.py`, k known classes and a and b of them in the halves,

    bound = margin * max over splits of MMD^2(A, B) * (2 / k) / (1 / a + 1 / b)

The last factor makes of halves what k new classes would be beside k known ones, since the
discrepancy of sets of classes drawn from one kind falls with their number. A window is strange if
its MMD^2 exceeds this bound and the quantile of random splits of images. Where the window's classes
are told and none of them is new, none excuses a difference: it is then judged as by `mmd`.

This detector is ours; the test that it bounds is of Arthur Gretton and others, "A Kernel Two-Sample
Test", Journal of Machine Learning Research 13, 2012.

Shapes: N samples of the reference, n samples of a window, R samples that are kept, k classes.
"""

from itertools import combinations
from math import comb
from typing import ClassVar

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift.base import Verdict
from cl_adapters.shift.mmd import MaximumMeanDiscrepancy, discrepancies

__all__ = ["ClassSplitDiscrepancy"]


class ClassSplitDiscrepancy(MaximumMeanDiscrepancy):
    """Fires where a window differs more from the reference than new classes of its kind would.

    Fitted without labels, or on fewer than three classes, it is `mmd`.

    Args:
        num_features: D.
        false_alarm: Share of known windows that may fire; it may be less.
        seed: Seed of the draw of the reference and of all splits.
        max_reference: Most samples that are kept.
        min_discrepancy: MMD^2 below which the threshold never lies, in [0, 2).
        margin: Factor on the largest discrepancy of halves, above 0.

    Attributes:
        class_splits: Most splits of classes that are asked.
    """

    class_splits: ClassVar[int] = 100

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        max_reference: int = 300,
        min_discrepancy: float = 0.0,
        margin: float = 1.5,
    ) -> None:
        super().__init__(
            num_features,
            false_alarm=false_alarm,
            seed=seed,
            max_reference=max_reference,
            min_discrepancy=min_discrepancy,
        )
        if margin <= 0:
            raise InputError(f"`margin` must be above 0, got {margin}")
        self.margin = margin
        self.register_buffer("labels", torch.full((max_reference,), -1))
        self.labels: Tensor

    def reset(self) -> None:
        """Forgets the reference and its classes."""
        super().reset()
        self.labels.fill_(-1)

    def fit_labelled(self, features: Tensor, labels: Tensor) -> None:
        """Keeps samples of the reference, and of which class they are."""
        super().fit_labelled(features, labels)
        chosen = self.drawn(len(labels))
        self.labels[: len(chosen)] = labels.to(self.labels)[chosen.to(labels.device)]

    @torch.no_grad()
    def check(self, features: Tensor) -> Verdict:
        """Compares a window's discrepancy with random splits of images, and of classes."""
        kernel = self.kernel(features)
        verdict = self.compared(kernel)
        count = int(self.count)
        bound = self.margin * self._of_halves(kernel[:count, :count])
        return Verdict(verdict.score, max(verdict.threshold, bound))

    def check_labelled(self, features: Tensor, labels: Tensor) -> Verdict:
        """Judges a window by `check`, or by images alone where it holds known classes only.

        Shape:
            features: (n, D). labels: (n,).
        """
        if bool(torch.isin(labels.to(self.labels), self.labels[: int(self.count)]).all()):
            return super().check(features)
        return self.check(features)

    def _of_halves(self, kernel: Tensor) -> float:
        # The largest discrepancy of halves of the classes, as k new beside k known classes.
        labels = self.labels[: len(kernel)]
        classes = torch.unique(labels).tolist()
        if len(classes) < 3:  # also without labels
            return 0.0
        halves = self._halves(classes)
        splits = torch.stack([torch.isin(labels, torch.tensor(half).to(labels)) for half in halves])
        found = discrepancies(kernel, splits.to(kernel)).max().item()
        one, other = len(halves[0]), len(classes) - len(halves[0])
        return found * (2 / len(classes)) / (1 / one + 1 / other)

    def _halves(self, classes: list[int]) -> list[list[int]]:
        size = len(classes) // 2
        if comb(len(classes), size) <= self.class_splits:
            return [list(half) for half in combinations(classes, size)]
        generator = torch.Generator().manual_seed(self.seed)
        orders = (
            torch.randperm(len(classes), generator=generator) for _ in range(self.class_splits)
        )
        return [[classes[place] for place in order[:size].tolist()] for order in orders]
