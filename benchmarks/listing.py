"""What exists by name, for `cl-adapters list`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import timm

from cl_adapters.benchmarks.data.sources import SOURCE_NAMES, SOURCES
from cl_adapters.benchmarks.running.checkpoints import ExperienceCheckpoint
from cl_adapters.benchmarks.running.protocols import find_protocol, protocol_names
from cl_adapters.benchmarks.running.recipe import SHIFT_SUFFIX
from cl_adapters.benchmarks.streams.changes import KINDS
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.peft.growth import POLICIES
from cl_adapters.peft.registry import PEFT_NAMES
from cl_adapters.plugins.registry import Entry
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.shift import DETECTOR_NAMES
from cl_adapters.strategies import STRATEGY_NAMES
from cl_adapters.vit.embedded import EMBEDDED
from cl_adapters.vit.pretrained import BACKBONE_NAMES

__all__ = ["list_table"]

Table = list[list[str]]


def list_table(what: str, runs: Path) -> Table:
    """Returns the rows of a listing, the header first.

    Raises:
        InputError: If there is no listing of that name.
    """
    tables: Final[dict[str, Callable[[], Table]]] = {
        "strategies": _strategies,
        "streams": _streams,
        "backbones": _backbones,
        "pefts": _pefts,
        "detectors": _detectors,
        "protocols": _protocols,
        "policies": lambda: [["policy", "meaning"], *map(list, POLICIES.items())],
        "runs": lambda: _runs(runs),
    }
    if what not in tables:
        raise unknown_name("listing", what, tables)
    return tables[what]()


def _strategies() -> Table:
    rows = [["strategy", "option", "default", "meaning", "from"]]
    for entry in STRATEGY_NAMES.entries():
        rows.append([entry.name, "", "", _meaning(entry), entry.origin])
        if entry.value is not None:
            fields = entry.value.config_class.model_fields.items()
            rows += [["", key, str(each.default), each.description or ""] for key, each in fields]
    return rows


def _meaning(entry: Entry[Any]) -> str:
    """Returns the first line of what an object says about itself, or what is wrong with it."""
    if entry.value is None:
        return f"broken: {entry.problem}"
    return next(iter((entry.value.__doc__ or "").splitlines()), "")


def _streams() -> Table:
    rows = [["stream", "meaning", "from"]]
    rows += [[each.name, _meaning(each), each.origin] for each in SOURCE_NAMES.entries()]
    rows += [
        [f"{name}{SHIFT_SUFFIX}", f"Changing domains over {name}; same as --scenario shift."]
        for name in SOURCES
    ]
    kinds = ", ".join(KINDS)
    return [
        *rows,
        ["--data PATH", "An image folder or a parquet file of encoded images."],
        ["--scenario class", "New classes in each experience: --increment, --first. The default."],
        ["--scenario blurry", "New classes, some of whose images come at another time: --blur."],
        ["--scenario long_tailed", "New classes with ever fewer images: --imbalance, --tail."],
        ["--scenario repetition", "New classes, and old ones that return: --repeat."],
        ["--scenario class_domain", "One group of classes in one domain: --increment."],
        ["--scenario domain", "One value of the data's column `domain` an experience."],
        ["--scenario shift", f"All classes, and pixels that change at known points: {kinds}."],
        ["--task-free DETECTOR", "Any of these; a detector must announce where experiences begin."],
    ]


def _backbones() -> Table:
    names = [
        name for name in timm.list_models("vit_*", pretrained=True) if not name.startswith(EMBEDDED)
    ]
    return [
        ["backbone", "weights"],
        [EMBEDDED, "in the package"],
        *(
            [each.name, f"{each.origin} {each.problem and _meaning(each)}".rstrip()]
            for each in BACKBONE_NAMES.entries()
        ),
        *([name, "timm's hub or --weights"] for name in names),
    ]


def _pefts() -> Table:
    rows = [["peft", "slot", "default size", "from"]]
    for entry in PEFT_NAMES.entries():
        peft = entry.value
        what = [_meaning(entry), ""] if peft is None else [peft.slot, str(peft.default_size)]
        rows.append([entry.name, *what, entry.origin])
    return rows


def _detectors() -> Table:
    rows = [["detector", "meaning", "from"]]
    return rows + [[each.name, _meaning(each), each.origin] for each in DETECTOR_NAMES.entries()]


def _protocols() -> Table:
    rows = [["protocol", "classes", "class order", "weights", "pixels", "title"]]
    for protocol in map(find_protocol, protocol_names()):
        tags = " or ".join(name.rpartition(".")[2] for name in protocol.backbones)
        pixels = f"{protocol.pipeline}, {protocol.input_range}"
        classes = f"{protocol.classes} by {protocol.increment}"
        rows.append([protocol.name, classes, protocol.class_order, tags, pixels, protocol.title])
    return rows


def _runs(root: Path) -> Table:
    rows = [["run", "state", "experiences"]]
    for folder in find_runs([root]):
        try:
            record = RunRecord.read(folder)
            done = f"{record.experiences_done}/{len(record.experiences)}"
            rows.append([str(folder), record.state, done + _inside(folder, record)])
        except InputError as error:
            rows.append([str(folder), "broken", str(error)])
    return rows


def _inside(folder: Path, record: RunRecord) -> str:
    """Returns how much of an unfinished experience would not be done again."""
    if record.state == "finished":
        return ""
    found = ExperienceCheckpoint(folder / "checkpoints", minutes=0).begin(record.experiences_done)
    return f" and {found[1]['seconds'] / 60:.1f} min of the next" if found else ""
