"""Detectors of distribution shift, by name. One file a kind; a new one adds a line here."""

from typing import Final

from cl_adapters.errors import unknown_name
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.ks import KolmogorovSmirnov
from cl_adapters.shift.mahalanobis import Mahalanobis
from cl_adapters.shift.mmd import MaximumMeanDiscrepancy
from cl_adapters.shift.streaming import ADWIN, KSWIN, PageHinkley
from cl_adapters.shift.zscore import DescriptorZScore

__all__ = ["DETECTORS", "Detector", "Verdict", "find_detector"]

DETECTORS: Final[dict[str, type[Detector]]] = {
    "adwin": ADWIN,
    "descriptor": DescriptorZScore,
    "ks": KolmogorovSmirnov,
    "kswin": KSWIN,
    "mahalanobis": Mahalanobis,
    "mmd": MaximumMeanDiscrepancy,
    "page_hinkley": PageHinkley,
}


def find_detector(name: str) -> type[Detector]:
    """Returns the detector of a name.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]
