"""Runs of a moment over six classes of stripes."""

from pathlib import Path
from typing import Any

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig

BACKBONE = {"backbone": "test_vit", "weights": "random", "image_size": 32}


def config(**changes: Any) -> RunConfig:
    options = {"epochs": 2, "batch_size": 8} if changes.get("strategy") != "simplecil" else {}
    if changes.get("strategy", "lae") == "lae":
        options["freeze_epochs"] = 1
    values = {"strategy": "lae", "increment": 2, "options": options, **BACKBONE, **changes}
    return RunConfig.parse(values)


def run(source: ImageSource, out: Path, **changes: Any) -> Path:
    return runner.run(prepare(config(**changes), source=source), out)
