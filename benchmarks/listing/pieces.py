"""What methods are put together from: PEFT modules, heads, routers, detectors, policies."""

from functools import cache
from pathlib import Path
from typing import Final

import torch

from cl_adapters.benchmarks.listing.meanings import meaning
from cl_adapters.heads.registry import CLOSED_HEADS, HEADS, TRAINED_HEADS, build_trained_head
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.growth import POLICIES
from cl_adapters.peft.registry import PEFT_NAMES, Peft
from cl_adapters.peft.router_registry import ROUTER_NAMES, Router
from cl_adapters.peft.site import Site
from cl_adapters.shift import DETECTOR_NAMES

__all__ = [
    "detectors_table",
    "heads_table",
    "parameters_of",
    "peft_table",
    "pieces_table",
    "policies_table",
    "routers_table",
]

_WIDTH, _DEPTH = 768, 12  # of ViT-B
# What layers take and return, in widths of the stream.
_LAYERS: Final[dict[Slot, tuple[int, int]]] = {
    "key_value": (1, 2),
    "qkv": (1, 3),
    "proj": (1, 1),
    "fc1": (1, 4),
    "fc2": (4, 1),
}


def peft_table(_: Path) -> list[list[str]]:
    """Returns the kinds of PEFT modules: where each goes, how large it is, who published it."""
    rows = [["peft", "slot", "size", f"parameters at width {_WIDTH}", "source", "from"]]
    for entry in PEFT_NAMES.entries():
        peft = entry.value
        if peft is None:
            what = [meaning(entry), "", "", ""]
        else:
            size = str(peft.default_size)
            what = [", ".join(peft.slots), size, _counted(peft), peft.source]
        rows.append([entry.name, *what, entry.origin])
    return rows


@cache
def parameters_of(peft: Peft) -> int:
    """Returns how many parameters a module has in a block of a ViT-B, of the kind's own size.

    Where blocks share weights, a twelfth of those of all.
    """
    if peft.make_all is not None:
        seeded = torch.Generator().manual_seed(0)
        modules = torch.nn.ModuleList(peft.build_all(_WIDTH, None, seeded, blocks=range(_DEPTH)))
        return round(sum(value.numel() for value in modules.parameters()) / _DEPTH)
    place = (_site, 0)
    module = peft.build(_WIDTH, None, torch.Generator().manual_seed(0), place=place)
    return sum(value.numel() for value in module.parameters())


def _site(slot: Slot, block: int) -> Site:
    taken, returned = (times * _WIDTH for times in _LAYERS.get(slot, (1, 1)))
    weight = torch.zeros(returned, taken) if slot in _LAYERS else None
    return Site(slot, block, taken, returned, weight)


def _counted(peft: Peft) -> str:
    try:
        return f"{parameters_of(peft):,}"
    except Exception:  # noqa: BLE001 - whatever a stranger's module needs of its place
        return ""


def heads_table(_: Path) -> list[list[str]]:
    """Returns the classifiers, and how each gets its weights."""
    trained = [[name, "by gradient descent", HEADS[name]] for name in TRAINED_HEADS]
    closed = [[name, "in closed form", HEADS[name]] for name in CLOSED_HEADS]
    return [["head", "weights", "meaning"], *trained, *closed]


def routers_table(_: Path) -> list[list[str]]:
    """Returns the routers: what each holds of one adapter more, of a ViT-B."""
    rows = [["router", f"parameters at width {_WIDTH}", "meaning", "from"]]
    return rows + [
        [entry.name, _counted_router(entry.value), meaning(entry), entry.origin]
        for entry in ROUTER_NAMES.entries()
    ]


def _counted_router(kind: type[Router] | None) -> str:
    try:
        router = None if kind is None else kind(_WIDTH)
        if router is None:
            return ""
        router.add_adapter(torch.Generator().manual_seed(0))
    except Exception:  # noqa: BLE001 - whatever a stranger's router needs
        return ""
    return f"{router.cost():,} an adapter"


def detectors_table(_: Path) -> list[list[str]]:
    """Returns the detectors."""
    rows = [["detector", "meaning", "from"]]
    return rows + [[each.name, meaning(each), each.origin] for each in DETECTOR_NAMES.entries()]


def policies_table(_: Path) -> list[list[str]]:
    """Returns the policies of growth."""
    return [["policy", "meaning"], *map(list, POLICIES.items())]


def pieces_table(out: Path) -> list[list[str]]:
    """Returns all kinds of pieces in one table: the option of each, its slot, size and source."""
    rows = [["piece", "option", "slot", f"parameters at width {_WIDTH}", "source or meaning"]]
    for name, slot, _, count, source, origin in peft_table(out)[1:]:
        rows.append([name, "peft", slot, count, source or origin])
    for name, _, what in heads_table(out)[1:]:
        count = f"{_numbers_a_class(name):,} a class" if name in TRAINED_HEADS else ""
        rows.append([name, "head", "", count, what])
    rows += [[name, "router", "", count, what] for name, count, what, _ in routers_table(out)[1:]]
    rows += [[name, "detector", "", "", what] for name, what, _ in detectors_table(out)[1:]]
    return rows + [[name, "policy", "", "", what] for name, what in policies_table(out)[1:]]


def _numbers_a_class(name: str) -> int:
    head = build_trained_head(name, _WIDTH)
    head.add_classes([0], torch.Generator().manual_seed(0))
    return sum(value.numel() for value in head.parameters())
