"""A training step asks no tensor for its value: on a GPU that would be to wait for all its work."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.vit import adapted_vit

STEP = ("_unpack_minibatch", "forward", "criterion", "backward", "optimizer_step", "after_step")
ASKING = ("_local_scalar_dense", "nonzero", "unique", "equal")


class Asked(TorchDispatchMode):
    """Notes the operators whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if name.startswith(ASKING):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sema", "lae", "mos", "finetune", "joint"])
def test_no_step_waits(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pixels are looked at where they are on the CPU only.
    monkeypatch.setattr(adapted_vit, "refuse_infinite", lambda _: None)
    generator = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 24)
    images = generator.integers(0, 256, (96, 12, 12, 3), dtype=np.uint8), targets
    detector = {"detector": "mahalanobis", "policy": "every_experience"}
    values = {
        "strategy": strategy,
        "backbone": "test_vit",
        "weights": "random",
        "image_size": 32,
        "options": {"epochs": 2, **(detector if strategy == "sema" else {})},
        "augment": "crop_flip",
    }
    if strategy == "lae":
        values["options"]["freeze_epochs"] = 1  # type: ignore[index]
    prepared = prepare(RunConfig.parse(values), source=array_source("noise", images, images))
    trained = prepared.strategy
    trained.guard._asks_at_once = False  # as on a GPU
    asked = Asked()
    steps: list[str] = []

    def watched(name: str, step: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            steps.append(name)
            # What is set in closed form is solved for once, when it is first asked.
            if trained.clock.train_epoch_iterations == 0:
                return step()
            with asked:
                return step()

        return run

    for name in STEP:
        setattr(trained, name, watched(name, getattr(trained, name)))
    for experience in prepared.benchmark().train_stream:
        trained.train(experience)
    assert asked.names == []
    assert min(steps.count(name) for name in STEP) >= 8


def test_asking_is_noticed() -> None:
    with Asked() as asked:
        bool(torch.isfinite(torch.ones(2)).all())
    assert asked.names == ["_local_scalar_dense"]
