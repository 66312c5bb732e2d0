"""The networks that a run can stand on, from a table beside this file: to build all takes minutes.

`python docs/generate.py` adds to the table what timm has and the table has not, and so does a
listing under another timm, for itself: a network is built without memory for its weights.
"""

import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Final

import timm
import torch

from cl_adapters.benchmarks.listing.meanings import meaning
from cl_adapters.errors import InputError
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.names import EMBEDDED, GOOD_BACKBONES
from cl_adapters.vit.pretrained import BACKBONE_NAMES

__all__ = ["TABLE", "backbones_table", "live_backbones", "measure"]

TABLE: Final = "backbones.json"
# Parameters and side of the input in pixels; None of a network that no run can stand on.
Size = tuple[int, int] | None


def backbones_table(_: Path) -> list[list[str]]:
    """Returns a row a network: its parameters, its input's side and where its weights come from.

    Good ones to begin with stand first. What `AdaptedViT` refuses is left out.
    """
    sizes = live_backbones()
    names = [*GOOD_BACKBONES, *(name for name in sizes if name not in GOOD_BACKBONES)]
    rows = [["backbone", "params", "px", "weights"]]
    rows += [_row(name, sizes[name]) for name in names[: len(GOOD_BACKBONES)]]
    for each in BACKBONE_NAMES.entries():
        origin = f"{each.origin} {each.problem and meaning(each)}".rstrip()
        rows.append([each.name, "", "", origin])
    return rows + [_row(name, sizes[name]) for name in names[len(GOOD_BACKBONES) :] if sizes[name]]


def live_backbones() -> dict[str, Size]:
    """Returns the size of each of timm's networks by architecture and tag, the embedded first."""
    known = json.loads((files("cl_adapters.benchmarks.listing") / TABLE).read_text("utf-8"))
    names = [EMBEDDED, *timm.list_models("vit_*", pretrained=True)]
    return {name: _size(known[name] if name in known else measure(name)) for name in names}


def measure(name: str) -> Size:
    """Returns parameters and input's side of a network; None where `AdaptedViT` refuses it."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vit = timm.create_model(name, pretrained=False, num_classes=0)
        try:
            side = AdaptedViT(vit).input_shape[1]
        except InputError:
            return None
    return sum(each.numel() for each in vit.parameters()), side


def _size(value: "list[int] | Size") -> Size:
    return None if value is None else (value[0], value[1])


def _row(name: str, size: Size) -> list[str]:
    number, side = size or (0, 0)
    source = "package" if name == EMBEDDED else "timm"
    use = f"; good for {GOOD_BACKBONES[name]}" if name in GOOD_BACKBONES else ""
    return [name, f"{number / 10**6:,.1f} M", str(side), source + use]
