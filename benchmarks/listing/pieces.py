"""What methods are put together from: PEFT modules, heads, detectors, policies of growth."""

from pathlib import Path

from cl_adapters.benchmarks.listing.meanings import meaning
from cl_adapters.heads.registry import CLOSED_HEADS, HEADS, TRAINED_HEADS
from cl_adapters.peft.growth import POLICIES
from cl_adapters.peft.registry import PEFT_NAMES
from cl_adapters.shift import DETECTOR_NAMES

__all__ = ["detectors_table", "heads_table", "peft_table", "policies_table"]


def peft_table(_: Path) -> list[list[str]]:
    """Returns the kinds of PEFT modules, and where each goes."""
    rows = [["peft", "slot", "default size", "from"]]
    for entry in PEFT_NAMES.entries():
        peft = entry.value
        what = (
            [meaning(entry), ""]
            if peft is None
            else [", ".join(peft.slots), str(peft.default_size)]
        )
        rows.append([entry.name, *what, entry.origin])
    return rows


def heads_table(_: Path) -> list[list[str]]:
    """Returns the classifiers, and how each gets its weights."""
    trained = [[name, "by gradient descent", HEADS[name]] for name in TRAINED_HEADS]
    closed = [[name, "in closed form", HEADS[name]] for name in CLOSED_HEADS]
    return [["head", "weights", "meaning"], *trained, *closed]


def detectors_table(_: Path) -> list[list[str]]:
    """Returns the detectors."""
    rows = [["detector", "meaning", "from"]]
    return rows + [[each.name, meaning(each), each.origin] for each in DETECTOR_NAMES.entries()]


def policies_table(_: Path) -> list[list[str]]:
    """Returns the policies of growth."""
    return [["policy", "meaning"], *map(list, POLICIES.items())]
