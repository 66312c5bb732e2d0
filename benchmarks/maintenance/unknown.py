"""How well scores tell strangers: `python -m cl_adapters.benchmarks.maintenance.unknown DATA`.

DATA is a folder with `gtsrb_64.parquet`, `omniglot_small.parquet`, `cifar100_120.parquet` and
`pacs_160.parquet`. Three tasks:

    signs     known: GTSRB; strangers: Omniglot's characters
    halves    known: 50 classes of CIFAR-100, drawn by the seed; strangers: the 50 others
    domains   known: PACS, photo and then art; strangers: the same classes as cartoon and sketch

Strategies learn the known classes in five experiences (domains: two). A fifth of the training
images keeps out of the scores' statistics, as in a calibration. Scores are compared on test images
of the known classes and on about as many strangers, by AUROC and by the share of strangers that
pass where 95 % of the known images pass.

The default was chosen by a rule that was fixed before: the score with the best AUROC, the mean of
tasks, seeds and strategies, on one half of the test images, which their digests draw. The numbers
shown are those of the other half.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import typer
from sklearn.metrics import roc_auc_score
from torch import Tensor

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages, split_off
from cl_adapters.benchmarks.data.quick_look import quick_look
from cl_adapters.benchmarks.data.sources import parquet_source
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.prepare import PreparedRun, open_backbone, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.heads.unknown import SCORES, make_score
from cl_adapters.peft.routing import SlotRecord
from cl_adapters.shift.zscore import DescriptorZScore
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.sema import SEMAModel

__all__ = [
    "Point",
    "Task",
    "chosen",
    "compare",
    "of_domains",
    "prepared_for",
    "some",
    "tables",
    "tasks",
    "told_apart",
]

STRATEGIES: Final = ("simplecil", "ranpac", "finetune", "sema", "mos")
HELD_OUT: Final = 0.2
_BATCH: Final = 64
_TPR: Final = 0.95


@dataclass(frozen=True, eq=False)
class Task:
    """Known classes and strangers.

    Attributes:
        name: For tables.
        known: Train and test images of the known classes.
        strangers: Test images of others.
        recipe: Keys of the stream.
    """

    name: str
    known: ImageSource
    strangers: LabelledImages
    recipe: dict[str, Any]


class Point(NamedTuple):
    """What one score did for one strategy.

    Attributes:
        task, strategy, seed, score: What it was; without strategy, of the frozen features.
        half: `choosing` or `shown`.
        auroc: In [0, 1]; 0.5 is chance.
        fpr: Share of strangers that pass where 95 % of the known images pass.
    """

    task: str
    strategy: str
    seed: int
    score: str
    half: str
    auroc: float
    fpr: float


# --- images --------------------------------------------------------------------------------------


def tasks(data: Path, seed: int) -> Iterator[Task]:
    """Yields the three tasks, small enough for a laptop."""
    signs = quick_look(parquet_source(data / "gtsrb_64.parquet"), None, 20)
    signs = replace(signs, test=some(signs.test, 430))
    characters = parquet_source(data / "omniglot_small.parquet").test
    yield Task("signs", signs, some(characters, 430), {"increment": 9, "first": 7})
    pictures = quick_look(parquet_source(data / "cifar100_120.parquet"), None, 20)
    order = np.random.default_rng(seed).permutation(len(pictures.classes))
    halves = [_of_classes(pictures, np.sort(part)) for part in np.split(order, 2)]
    yield Task("halves", halves[0], some(halves[1].test, 430), {"increment": 10})
    drawings = parquet_source(data / "pacs_160.parquet")
    known = quick_look(of_domains(drawings, ("photo", "art_painting")), None, 60)
    others = of_domains(drawings, ("cartoon", "sketch")).test
    recipe = {"scenario": "domain", "domain_order": "photo,art_painting"}
    yield Task("domains", replace(known, test=some(known.test, 430)), some(others, 430), recipe)


def some(images: LabelledImages, count: int) -> LabelledImages:
    """Returns images that their digests draw, in their order."""
    ranks = np.argsort(np.array(images.digests, dtype=object), kind="stable")
    return images.take(np.sort(ranks[:count]))


def _of_classes(source: ImageSource, kept: npt.NDArray[np.int64]) -> ImageSource:
    names = tuple(source.classes[label] for label in kept)

    def part(images: LabelledImages) -> LabelledImages:
        found = images.take(np.flatnonzero(np.isin(images.targets, kept)))
        return replace(found, targets=np.searchsorted(kept, found.targets), classes=names)

    return replace(source, classes=names, train=part(source.train), test=part(source.test))


def of_domains(source: ImageSource, kept: Sequence[str]) -> ImageSource:
    """Returns the images of some domains."""

    def part(images: LabelledImages) -> LabelledImages:
        names = np.asarray(images.domains)
        return images.take(np.flatnonzero(np.isin(names, kept)))

    return replace(source, train=part(source.train), test=part(source.test))


# --- scores --------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """The network's inputs, (N, 3, S, S), of the images of a task.

    Attributes:
        kept: Training images that the scores' statistics come from; `labels` (N,) are theirs.
        known, strangers: What is told apart.
    """

    kept: Tensor
    labels: Tensor
    known: Tensor
    strangers: Tensor


def compare(task: Task, strategies: Sequence[str], seed: int) -> Iterator[Point]:
    """Yields what each score tells: those of features once, those of logits by strategy."""
    runs = [prepared_for(task, name, seed) for name in strategies]
    shown, backbone = _shown_images(task, runs[0]), runs[0].backbone.model
    features = [_rows(backbone, each) for each in (shown.kept, shown.known, shown.strangers)]
    values = {
        name: [compute(each) for each in features[1:]]
        for name, compute in fitted(features[0], shown.labels).items()
    }
    yield from _points(task, "", seed, values)
    for name, prepared in zip(strategies, runs, strict=True):
        typer.echo(f"{task.name} seed {seed} {name}", err=True)
        torch.manual_seed(seed)
        for experience in prepared.benchmark().train_stream:
            prepared.strategy.train(experience)
        asked = [_answered(prepared, each) for each in (shown.known, shown.strangers)]
        yield from _points(task, name, seed, {key: [one[key] for one in asked] for key in asked[0]})


def prepared_for(task: Task, strategy: str, seed: int) -> PreparedRun:
    """Returns a strategy over the known classes of a task, which has learned nothing yet.

    SEMA in slots, whose detectors judge single images without their labels.
    """
    recipe = {"strategy": strategy, "seed": seed, "class_order": "seeded", **task.recipe}
    recipe["options"] = SLOTS if strategy == "sema" else {}
    config = RunConfig.parse({**recipe, "device": "cpu", "threads": 1})
    return prepare(config, source=task.known, backbone=open_backbone(config))


def _shown_images(task: Task, prepared: PreparedRun) -> Shown:
    def inputs(images: LabelledImages) -> Tensor:
        found = [prepared.preprocess.evaluate(images.read(index)) for index in range(len(images))]
        return torch.stack(found)

    kept, _ = split_off(task.known.train, HELD_OUT)
    labels = torch.from_numpy(prepared.plan.positions(kept))
    return Shown(inputs(kept), labels, inputs(task.known.test), inputs(task.strangers))


@torch.no_grad()
def _rows(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([compute(part) for part in torch.split(images, _BATCH)])


def fitted(features: Tensor, labels: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Returns all scores of features with the statistics of some known images.

    Shape:
        features: (N, D). labels: (N,).
    """
    scores = {name: make_score(name, features.shape[1]) for name in SCORES}
    found = {name: score for name, score in scores.items() if score.reads == "features"}
    for score in found.values():
        score.add(features, labels)
    descriptor = DescriptorZScore(features.shape[1])
    descriptor.fit(features)
    return {**found, "descriptor": descriptor.z_scores}


