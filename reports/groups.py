"""Puts measured runs side by side: one group per stream and protocol, one row per method.

A row holds the seeds of one strategy with one set of options. Groups of different protocols stay
apart unless merged on demand, and then say so.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cl_adapters.plugins.registry import label as plugin_label
from cl_adapters.records.data_notes import data_sentences
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.upgrade import name_earlier_defaults
from cl_adapters.reports.experience_names import (
    experience_label,
    experience_names,
    experience_sentence,
)
from cl_adapters.reports.load import Run
from cl_adapters.reports.looks import CurveStyle, Method, method_looks
from cl_adapters.reports.seeds import Interval, mean_interval
from cl_adapters.reports.tested import batch_notes, old_image_notes

__all__ = ["Group", "Row", "clean_text", "file_name", "group_runs", "stream_names"]

# Settings beside the options that make another method of the same strategy; absent means None.
_VARIANT_KEYS: Final = ("fidelity", "precision", "augment")
_LABEL_LENGTH: Final = 60
_EXPERIENCES_LENGTH: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Row:
    """The seeds of one method on one protocol.

    Attributes:
        label: Strategy with the options that tell it from its neighbours; unique in its group.
        runs: Its runs by seed.
        protocol: Digest of the protocol.
    """

    label: str
    runs: tuple[Run, ...]
    protocol: str

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, ascending."""
        return [run.record.seed for run in self.runs]

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return self.runs[0].record.strategy

    @property
    def role(self) -> str:
        """What the strategy is to others; see `RunRecord.role`."""
        return self.runs[0].record.role

    @property
    def is_upper_bound(self) -> bool:
        """Whether the strategy sees all data at once: shown, never the winner of a comparison."""
        return self.role == "upper_bound"

    @property
    def classes_seen(self) -> list[int]:
        """Number of different classes seen after each experience."""
        seen: set[int] = set()
        return [len(seen := seen.union(each)) for each in self.runs[0].record.experiences]

    @property
    def progress(self) -> list[int]:
        """Where each experience stands on an axis: see `Group.progress_heading`."""
        seen = self.classes_seen
        brings_classes = len(set(seen)) == len(seen)
        return seen if brings_classes else list(range(1, len(seen) + 1))

    @property
    def seams(self) -> list[int]:
        """Number of experiences before each place where a run goes on with another, ascending."""
        return sorted({seam for run in self.runs for seam in run.record.seams})

    @property
    def experience_names(self) -> list[str]:
        """What each experience is called; empty where the runs differ in it."""
        return experience_names([run.record for run in self.runs])

    def interval(self, name: str) -> Interval:
        """Returns mean and interval of one column, or of `matrix`, `seen` or `forgetting`."""
        if name in self.runs[0].values:
            return mean_interval(np.array([run.values[name] for run in self.runs]))
        return mean_interval(np.stack([getattr(run, name) for run in self.runs]))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are drawn together.

    Attributes:
        stream: Name of the stream.
        slug: Start of the names of its files.
        rows: The methods, best `a_last_micro` first.
        protocols: Fingerprint by digest; more than one only if merged on demand.
        notes: What a reader must know before comparing: missing seeds, doubles, differences.
        looks: How each method looks, by label; a label looks the same in all groups of a report.
    """

    stream: str
    slug: str
    rows: tuple[Row, ...]
    protocols: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    looks: Mapping[str, CurveStyle]

    @property
    def progress_heading(self) -> str:
        """What `Row.progress` counts: classes, or experiences where not each brings new classes."""
        counts_classes = all(row.progress == row.classes_seen for row in self.rows)
        return f"Number of {'classes seen' if counts_classes else 'experiences learned'}"

    @property
    def data(self) -> list[str]:
        """What the runs say of the images that they read, each once."""
        said = [
            clean_text(sentence)
            for row in self.rows
            for run in row.runs
            for sentence in data_sentences(run.record.data)
        ]
        return list(dict.fromkeys(said))

    @property
    def experiences(self) -> str:
        """Number, name and classes of each experience, where all runs have the same."""
        records = [run.record for row in self.rows for run in row.runs]
        return clean_text(experience_sentence(records), _EXPERIENCES_LENGTH)

    @property
    def experience_names(self) -> list[str]:
        """What each experience is called; empty where runs differ in it."""
        return experience_names([run.record for row in self.rows for run in row.runs])

    def seeds_of(self, row: Row) -> str:
        """Returns how many seeds a row has, and of how many if it lacks some that others have."""
        every = {seed for each in self.rows for seed in each.seeds}
        return (
            str(len(row.seeds))
            if len(row.seeds) == len(every)
            else (f"{len(row.seeds)} of {len(every)}")
        )

    def seeds_text(self, row: Row) -> str:
        """Returns `seeds_of` in words."""
        seeds = self.seeds_of(row)
        return f"{seeds} seed{'s' * (seeds != '1')}"

    def name_of(self, row: Row) -> str:
        """Returns a row's label with its seeds, as legends and titles show it."""
        return f"{row.label}, {self.seeds_text(row)}"

    def name_among(self, row: Row) -> str:
        """Returns a row's label, with its seeds only if it lacks some: see `seeds_note`."""
        seeds = self.seeds_of(row)
        return f"{row.label}, {seeds} seeds" if " of " in seeds else row.label

    @property
    def seeds_note(self) -> str:
        """Of how many seeds a figure of all methods shows the mean."""
        every = {seed for row in self.rows for seed in row.seeds}
        others = any(len(row.seeds) < len(every) for row in self.rows)
        if len(every) == 1:
            return "1 seed"
        return f"mean over {len(every)} seeds{' unless said otherwise' if others else ''}"

    @property
    def mixed(self) -> str:
        """The mark on every table and figure that mixes protocols; empty if none does."""
        if len(self.protocols) < 2:
            return ""
        keys = ", ".join(_differing(list(self.protocols.values()))) or "experiences"
        return f"mixed protocols: {', '.join(self.protocols)} differ in {clean_text(keys)}"


