"""Runs against published results: ours, theirs, the gap, and whether it is within tolerance.

A run is compared with a published number only if its fingerprint is that of the number's protocol
and it has the options that the number is of; any other run is listed with the parts that differ.
Metrics come measured, so that this module and the reports cannot disagree about one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from cl_adapters.benchmarks.running.protocols import Protocol as Published
from cl_adapters.benchmarks.running.protocols import find_protocol, protocol_names
from cl_adapters.benchmarks.running.references import Reference, other_options, references
from cl_adapters.benchmarks.streams.class_incremental import class_order
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord

__all__ = ["Cell", "Measured", "Verification", "differences", "verify"]

# Of a run's fingerprint: all that a protocol says, and two names that say nothing about the result.
_KNOWN: Final = frozenset(
    {"stream", "data", "class_order", "class_names", "experiences", "backbone", "weights", "pixels"}
)


class Measured(Protocol):
    """A finished run with its metrics by name, as the reports load it."""

    @property
    def folder(self) -> Path:
        """The run directory."""

    @property
    def record(self) -> RunRecord:
        """What stands in `run.json`."""

    @property
    def values(self) -> Mapping[str, float]:
        """Metrics by name, in percent."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One published number beside ours.

    Attributes:
        reference: The published number.
        label: Our strategy with the settings that make it another method.
        ours: Mean over our seeds, in percent.
        num_seeds: Number of our seeds.
    """

    reference: Reference
    label: str
    ours: float
    num_seeds: int

    @property
    def gap(self) -> float:
        """Ours minus theirs, in points."""
        return self.ours - self.reference.value

    @property
    def is_within(self) -> bool:
        """Whether the gap is within tolerance; the comparison is of numbers with two digits."""
        return round(abs(self.gap), 2) <= self.reference.tolerance

    @property
    def verdict(self) -> str:
        """Says whether the gap is within tolerance, and what about that is uncertain."""
        word = "within" if self.is_within else "outside"
        doubt = self.reference.unverified
        return f"{word}, unverified ({doubt})" if doubt else word


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of a comparison.

    Attributes:
        cells: Every published number that a run could be compared with.
        left_out: Run directories that were not compared, each with the reason.
    """

    cells: tuple[Cell, ...]
    left_out: tuple[tuple[Path, str], ...]

    @property
    def is_good(self) -> bool:
        """Whether every gap to a certain number is within its tolerance."""
        return all(cell.is_within or cell.reference.unverified for cell in self.cells)

    def table(self) -> list[list[str]]:
        """Returns the rows of the table of cells, the header first."""
        rows = [
            [
                "protocol", "weights", "method", "metric", "ours", "seeds", "theirs", "gap",
                "tolerance", "verdict", "source",
            ]
        ]  # fmt: skip
        for cell in self.cells:
            theirs = cell.reference
            tag = theirs.backbone.rpartition(".")[2] or "not stated"
            numbers = (f"{cell.ours:.2f}", str(cell.num_seeds), f"{theirs.value:.2f}")
            gap = (f"{cell.gap:+.2f}", f"{theirs.tolerance:g}", cell.verdict, theirs.source)
            rows.append([theirs.protocol, tag, cell.label, theirs.metric, *numbers, *gap])
        return rows


def differences(record: RunRecord, protocol: Published) -> list[str]:
    """Returns the parts in which a run's fingerprint is not that of a protocol; empty if equal.

    Compared are the number of classes and of images, the class order by the names of the classes,
    the experiences, the backbone and the pixels. Weights count as those of the backbone's tag
    unless they are random: their digest stands in the record.
    """
    found = record.fingerprint
    parts = _data(found, protocol)
    if not parts:
        parts += _order(record, protocol)
    if found.get("experiences") != protocol.sizes:
        parts.append(f"experiences: {found.get('experiences')} instead of {protocol.sizes}")
    if found.get("backbone") not in protocol.backbones:
        wanted = " or ".join(protocol.backbones)
        parts.append(f"backbone: {found.get('backbone')} instead of {wanted}")
    if record.config.get("weights") == "random":
        parts.append("weights: random instead of the backbone's")
    parts += _pixels(found, protocol)
    return parts + _rest(found, protocol)


def _data(found: Mapping[str, Any], protocol: Published) -> list[str]:
    data = _mapping(found.get("data"))
    pairs = [
        ("classes", data.get("classes"), protocol.classes),
        ("train images", _mapping(data.get("train")).get("images"), protocol.train_images),
        ("test images", _mapping(data.get("test")).get("images"), protocol.test_images),
    ]
    return [
        f"{name}: {value} instead of {wanted}"
        for name, value, wanted in pairs
        if wanted is not None and value != wanted
    ]


def _order(record: RunRecord, protocol: Published) -> list[str]:
    # The authors number classes by the text of their names. A parquet file brings numbers along,
    # and there the rule alone must be right.
    names = sorted(record.classes)
    order = class_order(protocol.class_order, protocol.classes)
    by_name = len(names) == len(order) and record.classes == [names[place] for place in order]
    rule = record.fingerprint.get("class_order")
    is_table = str(record.config.get("data")).endswith(".parquet")
    if by_name or (is_table and rule == protocol.class_order):
        return []
    shown = rule if isinstance(rule, str) and rule != protocol.class_order else "another"
    return [f"class order: {shown} instead of {protocol.class_order}"]