def _answered(prepared: PreparedRun, images: Tensor) -> dict[str, Tensor]:
    """Returns the scores of the strategy's logits, (B,) each; of SEMA's own detectors as well."""
    model = prepared.strategy.model.eval()
    logits = _rows(lambda part: as_output(model(part)).logits, images)
    found = {
        name: make_score(name, 1)(logits) for name, kind in SCORES.items() if kind.reads == "logits"
    }
    if isinstance(model, SEMAModel):
        found["SEMA's detectors"] = _rows(partial(_least_surprise, model), images)
    return found


def _least_surprise(model: SEMAModel, images: Tensor) -> Tensor:
    """Returns the z of the least surprised detector of each block, the mean of all blocks, (B,)."""
    record: dict[int, SlotRecord] = {}
    model.features(images, record)
    blocks = []
    for block, seen in record.items():
        detectors = cast("list[DescriptorZScore]", model.detectors.of(block))
        found = [each.z_scores(seen.mean_tokens) for each in detectors]
        blocks.append(torch.stack(found).amin(dim=0))
    return torch.stack(blocks).mean(dim=0)


def _points(
    task: Task, strategy: str, seed: int, values: Mapping[str, Sequence[Tensor]]
) -> Iterator[Point]:
    images = task.known.test, task.strangers
    chooses = [np.array([_chooses(each) for each in part.digests]) for part in images]
    for name, scores in values.items():
        for half, wanted in (("choosing", True), ("shown", False)):
            parts = [
                each.double().numpy()[mask == wanted]
                for each, mask in zip(scores, chooses, strict=True)
            ]
            yield Point(task.name, strategy, seed, name, half, *told_apart(*parts))


