"""What is written after an experience: predictions, events, a checkpoint; at last examples."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cl_adapters.benchmarks.running.examples import draw_examples
from cl_adapters.benchmarks.running.learner import Learner, Runnable
from cl_adapters.benchmarks.running.memory import peak_bytes
from cl_adapters.benchmarks.running.observer import Observer
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.buffers import count_numbers
from cl_adapters.records.event_kinds import Event
from cl_adapters.records.events import append_events, make_event
from cl_adapters.records.integrity import replace_tables, seal_events
from cl_adapters.records.learned import write_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions, table_bytes
from cl_adapters.strategies.core.views import FixedViews

__all__ = ["keep_examples", "store_experience"]


def store_experience(
    prepared: Runnable,
    record: RunRecord,
    folder: Path,
    observer: Observer,
    tables: Sequence[pd.DataFrame],
) -> None:
    """Writes what an experience brought; the record, which it prepares, has to be written next.

    A crash at any moment leaves what the record on disk knows; see `records.integrity`.

    Args:
        prepared: What is run.
        record: Its record; `experiences_done` is the experience.
        folder: The run directory.
        observer: What was measured.
        tables: All rows so far of `predictions.parquet` and of `retrieval.parquet`.
    """
    experience, strategy = record.experiences_done, prepared.strategy
    named = zip(("predictions.parquet", "retrieval.parquet"), tables, strict=True)
    rows = {name: table_bytes(name, table) for name, table in named if len(table)}
    replace_tables(folder, record, rows)
    record.parameters, counts = _count_parameters(strategy)
    seconds, images, passes = observer.evaluation
    events = [
        *_phases(strategy, observer),
        *strategy.pop_events(experience),
        _cache(strategy),
        *_truth(prepared.plan, experience),
        make_event("evaluation", seconds=seconds, images=images, passes=passes / images),
        counts,
        make_event("memory", peak_bytes=peak_bytes(strategy.device)),
    ]
    append_events(folder, (event.of_experience(experience) for event in events))
    seal_events(folder, record)
    write_checkpoint(
        folder / "checkpoints",
        experience,
        strategy.checkpoint_state(),
        strategy.classes_by_experience,
    )


def _phases(strategy: Learner, observer: Observer) -> Iterator[Event]:
    for name, (seconds, images) in (*observer.phases.items(), *strategy.timings.items()):
        losses: dict[str, Any] = (
            {"losses": observer.losses[name]} if name in observer.losses else {}
        )
        yield make_event("phase", seconds=seconds, name=name, images=images, **losses)


def _truth(plan: StreamPlan, experience: int) -> Iterator[Event]:
    """Yields what the stream knows about an experience and the strategy does not."""
    if plan.domains:
        domain: dict[str, Any] = plan.domains[experience].truth()
        yield make_event("domain", **domain)
    if plan.hidden:
        segment: Mapping[str, Any] = plan.hidden.truth[experience]
        yield make_event("segment", **segment)


def _count_parameters(strategy: Learner) -> tuple[dict[str, int], Event]:
    """Returns the numbers of the record, and the event."""
    backbone = sum(value.numel() for value in strategy.backbone.parameters())
    added = count_numbers(strategy.model, strategy.learned_state())
    trainable = sum(value.numel() for value in strategy.model.parameters() if value.requires_grad)
    event = make_event("parameters", trainable=trainable, added=added, total=backbone + added)
    return {"backbone": backbone, "added": added}, event


def _cache(strategy: Learner) -> Event:
    cache, views = strategy.cache, strategy.augmentation.views
    if cache is None:
        return make_event("cache", mode="off", read=0, computed=0, earlier_hits=0)
    cache.flush()
    read, computed, earlier_hits = cache.take_counts()
    mode = f"{views.count} fixed views" if isinstance(views, FixedViews) else "exact"
    return make_event("cache", mode=mode, read=read, computed=computed, earlier_hits=earlier_hits)


def keep_examples(prepared: Runnable, record: RunRecord, folder: Path) -> None:
    """Writes pictures of what a finished run forgot; a benchmark that is not ours has none."""
    pixels = getattr(prepared, "test_pixels", None)
    if pixels is not None:
        examples = draw_examples(read_predictions(folder), pixels)
        if len(examples):
            name = "examples.parquet"
            replace_tables(folder, record, {name: table_bytes(name, examples)})
