"""Maximum mean discrepancy with a permutation threshold.

With X the reference, Y the window and k an RBF kernel of the median distance in both together,

    MMD^2 = mean k(X, X) + mean k(Y, Y) - 2 mean k(X, Y)

and the threshold is the quantile of the same number over random splits of X and Y together into
parts of their sizes: an exact test, since without a shift every split is as likely.

With many images the test finds every difference, and new classes of the same kind of images make
one. How large it is, and not how certain, tells these from images of another kind: where
`min_discrepancy` is set, MMD^2 must reach it too. It lies between 0 and 2. `class_mmd.py` finds out
by itself how large is large.

Reference: Arthur Gretton, Karsten Borgwardt, Malte Rasch, Bernhard Schölkopf, Alexander Smola, "A
Kernel Two-Sample Test", Journal of Machine Learning Research 13, 2012.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift.base import Verdict
from cl_adapters.shift.reservoir import ReservoirDetector

__all__ = ["MaximumMeanDiscrepancy", "discrepancies"]


class MaximumMeanDiscrepancy(ReservoirDetector):
    """Fires where a window differs from the reference in any property that the kernel sees.

    Args:
        num_features: D.
        false_alarm: Share of known windows that may fire; exact.
        seed: Seed of the draw of the reference and of the permutations.
        max_reference: Most samples that are kept.
        permutations: Number of random splits; at least 1 / false_alarm - 1, else it never fires.
            None: 500, or 1 / false_alarm where these are more.
        min_discrepancy: MMD^2 below which the threshold never lies, in [0, 2).

    Raises:
        InputError: If a number breaks its rule, or so small a level asks for more splits than
            memory holds.
    """

    least_false_alarm: ClassVar[float] = 1e-5

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        max_reference: int = 500,
        permutations: int | None = None,
        min_discrepancy: float = 0.0,
    ) -> None:
        super().__init__(
            num_features, false_alarm=false_alarm, seed=seed, max_reference=max_reference
        )
        if false_alarm < self.least_false_alarm:
            raise InputError(
                f"`false_alarm` must be at least {self.least_false_alarm:g} for a detector that "
                f"draws 1 / false_alarm random splits, got {false_alarm:g}"
            )
        needed = math.ceil(1 / false_alarm) - 1
        if permutations is None:  # one more than needed, which rounding may take
            permutations = max(500, needed + 1)
        if permutations < needed:
            raise InputError(
                f"`permutations` must be at least {needed} for a false alarm level of "
                f"{false_alarm}, got {permutations}"
            )
        if not 0 <= min_discrepancy < 2:
            raise InputError(f"`min_discrepancy` must lie in [0, 2), got {min_discrepancy}")
        self.permutations, self.min_discrepancy = permutations, min_discrepancy

    @torch.no_grad()
    def check(self, features: Tensor) -> Verdict:
        """Compares a window's discrepancy with those of random splits."""
        return self.compared(self.kernel(features))

    def kernel(self, features: Tensor) -> Tensor:
        """Returns the kernel of the reference and a window together, (R + n, R + n).

        Shape:
            features: (n, D).
        """
        rows, known = self.checked(features).double(), self.reference.double()
        both = torch.cat((known, rows.to(known.device)))
        squared = torch.cdist(both, both).square()
        # Of both together: a width from X alone would tell the true split from the random ones.
        return torch.exp(-squared / squared.flatten().median().clamp_min(1e-12))

    def compared(self, kernel: Tensor) -> Verdict:
        """Compares the discrepancy of a window with those of random splits.

        Shape:
            kernel: (R + n, R + n), of the reference and the window.
        """
        known = int(self.count)
        splits = torch.zeros(self.permutations + 1, len(kernel), dtype=kernel.dtype)
        splits[0, known:] = 1  # the split as it is
        generator = torch.Generator().manual_seed(self.seed)
        for split in splits[1:]:
            split[torch.randperm(len(kernel), generator=generator)[: len(kernel) - known]] = 1
        scores = discrepancies(kernel, splits.to(kernel.device)).sort().values
        score = discrepancies(kernel, splits[:1].to(kernel.device)).item()
        # At most false_alarm * (permutations + 1) of all splits lie above this one.
        last = math.ceil((1 - self.false_alarm) * len(scores)) - 1
        return Verdict(score, max(scores[last].item(), self.min_discrepancy))


def discrepancies(kernel: Tensor, splits: Tensor) -> Tensor:
    """Returns MMD^2 of each split of some samples into two.

    Shape:
        kernel: (N, N). splits: (P, N), 1 for samples of the one part, 0 for those of the other.
        Output: (P,).
    """
    window = splits / splits.sum(dim=1, keepdim=True)
    known = (1 - splits) / (1 - splits).sum(dim=1, keepdim=True)
    difference = known - window
    return ((difference @ kernel) * difference).sum(dim=1)