def _chooses(digest: bytes) -> bool:
    return hashlib.sha256(b"half" + digest).digest()[0] % 2 == 0


def told_apart(
    known: npt.NDArray[np.float64], strangers: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Returns the AUROC, and the share of strangers that pass where 95 % of the known pass.

    Shape:
        known: (N,). strangers: (M,).

    Example:
        >>> told_apart(np.arange(20.0), np.array([5.0, 18.5, 30.0, 40.0]))
        (0.80625, 0.25)
    """
    targets = np.repeat([0, 1], [len(known), len(strangers)])
    auroc = roc_auc_score(targets, np.concatenate([known, strangers]))
    threshold = np.quantile(known, _TPR, method="inverted_cdf")
    return float(auroc), float((strangers <= threshold).mean())


# --- tables --------------------------------------------------------------------------------------


def chosen(points: Sequence[Point]) -> dict[str, float]:
    """Returns the mean AUROC of each score on the choosing half, the best first."""
    found = defaultdict(list)
    for each in points:
        if each.half == "choosing" and each.score in (*SCORES, "descriptor"):
            found[each.score].append(each.auroc)
    means = {name: fmean(values) for name, values in found.items()}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))


def tables(points: Sequence[Point]) -> str:
    """Returns the shown half in Markdown: by task and score, the mean of strategies and seeds."""
    means = chosen(points)
    names = list(dict.fromkeys(each.task for each in points))
    ranked = [*means, *dict.fromkeys(each.score for each in points if each.score not in means)]
    head = ["score", *names, "mean", "choosing half"]
    rows = [head]
    for score in ranked:
        parts = [[p for p in _shown(points, score) if p.task == name] for name in names]
        rows.append(
            [score, *map(_cell, parts), _cell(_shown(points, score)), _number(means.get(score))]
        )
    by_strategy = [["score", *dict.fromkeys(each.strategy for each in points if each.strategy)]]
    for score in (each for each in ranked if each in SCORES and SCORES[each].reads == "logits"):
        shown = _shown(points, score)
        cells = [[p for p in shown if p.strategy == name] for name in by_strategy[0][1:]]
        by_strategy.append([score, *map(_cell, cells)])
    return f"{markdown_table(rows)}\n{markdown_table(by_strategy)}"


def _shown(points: Sequence[Point], score: str) -> list[Point]:
    return [each for each in points if each.half == "shown" and each.score == score]


def _cell(points: Sequence[Point]) -> str:
    if not points:
        return ""
    auroc, fpr = (100 * fmean(getattr(each, key) for each in points) for key in ("auroc", "fpr"))
    return f"{auroc:.1f} / {fpr:.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _as_json(points: Sequence[Point]) -> str:
    rows = [json.dumps([*each[:-2], round(each.auroc, 4), round(each.fpr, 4)]) for each in points]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def main(
    data: Path,
    strategies: Annotated[str, typer.Option(help="names, with commas")] = ",".join(STRATEGIES),
    seeds: Annotated[int, typer.Option(help="how many")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file for all points")] = None,
) -> None:
    """Prints AUROC and FPR at 95 % TPR, both in %, of each score."""
    try:
        points: list[Point] = []
        for seed in range(seeds):
            for task in tasks(data, seed):
                points += compare(task, strategies.split(","), seed)
    except InputError as error:
        typer.echo(f"unknown: {error}", err=True)
        raise typer.Exit(2) from error
    if out is not None:
        out.write_text(_as_json(points), "utf-8")
    typer.echo(tables(points))


if __name__ == "__main__":
    typer.run(main)
