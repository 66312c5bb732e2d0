"""Detectors of distribution shift, by name. One file a kind; a new one adds a line here.

A detector is imported when it is asked for.
"""

from typing import Final

from cl_adapters.plugins.registry import Registry, derived_from
from cl_adapters.shift.base import Detector, Verdict

__all__ = ["DETECTORS", "DETECTOR_NAMES", "Detector", "Verdict", "find_detector"]


DETECTOR_NAMES: Final = Registry[type[Detector]](
    "detector",
    "cl_adapters.detectors",
    {
        "adwin": "cl_adapters.shift.streaming:ADWIN",
        "class_mmd": "cl_adapters.shift.class_mmd:ClassSplitDiscrepancy",
        "descriptor": "cl_adapters.shift.zscore:DescriptorZScore",
        "hdc": "cl_adapters.shift.hdc:HyperdimensionalMemory",
        "ks": "cl_adapters.shift.ks:KolmogorovSmirnov",
        "kswin": "cl_adapters.shift.streaming:KSWIN",
        "mahalanobis": "cl_adapters.shift.mahalanobis:Mahalanobis",
        "mmd": "cl_adapters.shift.mmd:MaximumMeanDiscrepancy",
        "page_hinkley": "cl_adapters.shift.streaming:PageHinkley",
    },
    derived_from(Detector),  # type: ignore[type-abstract] # none is made
)
DETECTORS: Final = DETECTOR_NAMES.built_in


def find_detector(name: str) -> type[Detector]:
    """Returns the detector of a name: built in, `file.py:Name`, or of an installed package.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return DETECTOR_NAMES.find(name)
