"""What is written after an experience: predictions, events, a checkpoint; at last examples."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cl_adapters.benchmarks.running.checkpoints import write_checkpoint
from cl_adapters.benchmarks.running.examples import draw_examples
from cl_adapters.benchmarks.running.learner import Learner, Runnable
from cl_adapters.benchmarks.running.memory import peak_bytes
from cl_adapters.benchmarks.running.observer import Observer
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.records.events import append_event, append_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import (
    read_predictions,
    write_examples,
    write_predictions,
    write_retrieval,
)
from cl_adapters.strategies.core.views import FixedViews

__all__ = ["keep_examples", "store_experience"]


def store_experience(
    prepared: Runnable,
    record: RunRecord,
    folder: Path,
    observer: Observer,
    tables: Sequence[pd.DataFrame],
) -> None:
    """Writes what an experience brought, but for the record, whose parameters it counts.

    Args:
        prepared: What is run.
        record: Its record; `experiences_done` is the experience.
        folder: The run directory.
        observer: What was measured.
        tables: All rows so far of `predictions.parquet` and of `retrieval.parquet`.
    """
    predictions, retrieval = tables
    experience, strategy = record.experiences_done, prepared.strategy
    write_predictions(folder, predictions)
    if len(retrieval):
        write_retrieval(folder, retrieval)
    _store_phases(strategy, folder, experience, observer)
    append_events(folder, strategy.pop_events(experience))
    _store_cache(strategy, folder, experience)
    _store_truth(prepared.plan, folder, experience)
    seconds, images, passes = observer.evaluation
    append_event(folder, "evaluation", experience, seconds, images=images, passes=passes / images)
    record.parameters = _store_parameters(strategy, folder, experience)
    append_event(folder, "memory", experience, 0, peak_bytes=peak_bytes(strategy.device))
    write_checkpoint(folder / "checkpoints", experience, strategy.learned_state())


def _store_phases(strategy: Learner, folder: Path, experience: int, observer: Observer) -> None:
    for name, (seconds, images) in (*observer.phases.items(), *strategy.timings.items()):
        losses = {"losses": observer.losses[name]} if name in observer.losses else {}
        append_event(folder, "phase", experience, seconds, name=name, images=images, **losses)


def _store_truth(plan: StreamPlan, folder: Path, experience: int) -> None:
    """Writes what the stream knows about an experience and the strategy does not."""
    if plan.domains:
        append_event(folder, "domain", experience, 0, **plan.domains[experience].truth())
    if plan.hidden:
        append_event(folder, "segment", experience, 0, **plan.hidden.truth[experience])


def _store_parameters(strategy: Learner, folder: Path, experience: int) -> dict[str, int]:
    """Returns the numbers of the record."""
    backbone = sum(value.numel() for value in strategy.backbone.parameters())
    added = sum(value.numel() for value in strategy.learned_state().values())
    trainable = sum(value.numel() for value in strategy.model.parameters() if value.requires_grad)
    counts = {"trainable": trainable, "added": added, "total": backbone + added}
    append_event(folder, "parameters", experience, 0, **counts)
    return {"backbone": backbone, "added": added}


def _store_cache(strategy: Learner, folder: Path, experience: int) -> None:
    cache, views = strategy.cache, strategy.views
    if cache is None:
        append_event(folder, "cache", experience, 0, mode="off", read=0, computed=0, inherited=0)
        return
    cache.flush()
    read, computed, inherited = cache.take_counts()
    counts = {"read": read, "computed": computed, "inherited": inherited}
    mode = f"{views.count} fixed views" if isinstance(views, FixedViews) else "exact"
    append_event(folder, "cache", experience, 0, mode=mode, **counts)


def keep_examples(prepared: Runnable, folder: Path) -> None:
    """Writes pictures of what a finished run forgot; a benchmark that is not ours has none."""
    pixels = getattr(prepared, "test_pixels", None)
    if pixels is not None:
        examples = draw_examples(read_predictions(folder), pixels)
        if len(examples):
            write_examples(folder, examples)
