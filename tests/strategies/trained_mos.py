"""MOS on tiny streams, as its tests train it."""

from typing import Any, Final

import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.strategies.mos import MOS, MOSConfig
from cl_adapters.vit.adapted_vit import AdaptedViT

NAMES: Final = ("down", "down_bias", "up", "up_bias")
TWO: Final = [[0, 1], [2, 3]]
THREE: Final = [[0, 1], [2, 3], [4, 5]]


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> MOS:
    official = options.pop("official", False)
    config = MOSConfig.official() if official else MOSConfig()
    fast = {"batch_size": 8, "epochs": 2, "alignment_epochs": 2}
    return MOS(
        backbone=vit,
        config=config.override({**fast, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def images_of(experience: Any) -> tuple[Tensor, Tensor]:
    rows = [experience.dataset[index] for index in range(len(experience.dataset))]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
