"""Most memory of a run of CIFAR-100's size, measured in a process of its own.

python -m cl_adapters.benchmarks.bench.memory STRATEGY BACKBONE IMAGE_SIZE PRECISION
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import typer

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running.memory import peak_bytes
from cl_adapters.benchmarks.running.prepare import method_options, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError

__all__ = ["measure", "peak_of_a_run"]

_CLASSES = 100
_PER_CLASS = 500, 100  # train and test, as CIFAR-100 has
_INCREMENT = 5
_EXPERIENCES = 2
_SHOWN = 100  # of a class's images: more of them need no more memory at once


def peak_of_a_run(strategy: str, backbone: str, image_size: int, precision: str) -> int:
    """Returns the most bytes that a run held at once, resident.

    It holds 60,000 images of 32 pixels, and trains for an epoch on 100 images of each of the first
    ten classes, in two experiences: what later ones add are rows of heads, adapters and
    predictions.

    Args:
        strategy: Name of the strategy.
        backbone: timm architecture.
        image_size: Side of its input in pixels.
        precision: fp32 or bf16.
    """
    # A process of its own, since what was held at most is never forgotten.
    command = [sys.executable, "-m", __name__, strategy, backbone, str(image_size), precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def measure(strategy: str, backbone: str, image_size: int, precision: str) -> int:
    """Does that in this process, and returns the most bytes that it held; see `peak_of_a_run`."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)

    def noise(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(_CLASSES), per_class)
        return generator.integers(0, 256, (len(targets), 32, 32, 3), np.uint8), targets

    train, test = (noise(per_class) for per_class in _PER_CLASS)  # held all the while
    values = {
        "strategy": strategy,
        "increment": _INCREMENT,
        "backbone": backbone,
        "weights": "random",
        "image_size": image_size,
        "precision": precision,
    }
    known = type(method_options(RunConfig.parse(values))).model_fields
    short = {"epochs": 1, "freeze_epochs": 0, "policy": "every_experience"}
    config = RunConfig.parse(
        {**values, "options": {name: each for name, each in short.items() if name in known}}
    )
    source = array_source("noise", _beginning(*train), _beginning(*test))
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder) / "cache")
        run(prepare(config, source=source, cache=cache), Path(folder) / "runs")
    return peak_bytes(torch.device("cpu"))


def _beginning(pixels: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    per_class = len(targets) // _CLASSES
    place = np.arange(len(targets)) % per_class
    shown = (targets < _EXPERIENCES * _INCREMENT) & (place < _SHOWN)
    return pixels[shown], targets[shown]


def main(strategy: str, backbone: str, image_size: int, precision: str) -> None:
    """Prints the most bytes that a run of CIFAR-100's size holds at once."""
    try:
        typer.echo(measure(strategy, backbone, image_size, precision))
    except InputError as error:
        typer.echo(f"memory: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
