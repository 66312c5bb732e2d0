"""The study of rounding: what it changes, what it leaves alone, and its table."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_adapters.benchmarks.studies.rounding import (
    VARIANTS,
    GradientNoise,
    accuracies,
    spread,
    study,
    table,
)
from cl_adapters.reports.load import load_runs
from tests.bundle.runs import write_pictures

RECIPE = """
data = "{data}"
increment = 2
backbone = "test_vit"
weights = "random"
image_size = 32
[options]
epochs = 2
"""


def _step(noise: GradientNoise, epoch: int) -> torch.Tensor:
    logits = torch.zeros(50, 8, requires_grad=True)
    strategy: Any = SimpleNamespace(
        mb_output=2 * logits, clock=SimpleNamespace(train_exp_epochs=epoch)
    )
    noise.before_backward(strategy)
    strategy.mb_output.sum().backward()
    assert logits.grad is not None
    return logits.grad


def test_gradients_are_off_by_a_thousandth_in_the_first_epoch_alone() -> None:
    first, again = _step(GradientNoise(0), 0), _step(GradientNoise(0), 0)
    assert torch.equal(first, again)
    assert (first / 2 - 1).std().item() == pytest.approx(1e-3, rel=0.2)
    assert torch.equal(_step(GradientNoise(0), 1), torch.full((50, 8), 2.0))


def test_every_run_is_told_once_and_is_what_its_records_say(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(data=write_pictures(tmp_path / "data", each=6)))
    found = list(study(recipe, "finetune", 1, ["lr=0.1"], tmp_path / "runs"))
    assert [each[:3] for each in found] == [("finetune", name, 0) for name in VARIANTS]
    for _, variant, _, last, average in found:
        (run,) = load_runs([tmp_path / "runs" / variant]).finished
        assert run.record.config["precision"] == ("fp32" if variant == "fp32" else "bf16")
        assert run.values["a_last_micro"] == pytest.approx(last)
        assert run.values["a_avg_micro"] == pytest.approx(average)
        assert accuracies(run.folder) == (last, average)


def test_the_table_says_how_far_variants_lie_apart() -> None:
    found = {
        "sema": {
            "fp32": [(70.0, 80.0), (60.0, 70.0)],
            "bf16": [(71.0, 81.0), (60.0, 70.0)],
            "noise": [(66.0, 80.0), (60.0, 73.0)],
        }
    }
    assert spread([[80.0, 70.0], [81.0, 70.0], [80.0, 73.0]]) == (2.0, 3.0)
    row = table(found).splitlines()[2]
    cells = [each.strip() for each in row.strip("|").split("|")]
    assert cells == [
        "sema", "2", "65.0 / 75.0", "65.5 / 75.5", "63.0 / 76.5", "2.0", "3.0", "5.0"
    ]  # fmt: skip
