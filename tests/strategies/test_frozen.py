"""What a frozen part makes of images: the same numbers with a memo, without one, and warm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cl_adapters.backbone import AdaptedViT
from cl_adapters.benchmarks import runner
from cl_adapters.benchmarks.prepare import prepare
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.sources import ImageSource, array_source
from cl_adapters.memo import Memo
from cl_adapters.records import read_events, read_predictions
from cl_adapters.strategies.frozen import FrozenPart, FrozenRows, part_digest
from cl_adapters.strategies.simplecil import SimpleCIL

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "simplecil": {},
    "lae": {"epochs": 3, "freeze_epochs": 2, "batch_size": 8},
    "mos": {"epochs": 2, "batch_size": 8, "alignment_epochs": 2},
    "sema": {"epochs": 2, "batch_size": 8, "expandable": 2, "detector": "mahalanobis"},
}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    """Six classes told apart by a bright row, 24 train and 5 test images each."""
    generator = np.random.default_rng(0)

    def images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(6), per_class)
        pixels = generator.integers(0, 90, (len(targets), 12, 12, 3), dtype=np.uint8)
        for index, target in enumerate(targets):
            pixels[index, 2 * target : 2 * target + 2] += 150
        return pixels, targets

    return array_source("stripes", images(24), images(5))


def run(source: ImageSource, out: Path, memo: Memo | None, **changes: Any) -> Path:
    strategy = changes.pop("strategy", "sema")
    values = {"strategy": strategy, "options": OPTIONS[strategy], **TINY, **changes}
    return runner.run(prepare(RunConfig.parse(values), source=source, memo=memo), out)


def counts(folder: Path) -> list[tuple[int, int]]:
    return [(e["read"], e["computed"]) for e in read_events(folder) if e["event"] == "memo"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", OPTIONS)
def test_memo_off_cold_and_warm_give_one_result(
    source: ImageSource, tmp_path: Path, strategy: str, precision: str
) -> None:
    memos = None, Memo(tmp_path / "memo"), Memo(tmp_path / "memo")
    folders = [
        run(source, tmp_path / str(number), memo, strategy=strategy, precision=precision)
        for number, memo in enumerate(memos)
    ]
    tables = [read_predictions(folder) for folder in folders]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, check_exact=True)


def test_a_warm_memo_leaves_simplecil_without_passes(source: ImageSource, tmp_path: Path) -> None:
    cold, warm = (
        run(source, tmp_path / name, Memo(tmp_path / "memo"), strategy="simplecil")
        for name in ("cold", "warm")
    )
    assert counts(cold) == [(0, 48 + 10), (10, 48 + 10), (20, 48 + 10)]
    assert all(computed == 0 for _, computed in counts(warm))
    passes = [e["passes"] for e in read_events(warm) if e["event"] == "evaluation"]
    assert passes == [0, 0, 0]


def test_other_increments_share_what_was_computed(source: ImageSource, tmp_path: Path) -> None:
    run(source, tmp_path / "a", Memo(tmp_path / "memo"), strategy="simplecil")
    other = run(source, tmp_path / "b", Memo(tmp_path / "memo"), strategy="simplecil", increment=3)
    assert sum(computed for _, computed in counts(other)) == 0


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"input_range": "imagenet"}, {"seed": 0, "backbone": "same"}]
)
def test_another_precision_or_pixels_share_nothing(
    source: ImageSource, tmp_path: Path, change: dict[str, Any]
) -> None:
    same = change.pop("backbone", None) == "same"
    run(source, tmp_path / "a", Memo(tmp_path / "memo"), strategy="simplecil")
    other = run(source, tmp_path / "b", Memo(tmp_path / "memo"), strategy="simplecil", **change)
    assert (sum(computed for _, computed in counts(other)) == 0) == same


def test_sema_reads_its_prefix_from_the_first_evaluation_on(
    source: ImageSource, tmp_path: Path
) -> None:
    folder = run(source, tmp_path, Memo(tmp_path / "memo"), strategy="sema")
    # Experience 0: its test images after training. Then 48 new train and 10 new test images each,
    # everything else is read.
    assert [computed for _, computed in counts(folder)] == [10, 48 + 10, 48 + 10]


def test_mos_asks_a_stored_set_about_an_image_once(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path, Memo(tmp_path / "memo"), strategy="mos")
    asked = pd.read_parquet(folder / "retrieval.parquet")
    pairs = {
        (sample, int(adapter))
        for sample, owner, visited in zip(
            asked["sample"], asked["target_experience"], asked["visited"], strict=True
        )
        for adapter in [0, *visited]
        if owner >= 0
    }
    assert sum(computed for _, computed in counts(folder)) == len(pairs)


def test_without_keys_nothing_goes_to_disk(
    make_stream: Callable[..., Any], tiny_vit: AdaptedViT, tmp_path: Path
) -> None:
    stream = make_stream([[0, 1], [2, 3]])
    strategy = SimpleCIL(backbone=tiny_vit, memo=Memo(tmp_path / "memo"))
    for experience in stream.train_stream:
        strategy.train(experience)
    strategy.eval(stream.test_stream)
    assert not (tmp_path / "memo").exists()


def test_a_digest_sees_weights_and_behaviour() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    shape = (1, 2, 3)

    def part(module: nn.Module, scale: float = 1.0) -> str:
        weights = module.state_dict().values()
        return part_digest(lambda images: scale * module(images), weights, shape)

    assert part(first) == part(first)
    assert len({part(first), part(second), part(first, 0.5)}) == 3
    linear = nn.Linear(3, 2)
    dead = nn.Sequential(linear, nn.ReLU())
    with torch.no_grad():
        linear.bias.fill_(-100.0)  # silent on the probes, whatever its weights are
    before = part(dead)
    with torch.no_grad():
        linear.weight.mul_(2)
    assert part(dead) != before


def test_rows_beyond_the_memory_are_computed_at_each_use(make_stream: Callable[..., Any]) -> None:
    asked: list[int] = []

    def compute(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return images.flatten(1)

    dataset = make_stream([[0, 1]]).train_stream[0].dataset
    small = FrozenRows(dataset, FrozenPart(compute), same=True, megabytes=0.01)
    large = FrozenRows(dataset, FrozenPart(compute), same=True)
    whole = large.rows(torch.arange(24))
    del asked[:]
    for part in small.in_order(8):
        assert torch.equal(small.rows(part), whole[part])
    assert sum(asked) >= 24
    del asked[:]
    large.rows(torch.tensor([3, 1]))
    assert not asked
