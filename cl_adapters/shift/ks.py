"""Kolmogorov-Smirnov tests of each feature, corrected for their number after Bonferroni."""

import math

import numpy as np
from scipy import stats
from torch import Tensor

from cl_adapters.shift.base import Verdict
from cl_adapters.shift.reservoir import ReservoirDetector

__all__ = ["KolmogorovSmirnov"]

_SMALLEST = 1e-300  # keeps the score finite


class KolmogorovSmirnov(ReservoirDetector):
    """Fires where any single feature is distributed differently.

    The score is -log10(D p), with p the smallest of the D two-sample p-values and D p at most 1;
    the threshold is -log10(false_alarm). The level holds for independent samples whatever the
    features' dependence, and errs on the safe side where they depend on each other.
    """

    def check(self, features: Tensor) -> Verdict:
        """Tests every feature of a window against the reference."""
        rows = self.checked(features).cpu().numpy().astype(np.float64)
        known = self.reference.cpu().numpy().astype(np.float64)
        smallest = float(np.min(stats.ks_2samp(known, rows, axis=0).pvalue))
        corrected = min(1.0, max(_SMALLEST, smallest * self.num_features))
        return Verdict(-math.log10(corrected), -math.log10(self.false_alarm))
