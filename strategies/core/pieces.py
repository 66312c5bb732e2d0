"""What methods are put together from, by name: methods that share a piece are relatives."""

from collections.abc import Mapping
from typing import Final

__all__ = ["PIECES"]

PIECES: Final[Mapping[str, str]] = {
    "backbone": "weights of the network itself are trained",
    "detectors": "something says when data are strange",
    "directions": "what earlier data span is kept from change",
    "distillation": "outputs are held to those of an earlier state",
    "first session": "the network is fitted to the first experience alone",
    "heads": "a linear classifier is trained, an experience at a time",
    "one set": "one PEFT set is trained on and on",
    "prompts": "tokens or prefixes are learned",
    "prototypes": "means of classes answer",
    "regression": "a regression over sums of all images answers",
    "sets": "PEFT sets of earlier experiences are kept side by side",
    "statistics": "Gaussians of classes are kept",
    "updates": "low-rank updates of weights are kept or merged",
}
