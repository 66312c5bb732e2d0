"""Models that tiny runs have learned, to be exported."""

from functools import cache
from typing import Any, Final

import timm
import torch
from torch import Tensor

from cl_adapters.bundle.model import LearnedModel
from cl_adapters.bundle.sheet import Sheet
from cl_adapters.images.transforms import Preprocess
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.vit.adapted_vit import AdaptedViT

SIZE: Final = 16
MEAN, STD = (0.5, 0.4, 0.45), (0.5, 0.25, 0.3)
# Label 2 is never seen: its column is none of the file's.
EXPERIENCES: Final = ((3, 0), (1, 4))
THREE: Final = ((3, 0), (1, 4), (5,))
SIX: Final = ((3,), (0,), (1,), (4,), (5,), (2,))
NAMES: Final = ("stop", "yield", "never seen", "vorfahrt", "grün", "sixth")


def small_vit(depth: int = 2) -> AdaptedViT:
    """A ViT of some blocks and width 32 for 16 pixels, random but fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model(
            "test_vit", num_classes=0, img_size=SIZE, patch_size=4, embed_dim=32, depth=depth,
            num_heads=2,
        )  # fmt: skip
    return AdaptedViT(vit, pixels=(MEAN, STD))


def images(count: int = 24, seed: int = 0) -> Tensor:
    """Bytes (count, 3, 16, 16) of chance, brighter and darker ones among them."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator).float()
    strength = torch.rand(count, 3, 1, 1, generator=generator)
    return (strength * found).to(torch.uint8)


@cache
def learned(
    name: str,
    experiences: tuple[tuple[int, ...], ...] = EXPERIENCES,
    depth: int = 2,
    **options: Any,
) -> LearnedModel:
    """Returns what a strategy has learned from a stream of stripes."""
    return model_of(find_strategy(name), name, experiences, depth, **options)


def model_of(
    kind: Any,
    name: str,
    experiences: tuple[tuple[int, ...], ...] = EXPERIENCES,
    depth: int = 2,
    **options: Any,
) -> LearnedModel:
    if name == "sema":
        options = {"expandable": depth, "policy": "every_experience", **options}
    trial = Trial(kind, options)
    strategy = trial.build(backbone=small_vit(depth))
    trial.train(strategy, TinyStream(experiences=experiences), only_last=True)
    classes = NAMES[: max(map(max, experiences)) + 1]
    sheet = Sheet(
        strategy=name, fidelity="default", options={}, seed=0, precision="fp32", classes=classes,
        learned=experiences, experiences=[], pixels={}, trained_on={}, run={"digest": "abc"},
        backbone={"name": "test_vit", "digest": "123"},
    )  # fmt: skip
    return LearnedModel(
        sheet, strategy, Preprocess(image_size=SIZE, mean=MEAN, std=STD, as_bytes=True)
    )
