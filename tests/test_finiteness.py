"""Numbers that are none are refused: in weights by their tensor, in a run where they first occur."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cl_adapters.benchmarks.data.sources import ImageSource, array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError, RunError
from cl_adapters.finiteness import NotFiniteError, mark, refuse_not_finite
from cl_adapters.records.run_record import RunRecord
from cl_adapters.vit.pretrained import frozen_backbone, load_backbone

NAME = "blocks.2.norm1.weight"
SMALL: dict[str, Any] = {"backbone": "test_vit", "weights": "random", "image_size": 32}


def with_one(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    found = torch.ones(64, dtype=dtype)
    found[5] = value
    return found


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(64), 0.1, 0, torch.qint8)  # which warns


ODD = [
    (with_one(torch.nan), f"must be finite, got nan in tensor '{NAME}', where 1 of 64"),
    (with_one(torch.inf), f"must be finite, got inf in tensor '{NAME}'"),
    (with_one(1e300, torch.float64), f"must be finite, got inf in tensor '{NAME}'"),
    (torch.ones(64, dtype=torch.bool), f"got numbers of type bool in tensor '{NAME}'"),
    (torch.ones(64, dtype=torch.int8), f"got numbers of type int8 in tensor '{NAME}'"),
    (torch.ones(64, dtype=torch.complex64), "got numbers of type complex64"),
    (torch.tensor(1.0), "got one number without dimensions in tensor"),
    (torch.ones(64).to_sparse(), "got a sparse tensor .sparse_coo. in"),
    (torch.empty(64, device="meta"), "got a tensor without data .device meta. in"),
    (quantised, "quantised numbers .qint8."),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("odd", "message"), ODD, ids=[message for _, message in ODD])
def test_weights_that_are_no_finite_numbers_are_refused_by_name(
    tmp_path: Path, odd: Any, message: str
) -> None:
    state: dict[Any, Any] = dict(
        load_backbone("test_vit", weights="random", image_size=32).model.vit.state_dict()
    )
    state[NAME] = odd() if callable(odd) else odd
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_backbone("test_vit", weights=tmp_path / "w.pt", image_size=32)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("weights in ")


def test_tensors_that_are_named_by_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({3: torch.ones(2), "a": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="must name each tensor by text, got the key 3"):
        load_backbone("test_vit", weights=tmp_path / "w.pt")


def test_large_numbers_whose_sum_overflows_are_weights_like_others(tmp_path: Path) -> None:
    state = dict(load_backbone("test_vit", weights="random", image_size=32).model.vit.state_dict())
    state[NAME] = torch.full((64,), 3e38)
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_backbone("test_vit", weights=tmp_path / "w.safetensors", image_size=32)
    assert torch.equal(loaded.model.vit.state_dict()[NAME], state[NAME])


def test_a_network_of_ones_own_is_looked_at_too() -> None:
    vit = load_backbone("test_vit", weights="random", image_size=32).model.vit
    with torch.no_grad():
        vit.norm.bias[1] = -torch.inf
    with pytest.raises(
        InputError, match="weights of 'mine' must be finite, got -inf in tensor 'norm.bias'"
    ):
        frozen_backbone(vit, "mine")


@pytest.mark.parametrize("values", [[torch.inf, -torch.inf], [torch.nan], [torch.inf, 1.0]])
def test_a_mark_is_left_whatever_is_not_finite(values: list[float]) -> None:
    assert not np.isfinite(mark(torch.tensor(values)).item())
    with pytest.raises(NotFiniteError, match="rows must be finite"):
        refuse_not_finite(torch.tensor(values), "rows")
    fine = torch.tensor([[3e38, 3e38], [-1.0, 0.0]])
    assert mark(fine).item() == 0
    refuse_not_finite(fine, "rows")


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture
def source() -> ImageSource:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    images = generator.integers(0, 256, (24, 12, 12, 3), dtype=np.uint8)
    return array_source("noise", (images, labels), (images, labels))


def poisoned(source: ImageSource, strategy: str, **options: Any) -> Any:
    """A run whose backbone lost a number after it was loaded, as by a fault of the memory."""
    values = {"strategy": strategy, "increment": 2, "options": options, **SMALL}
    prepared = prepare(RunConfig.parse(values), source=source)
    prepared.strategy.backbone.vit.norm.weight.data[3] = torch.nan
    return prepared


WAYS = {
    "simplecil": ({}, "features must be finite, got nan in experience 0, phase 'train', epoch 0, batch 0"),
    "ranpac": ({"first_session": False}, "features must be finite, got nan in experience 0, after its last epoch"),
    "finetune": ({"epochs": 1}, "features must be finite, got nan in experience 0, phase 'train', epoch 0, batch 0"),
    "mos": ({"epochs": 1}, "features must be finite, got nan in experience 0"),
    "sema": ({"epochs": 1}, "features must be finite, got nan in experience 0, before its first epoch"),
}  # fmt: skip


@pytest.mark.parametrize("strategy", WAYS)
def test_the_first_feature_that_is_no_number_fails_the_run(
    strategy: str, source: ImageSource, tmp_path: Path
) -> None:
    options, message = WAYS[strategy]
    with pytest.raises(RunError, match=message) as caught:
        runner.run(poisoned(source, strategy, **options), tmp_path)
    assert "\n" not in str(caught.value)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    record = RunRecord.read(folder)
    assert (record.state, record.experiences_done) == ("failed", 0)
    assert record.error == str(caught.value)


def test_answers_after_a_last_step_that_was_too_long_fail_the_run(
    source: ImageSource, tmp_path: Path
) -> None:
    """One batch an experience: no loss follows the step, so that only evaluation meets it."""
    values = {
        "strategy": "lae",
        "increment": 2,
        "options": {"epochs": 1, "freeze_epochs": 0, "lr": 1e30},
    }
    prepared = prepare(RunConfig.parse({**values, **SMALL}), source=source)
    with pytest.raises(
        RunError,
        match="(features|outputs) must be finite, got .* in experience 0, evaluation of experience 0,"
        " batch 0 at learning rate 1e.30; a lower one may help",
    ):
        runner.run(prepared, tmp_path)