def clean_text(text: str, length: int = 1000) -> str:
    """Returns text fit for a page or a figure: no control characters, cut in the middle if long.

    Example:
        >>> clean_text("long names " * 99, 16)
        'long names…ames '
    """
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    if len(shown) <= length:
        return shown
    tail = length // 3
    return f"{shown[: length - tail - 1]}\u2026{shown[-tail:]}"


def file_name(text: str) -> str:
    """Returns a harmless file name part made of the letters, digits and points of a text.

    Example:
        >>> file_name("../../x"), file_name("lae (peft=lora)")
        ('x', 'lae-peft-lora')
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower()
    return name[:_LABEL_LENGTH].strip("-.") or "unnamed"


def protocol_of(record: RunRecord) -> str:
    """Returns the short digest of a run's fingerprint and of the sizes of its experiences."""
    sizes = [len(classes) for classes in record.experiences]
    return digest({"fingerprint": record.fingerprint, "sizes": sizes}, 8)


def group_runs(runs: Iterable[Run], *, force: bool = False) -> list[Group]:
    """Sorts runs into groups.

    Args:
        runs: Finished runs.
        force: Whether to draw different protocols of one stream together, with a mark.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        protocol = "" if force else protocol_of(run.record)
        groups[run.record.stream, protocol].append(run)
    streams = [file_name(stream) for stream, _ in groups]
    built: list[Group] = []
    for (stream, protocol), members in sorted(groups.items()):
        slug = file_name(stream)
        if streams.count(slug) > 1:
            slug = f"{slug}-{digest([stream, protocol], 8) if force else protocol}"
        slug = _unused(slug, [group.slug for group in built]).replace(" #", "-")
        built.append(_build(stream, slug, members))
    looks = method_looks(_method(row) for group in built for row in group.rows)
    return [
        replace(group, looks={row.label: looks[_method(row)] for row in group.rows})
        for group in built
    ]


def stream_names(groups: Sequence[Group]) -> list[str]:
    """Returns what each group's stream is called: with its protocol where two have one name."""
    streams = [group.stream for group in groups]
    return [
        name if streams.count(name) == 1 else f"{name} @{next(iter(group.protocols))}"
        for name, group in zip(streams, groups, strict=True)
    ]


def _method(row: Row) -> Method:
    return Method(row.strategy, row.label)


