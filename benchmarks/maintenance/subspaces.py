"""What EASE's spaces are worth: `python -m cl_adapters.benchmarks.maintenance.subspaces RUNS`.

RUNS are finished runs of EASE. Each run's test images, all classes, are scored in several ways with
the sets and means that it has learned; nothing is trained. With cos(c, j) the cosine of an image to
the mean of class c in space j, and i the space of the class's own experience:

    as it is      what the run answers
    own           cos(c, i) alone: mapped means play no part
    real          the mean of cos(c, j) over j <= i, where class c has a real mean
    equal         the mean of cos(c, j) over all spaces, mapped means like real ones
    first         cos(c, 0) alone: a first session and class means
    centred       own, less the mean of the means that are real in a space
    told          own, among the classes of the image's own experience

What `told` gains over `own` is lost between spaces, not between the classes of one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies.ease import EASE
from cl_adapters.vit.by_set import features_by_set, features_of_all_sets

__all__ = ["accuracies", "scored"]

_BATCH = 48


def accuracies(run: Path, every: int = 1) -> dict[str, float]:
    """Returns the accuracy in percent of each way to score a run's test images.

    Args:
        run: A finished run of EASE.
        every: Take each how many-th image of an experience.

    Raises:
        InputError: If the run is of another method.
    """
    record = RunRecord.read(run)
    strategy: Any = load(run).strategy
    if not isinstance(strategy, EASE):
        raise InputError(f"runs must be of ease, got {record.strategy!r}")
    stream = prepare(RunConfig.parse(record.config)).benchmark().test_stream
    images, targets = read_images(stream, every)
    found = torch.cat([_features(strategy, batch) for batch in torch.split(images, _BATCH)])
    return {
        name: 100 * float((scores.argmax(dim=1) == targets).double().mean())
        for name, scores in scored(strategy.model.prototypes, found, targets).items()
    }


@torch.no_grad()
def _features(strategy: EASE, images: Tensor) -> Tensor:
    model, inputs = strategy.model, strategy.backbone.inputs(images, strategy.device)
    rows = torch.arange(len(images), device=strategy.device)
    with strategy.features.autocast():
        under = features_by_set(strategy.backbone, model.frozen_adapters, inputs)
        found = features_of_all_sets(rows, len(model.frozen_adapters), under)
    return found.float().cpu()


def scored(
    prototypes: SubspacePrototypes, features: Tensor, targets: Tensor
) -> Mapping[str, Tensor]:
    """Returns the scores of each way.

    Shape:
        features: (B, S, F). targets: (B,). Output: (B, C) each.
    """
    means, own = prototypes.means().to(features), prototypes.own_spaces()
    spaces = torch.arange(means.shape[1])
    is_real = spaces <= own[:, None]
    middle = torch.stack([means[is_real[:, space], space].mean(dim=0) for space in spaces])
    plain, centred = _cosines(features, means), _cosines(features - middle, means - middle)
    home = own[None, :, None].expand(len(plain), -1, 1)
    told = own[targets][:, None] == own
    return {
        "as it is": prototypes.scores(features),
        "own": plain.gather(2, home)[..., 0],
        "real": (plain * is_real).sum(dim=2) / is_real.sum(dim=1),
        "equal": plain.mean(dim=2),
        "first": plain[..., 0],
        "centred": centred.gather(2, home)[..., 0],
        "told": plain.gather(2, home)[..., 0].masked_fill(~told, -torch.inf),
    }


def _cosines(features: Tensor, means: Tensor) -> Tensor:
    """Returns cos(c, j): (B, C, S) of (B, S, F) and (C, S, F)."""
    images, classes = functional.normalize(features, dim=2), functional.normalize(means, dim=2)
    return torch.einsum("bsf,csf->bcs", images, classes)


def _main(
    runs: list[Path],
    every: Annotated[int, typer.Option(help="Take each how many-th test image.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    torch.set_num_threads(threads)
    rows: list[list[str]] = []
    for run in runs:
        found = accuracies(run, every)
        rows = rows or [["run", *found]]
        rows.append([f"{run.parent.name}/{run.name}", *(f"{each:.1f}" for each in found.values())])
    print(markdown_table(rows))  # noqa: T201 - what it is for


if __name__ == "__main__":
    typer.run(_main)
