"""What an answer of a loaded model costs beside the run's own evaluation, in processor time.

    python -m cl_adapters.benchmarks.maintenance.predict_speed DATA --strategy lae

Both look at the run's test images, decoded each time, without a cache; the least of some rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.bundle.files import load
from cl_adapters.bundle.model import LearnedModel

__all__ = ["costs"]


def costs(prepared: PreparedRun, model: LearnedModel, rounds: int = 5) -> tuple[float, float]:
    """Returns seconds an image of the run's evaluation and of the loaded model.

    Args:
        prepared: A finished run.
        model: What it learned, loaded.
        rounds: How often each is measured, at least 1.
    """
    stream, test = prepared.benchmark().test_stream, prepared.source.test
    places = np.concatenate(prepared.plan.test).tolist()

    def evaluate() -> None:
        prepared.strategy.eval(stream)

    def predict() -> None:
        for _ in model.predict_batches(test.read(place) for place in places):
            pass

    evaluated, predicted = (
        min(_seconds(what) for _ in range(rounds)) / len(places) for what in (evaluate, predict)
    )
    return evaluated, predicted


def _seconds(what: Callable[[], None]) -> float:
    since = time.process_time()
    what()
    return time.process_time() - since


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--strategy", default="lae")
    given = parser.parse_args()
    values = {"strategy": given.strategy, "data": given.data, "max_images_per_class": 20}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(RunConfig.parse({**values, "increment": 20, "threads": 1}))
        model = load(run(prepared, Path(folder)))
        evaluated, predicted = costs(prepared, model)
    print(  # noqa: T201 - what it is for
        f"{given.strategy}: evaluation {1e3 * evaluated:.2f} ms an image, loaded model "
        f"{1e3 * predicted:.2f} ms, ratio {predicted / evaluated:.3f}"
    )


if __name__ == "__main__":
    _main()
