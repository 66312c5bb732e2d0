"""What methods are put together from: networks, PEFT modules, detectors, policies of growth."""

from pathlib import Path

import timm

from cl_adapters.benchmarks.listing.meanings import meaning
from cl_adapters.peft.growth import POLICIES
from cl_adapters.peft.registry import PEFT_NAMES
from cl_adapters.shift import DETECTOR_NAMES
from cl_adapters.vit.names import EMBEDDED
from cl_adapters.vit.pretrained import BACKBONE_NAMES

__all__ = ["backbones_table", "detectors_table", "peft_table", "policies_table"]


def backbones_table(_: Path) -> list[list[str]]:
    """Returns the networks, and where the weights of each come from."""
    names = [
        name for name in timm.list_models("vit_*", pretrained=True) if not name.startswith(EMBEDDED)
    ]
    return [
        ["backbone", "weights"],
        [EMBEDDED, "in the package"],
        *(
            [each.name, f"{each.origin} {each.problem and meaning(each)}".rstrip()]
            for each in BACKBONE_NAMES.entries()
        ),
        *([name, "timm's hub or --weights"] for name in names),
    ]


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


def detectors_table(_: Path) -> list[list[str]]:
    """Returns the detectors."""
    rows = [["detector", "meaning", "from"]]
    return rows + [[each.name, meaning(each), each.origin] for each in DETECTOR_NAMES.entries()]


def policies_table(_: Path) -> list[list[str]]:
    """Returns the policies of growth."""
    return [["policy", "meaning"], *map(list, POLICIES.items())]
