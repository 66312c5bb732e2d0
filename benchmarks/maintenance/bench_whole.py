"""A whole run of SimpleCIL against passes of the bare network.

    python -m cl_adapters.benchmarks.maintenance.bench_whole DATA.parquet WEIGHTS.safetensors SIZE

The run has five classes an experience and a cold cache, and does all that a run does: decoding,
evaluation after each experience, records, checkpoints. Half of the bare network's passes come
before it and half after it, so that a machine that slows down meanwhile does not decide.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
import typer

from cl_adapters.benchmarks.bench.track import Clock
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError

__all__ = ["passes_of_a_run"]

_BATCH: Final = 64


def passes_of_a_run(config: RunConfig) -> tuple[int, float]:
    """Returns the images of a recipe's stream, and how many passes over them its run took.

    In processor time, on one thread.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, cache=FeatureCache(Path(folder) / "cache"))
        benchmark = prepared.benchmark()
        streams = benchmark.train_stream, benchmark.test_stream
        images = sum(len(experience.dataset) for stream in streams for experience in stream)
        network = prepared.backbone.model.vit
        shape = prepared.backbone.model.input_shape
        batches = [torch.rand(_BATCH, *shape) for _ in range(4)]

        @torch.no_grad()
        def half() -> None:
            for number in range(images // 2 // _BATCH):
                network(batches[number % len(batches)])

        before = _seconds(half)
        whole = _seconds(lambda: run(prepared, Path(folder) / "runs"))
        after = _seconds(half)
    passed = 2 * (images // 2 // _BATCH) * _BATCH
    return images, whole / ((before + after) * images / passed)


def _seconds(work: Callable[[], object]) -> float:
    clock = Clock(torch.device("cpu"))
    since = clock.now()
    work()
    return clock.now() - since


def main(data: Path, weights: Path, image_size: int) -> None:
    """Prints how many passes of ViT-Tiny a whole run of SimpleCIL takes."""
    try:
        config = RunConfig.parse(
            {
                "strategy": "simplecil",
                "data": str(data),
                "increment": 5,
                "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
                "weights": str(weights),
                "image_size": image_size,
            }
        )
        images, passes = passes_of_a_run(config)
    except InputError as error:
        typer.echo(f"whole: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{passes:.3f} passes over {images:,} images")


if __name__ == "__main__":
    typer.run(main)
