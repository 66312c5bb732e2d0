"""The streams and the published settings."""

from pathlib import Path

from cl_adapters.benchmarks.data.sources import SOURCE_NAMES
from cl_adapters.benchmarks.listing.meanings import first_line, meaning
from cl_adapters.benchmarks.running.protocols import find_protocol, protocol_names
from cl_adapters.benchmarks.running.recipe import SHIFT_SUFFIX
from cl_adapters.benchmarks.running.recipe_parts import SCENARIOS, TaskFree

__all__ = ["protocols_table", "streams_table"]


def streams_table(_: Path) -> list[list[str]]:
    """Returns the sources, and what can be made of each."""
    rows = [["stream", "meaning", "from"]]
    rows += [[each.name, meaning(each), each.origin] for each in SOURCE_NAMES.entries()]
    rows += [
        [f"{name}{SHIFT_SUFFIX}", f"Changing domains over {name}; same as --scenario shift."]
        for name in SOURCE_NAMES.built_in
    ]
    rows += [["--data PATH", "An image folder or a parquet file of encoded images."]]
    for name, kind in SCENARIOS.items():
        options = [f"--{key.replace('_', '-')}" for key in kind.model_fields if key != "scenario"]
        rows += [[f"--scenario {name}", f"{first_line(kind)[:-1]}: {', '.join(options)}."]]
    return [*rows, ["--task-free DETECTOR", f"Any of these. {first_line(TaskFree)}"]]


def protocols_table(_: Path) -> list[list[str]]:
    """Returns a row a published setting."""
    rows = [["protocol", "classes", "class order", "weights", "pixels", "title"]]
    for protocol in map(find_protocol, protocol_names()):
        tags = " or ".join(name.rpartition(".")[2] for name in protocol.backbones)
        pixels = f"{protocol.pipeline}, {protocol.input_range}"
        classes = f"{protocol.classes} by {protocol.increment or 'domain'}"
        rows.append([protocol.name, classes, protocol.class_order, tags, pixels, protocol.title])
    return rows
