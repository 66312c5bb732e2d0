"""What `predict --reject --watch` does: `python -m ...benchmarks.maintenance.unknown_rates DATA`.

DATA is the folder that `maintenance.unknown` reads. A strategy learns the known classes of a task
and is calibrated on their training images. Then

    rejection   the share of known test images that are rejected at each rate, beside the rate, and
                of strangers
    watch       the blocks that look shifted in folders: the known test images (and, of folders of
                100 of them that chance draws, the share in which any block does), other domains,
                and copies with changed pixels (`benchmarks/streams/changes.py`)

The tasks are those of `maintenance.unknown`, and `photos`: PACS' photos, beside the other domains.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer

from cl_adapters.benchmarks.calibration import calibrate_on, known_images
from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.quick_look import quick_look
from cl_adapters.benchmarks.data.sources import parquet_source
from cl_adapters.benchmarks.data.stores import ChangedStore
from cl_adapters.benchmarks.maintenance.unknown import Task, of_domains, prepared_for, some, tasks
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.streams.changes import KINDS, KindOfChange
from cl_adapters.bundle.model import Answers, LearnedModel
from cl_adapters.bundle.sheet import Sheet
from cl_adapters.bundle.watching import Seen
from cl_adapters.errors import InputError

__all__ = ["learned_model", "rejection_rows", "side_by_side", "watch_rows"]

RATES: Final = (0.02, 0.05, 0.1)
_FOLDERS: Final = 50  # that chance draws
_SIZE: Final = 100  # images of each
_BATCH: Final = 64


def learned_model(task: Task, strategy: str, seed: int) -> LearnedModel:
    """Returns a model that has learned the known classes of a task, calibrated."""
    prepared = prepared_for(task, strategy, seed)
    torch.manual_seed(seed)
    for experience in prepared.benchmark().train_stream:
        prepared.strategy.train(experience)
    learned = prepared.strategy.classes_by_experience
    sheet = Sheet.of_run(prepared.record, learned, "")
    pixels = replace(prepared.preprocess, as_bytes=True)
    model = LearnedModel(sheet, prepared.strategy, pixels)
    calibrate_on(known_images(prepared, len(learned)), model)
    return model


def _answered(model: LearnedModel, images: LabelledImages, seen: Seen | None = None) -> Answers:
    parts = []
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // _BATCH)):
        inputs = torch.stack([model.prepared(images.read(int(row))) for row in rows])
        parts.append(model.answer(inputs, reject=0.1, seen=seen))
    return Answers.joined(parts)


def rejection_rows(task: Task, strategy: str, model: LearnedModel) -> Iterator[list[str]]:
    """Yields a row of the table of rejection."""
    scores = [_answered(model, each).score for each in (task.known.test, task.strangers)]
    cells = []
    for rate in RATES:
        threshold = model.threshold(rate)
        shares = [100 * np.mean(each > threshold) for each in scores if each is not None]
        cells.append(f"{shares[0]:.1f} / {shares[1]:.0f}")
    held_out = len(model.calibration.rejection.held_out) if model.calibration else 0
    yield [task.name, strategy, str(held_out), *cells]


def watch_rows(task: Task, strategy: str, model: LearnedModel) -> Iterator[list[str]]:
    """Yields the rows of the table of shifts."""
    folders = {"known test images": task.known.test, **_other_domains(task), **_changed(task)}
    for name, images in folders.items():
        seen = Seen()
        _answered(model, images, seen)
        yield [task.name, strategy, name, str(len(images)), *_verdict(model, seen)]
        if images is task.known.test:
            share = f"{100 * _alarms(model, seen):.0f} % of {_FOLDERS} folders"
            yield [task.name, strategy, "drawn from them", str(_SIZE), share, ""]


def _verdict(model: LearnedModel, seen: Seen) -> list[str]:
    verdicts = model.watch.judge(seen) if model.watch else []
    shifted = ", ".join(str(each.block) for each in verdicts if each.is_shifted)
    scores = ", ".join(f"{each.all.score:.1f}" for each in verdicts)
    return [shifted or "none", scores]


def _alarms(model: LearnedModel, seen: Seen) -> float:
    fired, watch = 0, model.watch
    if watch is None:
        return 0.0
    for folder in range(_FOLDERS):
        source = torch.Generator().manual_seed(folder)
        rows = torch.randperm(seen.images, generator=source)[:_SIZE]
        drawn = Seen()
        drawn.add({block: seen.tokens(block)[rows] for block in watch.blocks})
        fired += any(each.is_shifted for each in watch.judge(drawn))
    return fired / _FOLDERS


def _other_domains(task: Task) -> Mapping[str, LabelledImages]:
    domains = task.strangers.domains
    if domains is None:
        return {"strangers": task.strangers}
    return {
        str(name): task.strangers.take(np.flatnonzero(domains == name))
        for name in np.unique(domains)
    }


def _changed(task: Task) -> Mapping[str, LabelledImages]:
    few = some(task.known.test, 200)
    return {
        f"{kind} {severity}": replace(
            few, store=ChangedStore(few.store, KindOfChange(kind, severity))
        )
        for kind in KINDS
        for severity in (0.5, 1.0)
    }


def side_by_side(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns a table with a column for each strategy.

    Args:
        rows: What `watch_rows` yields.
    """
    strategies = list(dict.fromkeys(row[1] for row in rows))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for task, strategy, folder, images, shifted, scores in rows:
        cell = f"{shifted} ({scores})" if scores else shifted
        found.setdefault((task, folder, images), {})[strategy] = cell
    body = [[*key, *(cells.get(each, "") for each in strategies)] for key, cells in found.items()]
    return [["known", "folder", "images", *strategies], *body]


def _photos(data: Path) -> Task:
    drawings = parquet_source(data / "pacs_160.parquet")
    known = quick_look(of_domains(drawings, ("photo",)), None, 60)
    others = of_domains(drawings, ("art_painting", "cartoon", "sketch")).test
    return Task("photos", known, some(others, 600), {"increment": 2})


def main(
    data: Path,
    strategies: Annotated[str, typer.Option(help="names, with commas")] = "simplecil,sema",
    seed: int = 0,
) -> None:
    """Prints both tables."""
    rejection = [["task", "strategy", "held out", *(f"{100 * rate:g} %" for rate in RATES)]]
    watch: list[list[str]] = []
    try:
        for task in (*tasks(data, seed), _photos(data)):
            for name in strategies.split(","):
                typer.echo(f"{task.name} {name}", err=True)
                model = learned_model(task, name, seed)
                rejection += rejection_rows(task, name, model)
                if task.name in ("signs", "photos"):
                    watch += watch_rows(task, name, model)
    except InputError as error:
        typer.echo(f"unknown_rates: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{markdown_table(rejection)}\n{markdown_table(side_by_side(watch))}")


if __name__ == "__main__":
    typer.run(main)
