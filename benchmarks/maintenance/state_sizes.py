"""How large checkpoints on a ViT-B are: `python -m cl_adapters.benchmarks.maintenance.state_sizes`.

Strategies at their defaults on a width of 768 with twelve blocks, grown as 20 experiences of five
classes would make them grow, with drawn numbers in place of learned ones: a size does not depend on
what was learned. The frozen network is in no checkpoint.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import timm
import torch
import typer
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.strategies import STRATEGIES
from cl_adapters.strategies.core.regimes import PLACE
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.lae import LAE
from cl_adapters.strategies.mos import MOS
from cl_adapters.strategies.sema import SEMA
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["sizes"]

EXPERIENCES: Final = 20
CLASSES: Final = 5  # of an experience
IMAGES: Final = 129  # of a class: enough for the 128 directions that MOS keeps of it
_MIB: Final = 2**20

Grow = Callable[[Any, list[int], torch.Generator], None]


def _grow_mos(strategy: MOS, classes: list[int], source: torch.Generator) -> None:
    strategy.model.frozen_adapters.append(strategy.model.current_adapters.tensors())
    for label in classes:
        features = _features(IMAGES, source)
        strategy.model.classes.add(label, features)
        strategy.model.task_predictor.add(features, torch.full((IMAGES,), label))


def _keep_path(
    strategy: SEMA, classes: list[int], source: torch.Generator, *, new: bool = False
) -> None:
    regimes, model = strategy.regimes, strategy.model
    detectors = None if regimes is None else regimes.detectors
    if regimes is None or detectors is None or not isinstance(model.classes, PathClassifiers):
        raise TypeError("SEMA's defaults must make paths")
    is_first = regimes.count == 0
    begins = new or is_first
    regimes.add_experience(regimes.count if begins else 0)
    labels = torch.tensor(classes).repeat_interleave(IMAGES)
    features = _features(len(labels), source)
    regimes.learn(features, labels)
    if begins:
        detectors.newest(PLACE).fit_labelled(features[None], labels)
    for block in model.expandable if begins and not is_first else ():
        strategy.grow_block(block)
    model.classes.begin(regimes.active)
    model.learn_classes(features, features, labels)


def _nothing(strategy: LAE, classes: list[int], source: torch.Generator) -> None:
    """Heads have grown already."""


_CASES: Final[dict[str, tuple[str, Grow]]] = {
    "MOS": ("mos", _grow_mos),
    "SEMA, one path": ("sema", _keep_path),
    "SEMA, a new path each time": ("sema", partial(_keep_path, new=True)),
    "LAE": ("lae", _nothing),
}


def sizes() -> Iterator[tuple[str, float, float, float]]:
    """Yields what is stored: its name, and MiB after experience 1, after 20, and inside the last.

    A checkpoint inside an experience holds the optimiser's state as well.
    """
    for title, (name, grow) in _CASES.items():
        source = torch.Generator().manual_seed(0)
        strategy = _strategy(name)
        after: list[float] = []
        for experience in range(EXPERIENCES):
            classes = list(range(CLASSES * experience, CLASSES * (experience + 1)))
            strategy.register_classes(tuple(classes))
            grow(strategy, classes, source)
            after.append(sum(map(_mib, strategy.learned_state().values())))
        yield title, after[0], after[-1], after[-1] + _optimizer(strategy)


def _optimizer(strategy: AdapterStrategy) -> float:
    learned = strategy.learned_state()
    named = strategy.model.named_parameters()
    trained = [value for name, value in named if name in learned and value.requires_grad]
    moments = 2 if isinstance(strategy, LAE) else 1  # of Adam, and the momentum of SGD
    return moments * sum(map(_mib, trained))


def _strategy(name: str) -> AdapterStrategy:
    vit = timm.create_model("vit_base_patch16_224", num_classes=0, img_size=32)
    evaluator = EvaluationPlugin(loggers=[BaseLogger()])
    return STRATEGIES[name](backbone=AdaptedViT(vit), evaluator=evaluator)


def _features(count: int, source: torch.Generator) -> Tensor:
    return torch.randn(count, 768, generator=source)


def _mib(value: Tensor) -> float:
    return value.nbytes / _MIB


def main() -> None:
    """Prints the table of the docs."""
    rows = [["MiB on disk", "after experience 1", "after 20", "inside the 20th"]]
    rows += [[title, *(f"{each:.1f}" for each in numbers)] for title, *numbers in sizes()]
    typer.echo(markdown_table(rows), nl=False)


if __name__ == "__main__":
    main()
