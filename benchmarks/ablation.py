"""What the adapters that a method has grown are worth, found by answering without each of them.

Nothing is trained: routers share the weight of what is left out among the others, the first path's
adapters stand in for those of a path and the first set for a set, and the classifiers stay as they
were learned with all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.parent import noted_parent
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.bundle.files import load, model_folder
from cl_adapters.bundle.model import BATCH
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.ablation import Ablation, Without, write_ablation
from cl_adapters.records.run_record import RunRecord
from cl_adapters.vit.expandable import ExpandableViT

__all__ = ["ablate"]


def ablate(run: str | Path) -> Ablation:
    """Measures what each grown adapter of a finished run is worth, and writes it beside the run.

    Args:
        run: A run directory, or a folder with one run in it.

    Returns:
        What was measured on all test images of the run, those of classes seen.

    Raises:
        InputError: If the run is not finished, its method grows no adapters or grew none, or
            anything that it names is no longer there.
    """
    folder = model_folder(user_path(run))
    if not (folder / "run.json").exists():
        raise InputError(f"run {str(folder)!r} must be a run directory, got a bundle")
    record = RunRecord.read(folder)
    if record.state != "finished":
        raise InputError(f"run {str(folder)!r} must be finished, got one that is {record.state}")
    strategy = load(folder).strategy
    model = strategy.model
    if not hasattr(model, "leaving_out"):
        raise InputError(f"run must be of a method that grows adapters, got {record.strategy!r}")
    grown = model.grown()
    if not grown:
        raise InputError(f"run {str(folder)!r} must have grown an adapter, got none")
    choices = [grown, *model.grown_together()]
    config = RunConfig.parse(record.config)
    source = open_images(config, noted_parent(folder))
    stream = prepare(config, source=source).benchmark().test_stream
    counts = [_counted(strategy, experience.dataset, choices) for experience in stream]
    images, right, alone, both = zip(*counts, strict=True)
    ablation = Ablation(
        images,
        right,
        tuple(
            Without(
                tuple(adapters),
                tuple(each[place] for each in alone),
                tuple(each[place] for each in both),
            )
            for place, adapters in enumerate(choices)
        ),
        model.unit,
    )
    write_ablation(folder, ablation)
    return ablation


@torch.no_grad()
def _counted(
    strategy: Any,  # noqa: ANN401 - whose model can leave out what has grown
    dataset: Any,  # noqa: ANN401 - Avalanche's
    choices: Sequence[Sequence[tuple[int, int]]],
) -> tuple[int, int, list[int], list[int]]:
    # Images, right ones, and by choice: right ones without, right ones both with and without.
    model: Any = strategy.model
    model.eval()
    right, alone, both = 0, [0] * len(choices), [0] * len(choices)
    query = strategy.query_features()
    # What no grown adapter changes is computed once for all choices.
    begun = model.prefix if isinstance(model, ExpandableViT) else lambda images: images
    for start in range(0, len(dataset), BATCH):
        rows = [dataset[place] for place in range(start, min(start + BATCH, len(dataset)))]
        targets = torch.tensor([row[1] for row in rows], device=strategy.device)
        images = strategy.backbone.inputs(torch.stack([row[0] for row in rows]), strategy.device)
        with strategy.features.autocast():
            inputs = [begun(images), *([] if query is None else [query.compute(images)])]
            whole = _hits(model, inputs, targets)
            right += int(whole.sum())
            for number, adapters in enumerate(choices):
                with model.leaving_out(adapters):
                    hits = _hits(model, inputs, targets)
                alone[number] += int(hits.sum())
                both[number] += int((hits & whole).sum())
    return len(dataset), right, alone, both


def _hits(model: Any, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:  # noqa: ANN401
    hits: Tensor = model(*inputs).logits.argmax(dim=1) == targets
    return hits
