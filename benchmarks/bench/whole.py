"""A whole run of SimpleCIL against passes of the bare network.

    python -m cl_adapters.benchmarks.bench.whole DATA.parquet WEIGHTS.safetensors IMAGE_SIZE

The run has five classes an experience and a cold memo, and does all that a run does: decoding,
evaluation after each experience, records, checkpoints. Half of the bare network's passes come
before it and half after it, so that a machine that slows down meanwhile does not decide.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.memo import Memo

__all__ = ["passes_of_a_run"]

_BATCH: Final = 64


def passes_of_a_run(config: RunConfig) -> tuple[int, float]:
    """Returns the images of a recipe's stream, and how many passes over them its run took.

    In processor time, on one thread.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, memo=Memo(Path(folder) / "memo"))
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
    since = time.process_time()
    work()
    return time.process_time() - since


if __name__ == "__main__":
    data, weights, image_size = sys.argv[1:]
    found = RunConfig.parse(
        {
            "strategy": "simplecil",
            "data": data,
            "increment": 5,
            "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "weights": weights,
            "image_size": int(image_size),
        }
    )
    count, passes = passes_of_a_run(found)
    sys.stdout.write(f"{passes:.3f} passes over {count:,} images\n")
