"""The settings of a pretraining, with the rule of each."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.maintenance.pretraining.teacher import TEACHER
from cl_adapters.errors import InputError

__all__ = ["PretrainConfig"]

# Lowest value, and the one that it must stay below; all other numbers are counts from 1.
_RANGES: Final = {
    "rate": (0.0, math.inf),
    "matrix_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "ema": (0.0, 1.0),
    "seed": (0, 2**32),
}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of a pretraining; the help texts say what they mean.

    Raises:
        InputError: If a number is out of its range.
    """

    data: Path = field(metadata={"help": "parquet file of Tiny-ImageNet"})
    teacher: Path = field(metadata={"help": f"safetensors of {TEACHER}"})
    out: Path = field(metadata={"help": "folder for weights; cache/ is beside it"})
    steps: int = field(default=1900, metadata={"help": "optimiser steps"})
    decay: int = field(default=650, metadata={"help": "steps over which the rate falls to 0"})
    warmup: int = field(default=100, metadata={"help": "steps over which the rate rises"})
    photos: int = field(default=128, metadata={"help": "photographs a batch"})
    drawn: int = field(default=32, metadata={"help": "glyphs, and emblems, a batch"})
    rate: float = field(default=1e-3, metadata={"help": "learning rate of AdamW"})
    matrix_rate: float = field(default=1.5e-3, metadata={"help": "learning rate of Muon"})
    weight_decay: float = field(default=0.05, metadata={"help": "decoupled weight decay"})
    ema: float = field(default=0.995, metadata={"help": "decay of the averaged weights"})
    num_glyphs: int = field(default=1000, metadata={"help": "classes of glyphs"})
    num_emblems: int = field(default=500, metadata={"help": "classes of emblems"})
    every: int = field(default=125, metadata={"help": "steps between evaluations and checkpoints"})
    seed: int = field(default=0, metadata={"help": "of everything random"})
    threads: int = field(default=2, metadata={"help": "CPU threads"})

    def __post_init__(self) -> None:
        for name, value in self.numbers().items():
            low, below = _RANGES.get(name, (1, math.inf))
            if not low <= value < below:
                raise InputError(
                    f"`{name}` must be at least {low} and less than {below}, got {value}"
                )

    def numbers(self) -> dict[str, float]:
        """Returns all settings but the paths."""
        settings = vars(self).items()
        return {name: value for name, value in settings if not isinstance(value, Path)}