def _build(stream: str, slug: str, runs: Sequence[Run]) -> Group:
    protocols = {protocol_of(run.record): run.record.fingerprint for run in runs}
    kept: dict[tuple[str, str, str], dict[int, Run]] = defaultdict(dict)
    notes: list[str] = []
    for run in sorted(runs, key=lambda run: str(run.folder)):
        record = run.record
        key = (record.strategy, digest(_variant(record)), protocol_of(record))
        first = kept[key].setdefault(record.seed, run)
        if first is not run:
            notes.append(_double(run.folder, first.folder))
    labels = _labels([next(iter(seeds.values())) for seeds in kept.values()], len(protocols) > 1)
    rows = [
        Row(label=label, protocol=key[2], runs=tuple(seeds[seed] for seed in sorted(seeds)))
        for label, (key, seeds) in zip(labels, kept.items(), strict=True)
    ]
    rows.sort(key=lambda row: (-float(row.interval("a_last_micro").mean), row.label))
    notes += _missing_seeds(rows) + _missing_experiences(rows) + _earlier_hits(rows)
    notes += old_image_notes(rows) + batch_notes(rows)
    if len(protocols) > 1:
        slug += "-mixed"
    return Group(
        stream=clean_text(stream, _LABEL_LENGTH),
        slug=slug,
        rows=tuple(rows),
        protocols=dict(sorted(protocols.items())),
        notes=tuple(clean_text(note) for note in notes),
        looks={},
    )


def _double(folder: Path, first: Path) -> str:
    return f"Left out: {folder}, same strategy, options and seed as {first}."


def _missing_seeds(rows: Sequence[Row]) -> list[str]:
    every = {seed for row in rows for seed in row.seeds}
    notes = []
    for row in rows:
        lacking = sorted(every - set(row.seeds))
        if lacking:
            names = ", ".join(map(str, lacking))
            plural = "s" if len(lacking) > 1 else ""
            notes.append(f"{row.label} lacks seed{plural} {names}, which other methods here have.")
    return notes


def _earlier_hits(rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in rows:
        seeds = [run.record.seed for run in row.runs if run.earlier_hits > 0]
        if seeds:
            plural = "s" if len(seeds) > 1 else ""
            notes.append(
                f"{row.label}, seed{plural} {', '.join(map(str, seeds))}: the cache held features "
                "that earlier runs had computed; its seconds are shorter than those of a first run."
            )
    return notes


def _missing_experiences(rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in rows:
        for run in row.runs:
            lacking = [
                experience_label(t + 1, run.experience_names[t], 40)
                for t in np.flatnonzero(np.isnan(run.seen)).tolist()
            ]
            if lacking:
                notes.append(
                    f"{row.label}, seed {run.record.seed}, was not evaluated after experience "
                    f"{', '.join(lacking)}; its averages are over the others."
                )
    return notes


def _variant(record: RunRecord) -> dict[str, Any]:
    settings = {key: record.config.get(key) for key in _VARIANT_KEYS} | _files(record)
    return {"options": record.config.get("options", {}), "settings": settings}


def _files(record: RunRecord) -> dict[str, str]:
    # A plugin's file makes another method when it changes, and none when it moves; that of the
    # images does neither, since the protocol holds their checksum.
    plugins = record.config.get("plugins", {})
    if not isinstance(plugins, dict):
        return {}
    sets = record.config.get("datasets") or ()
    images = {each.get("data") for each in sets if isinstance(each, dict)}
    images.add(record.config.get("data") or record.config.get("stream"))
    names = {name: plugin_label(str(name)) for name in plugins if name not in images}
    return {
        "file" if label == record.strategy else f"file of {label}": str(plugins[name])[:8]
        for name, label in sorted(names.items())
    }


def _differing(tables: Sequence[dict[str, Any]]) -> list[str]:
    keys = sorted({key for table in tables for key in table})
    missing = object()
    return [
        key
        for key in keys
        if any(t.get(key, missing) != tables[0].get(key, missing) for t in tables)
    ]


def _labels(runs: Sequence[Run], is_mixed: bool) -> list[str]:  # noqa: FBT001
    labels: list[str] = []
    for run in runs:
        strategy = run.record.strategy
        tables = [_flat(other.record) for other in runs if other.record.strategy == strategy]
        mine, differing = _flat(run.record), _differing(tables)
        parts, named = name_earlier_defaults(strategy, mine, differing)
        kept = [key for key in differing if mine.get(key) is not None and key not in named]
        parts += [f"{key}={_shown(mine[key])}" for key in kept]
        label = f"{strategy} ({', '.join(parts)})" if parts else strategy
        label += f" @{protocol_of(run.record)}" if is_mixed else ""
        labels.append(_unused(clean_text(label, _LABEL_LENGTH), labels))
    return labels


def _unused(name: str, taken: Sequence[str]) -> str:
    copies = (f"{name} #{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(copy for copy in copies if copy not in taken)


def _flat(record: RunRecord) -> dict[str, Any]:
    variant = _variant(record)
    flat: dict[str, Any] = variant["options"] | {
        key: value for key, value in variant["settings"].items() if key not in variant["options"]
    }
    return flat


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
