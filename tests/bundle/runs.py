"""Tiny runs whose models are loaded: pictures in folders, one strategy each."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.strategies.core.paths import SLOTS

CLASSES = ("ant", "bee", "cat", "dog")
TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32}
# As few steps as a method may have.
OPTIONS: dict[str, dict[str, Any]] = {
    "lae": {"epochs": 2, "freeze_epochs": 1, "batch_size": 8},
    "sema": {**SLOTS, "epochs": 1, "batch_size": 8, "views": 1, "threshold": 0.1},
    "mos": {"epochs": 1, "batch_size": 8},
    "aper": {"epochs": 1, "size": 4},
    "cl_lora": {"epochs": 1, "batch_size": 8},
    "ease": {"epochs": 1, "batch_size": 8, "size": 4},
    "fecam": {},
    "finetune": {"epochs": 1, "batch_size": 8},
    "inflora": {"epochs": 1, "batch_size": 8, "rank": 4},
    "joint": {"epochs": 1, "batch_size": 8},
    "loranpac": {"projections": 50},
    "ranpac": {"projections": 50, "epochs": 1, "size": 4},
    "sd_lora": {"epochs": 1, "batch_size": 8},
    "simplecil": {},
}


def write_pictures(root: Path, classes: tuple[str, ...] = CLASSES, each: int = 12) -> Path:
    """Writes noise with a stripe that tells the class, of odd sizes, as PNG files."""
    for number, name in enumerate(classes):
        source = np.random.default_rng(number)
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            height, width = 40 + index % 3, 37 + 5 * (index % 4)
            pixels = source.integers(0, 90, (height, width, 3))
            pixels[9 * (number % 4) : 9 * (number % 4) + 9, :, number % 3] += 160
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index:02d}.png")
    return root


def config(data: Path, strategy: str, **changes: Any) -> RunConfig:
    values = {"strategy": strategy, "data": str(data), "increment": 2, **TINY, **changes}
    return RunConfig.parse({"options": OPTIONS.get(strategy, {}), **values})


def learn(data: Path, out: Path, strategy: str, **changes: Any) -> tuple[PreparedRun, Path]:
    """Runs a strategy; returns what was run and its run directory."""
    prepared = prepare(config(data, strategy, **changes))
    return prepared, runner.run(prepared, out)


@cache
def shared(root: Path, strategy: str) -> tuple[PreparedRun, Path]:
    """Runs a strategy once for all tests that share a folder and write nothing."""
    data = root / "pictures"
    if not data.exists():
        write_pictures(data)
    return learn(data, root / "runs", strategy)