def _pixels(found: Mapping[str, Any], protocol: Published) -> list[str]:
    pixels = _mapping(found.get("pixels"))
    # The range `timm` is whatever the network's own configuration says.
    mean, std = (tuple(pixels.get(name, (0.0, 0.0, 0.0))) for name in ("mean", "std"))
    wanted = protocol.pixels(mean, std)
    return [
        f"pixels.{name}: {pixels.get(name)} instead of {wanted.get(name)}"
        for name in sorted({*pixels, *wanted})
        if pixels.get(name) != wanted.get(name)
    ]


def _rest(found: Mapping[str, Any], protocol: Published) -> list[str]:
    """Returns what a fingerprint says beyond what every run does: of domains, or nothing."""
    wanted: dict[str, object] = {}
    if protocol.domains:  # which image is of which domain is not known of the published runs
        wanted = {"scenario": "domain", "domain_order": list(protocol.domains)}
    known = _KNOWN | ({"domains_sha256"} if protocol.domains else set())
    return [
        f"{name}: {found.get(name, 'none')} instead of {wanted.get(name, 'none')}"
        for name in sorted({*found, *wanted} - known)
        if name not in found or found[name] != wanted.get(name)
    ]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def verify(runs: Sequence[Measured]) -> Verification:
    """Compares runs with every published number of their protocol, strategy, options and backbone.

    Args:
        runs: Finished runs.
    """
    groups: dict[tuple[str, str], dict[int, Measured]] = defaultdict(dict)
    left_out: list[tuple[Path, str]] = []
    for run in sorted(runs, key=lambda run: str(run.folder)):
        matching = [name for name in protocol_names() if _follows(run.record, name)]
        reason = _why_not(run.record, matching)
        for name in matching:
            first = groups[name, _variant(run.record)].setdefault(run.record.seed, run)
            if first is not run:
                reason = f"same protocol, method and seed as {first.folder}"
        if reason:
            left_out.append((run.folder, reason))
    cells = [cell for (name, _), seeds in groups.items() for cell in _cells(name, seeds)]
    return Verification(cells=tuple(sorted(cells, key=_place)), left_out=tuple(left_out))


def _follows(record: RunRecord, name: str) -> bool:
    return not differences(record, find_protocol(name))


def _why_not(record: RunRecord, matching: Sequence[str]) -> str:
    """Returns why a run is not compared, or not with the protocol that it names; else nothing."""
    named = record.config.get("protocol")
    if named in protocol_names() and named not in matching:
        parts = differences(record, find_protocol(named))
        return f"is not as its protocol {named}: {'; '.join(parts)}"
    if matching:
        return _no_row(record, matching)
    near = min(protocol_names(), key=lambda name: len(differences(record, find_protocol(name))))
    if find_protocol(near).classes != len(record.classes):
        return "follows no protocol"
    parts = differences(record, find_protocol(near))
    return f"follows no protocol; the nearest, {near}, differs in {'; '.join(parts)}"


def _no_row(record: RunRecord, matching: Sequence[str]) -> str:
    """Returns why a run that follows protocols meets no published number; else nothing."""
    rows = [row for name in matching for row in references() if _is_of(row, record, name)]
    if not rows:
        return f"no published result of {record.strategy} for {matching[0]}"
    near = min(rows, key=lambda row: len(other_options(row, record)))
    parts = other_options(near, record)
    if not parts:
        return ""
    return (
        f"no published result of {record.strategy} with its options for {near.protocol}; "
        f"the nearest, {near.method}, differs in {'; '.join(parts)}"
    )


def _is_of(row: Reference, record: RunRecord, protocol: str) -> bool:
    is_same = (row.strategy, row.protocol) == (record.strategy, protocol)
    return is_same and row.backbone in ("", record.fingerprint["backbone"])


def _fits(row: Reference, record: RunRecord, protocol: str) -> bool:
    return _is_of(row, record, protocol) and not other_options(row, record)


def _variant(record: RunRecord) -> str:
    """Returns what tells methods apart: not the seed, nor where and how fast it was computed."""
    found = record.fingerprint
    return digest([_label(record), found["backbone"], found["weights"], found["data"]])


def _label(record: RunRecord) -> str:
    config = record.config
    options = [f"{name}={value}" for name, value in sorted(config.get("options", {}).items())]
    usual = (("fidelity", "default"), ("precision", "fp32"))
    parts = [str(config[name]) for name, value in usual if config.get(name, value) != value]
    return (
        f"{record.strategy} ({', '.join(parts + options)})" if parts + options else record.strategy
    )


def _cells(protocol: str, seeds: Mapping[int, Measured]) -> Iterable[Cell]:
    record = next(iter(seeds.values())).record
    for row in references():
        if not _fits(row, record, protocol):
            continue
        ours = [run.values.get(row.metric, math.nan) for run in seeds.values()]
        if not any(map(math.isnan, ours)):
            yield Cell(
                reference=row,
                label=_label(record),
                ours=math.fsum(ours) / len(ours),
                num_seeds=len(ours),
            )


def _place(cell: Cell) -> tuple[int, str, str, str]:
    row = cell.reference
    return protocol_names().index(row.protocol), cell.label, row.metric, row.source
