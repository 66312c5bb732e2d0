"""Detectors of distribution shift, by name. One file a kind; a new one adds a line here."""

from inspect import isabstract
from typing import Final

from cl_adapters.errors import InputError
from cl_adapters.plugins.registry import Registry
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.ks import KolmogorovSmirnov
from cl_adapters.shift.mahalanobis import Mahalanobis
from cl_adapters.shift.mmd import MaximumMeanDiscrepancy
from cl_adapters.shift.streaming import ADWIN, KSWIN, PageHinkley
from cl_adapters.shift.zscore import DescriptorZScore

__all__ = ["DETECTORS", "DETECTOR_NAMES", "Detector", "Verdict", "find_detector"]

DETECTORS: Final[dict[str, type[Detector]]] = {
    "adwin": ADWIN,
    "descriptor": DescriptorZScore,
    "ks": KolmogorovSmirnov,
    "kswin": KSWIN,
    "mahalanobis": Mahalanobis,
    "mmd": MaximumMeanDiscrepancy,
    "page_hinkley": PageHinkley,
}


def _accept(value: object) -> type[Detector]:
    if isinstance(value, type) and issubclass(value, Detector) and not isabstract(value):
        return value
    raise InputError(f"must be a class derived from Detector with all its methods, got {value!r}")


DETECTOR_NAMES: Final = Registry("detector", "cl_adapters.detectors", DETECTORS, _accept)


def find_detector(name: str) -> type[Detector]:
    """Returns the detector of a name: built in, `file.py:Name`, or of an installed package.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return DETECTOR_NAMES.find(name)
