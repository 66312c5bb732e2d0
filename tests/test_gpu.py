"""The same code on a GPU: results near the CPU's, and nothing that names the device by hand."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cl_adapters.benchmarks.bench import Bench, BenchSettings
from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.events import read_events
from cl_adapters.records.tables import read_predictions
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.killable import stripes

ROOT = Path(__file__).parents[1]
OPTIONS: dict[str, dict[str, Any]] = {
    "simplecil": {},
    "finetune": {"epochs": 2, "batch_size": 8},
    "joint": {"epochs": 2, "batch_size": 8},
    "lae": {"epochs": 3, "freeze_epochs": 2, "batch_size": 8},
    "mos": {"epochs": 2, "batch_size": 8, "alignment_epochs": 2},
    "sema": {"epochs": 2, "batch_size": 8, "expandable": 2, "policy": "every_experience"},
}
LOW_RANK: dict[str, dict[str, Any]] = {
    "acmap": {"epochs": 2, "batch_size": 8, "size": 4},
    "cl_lora": {"epochs": 2, "batch_size": 8, "rank": 4},
    "inflora": {"epochs": 2, "batch_size": 8, "rank": 4},
    "sd_lora": {"epochs": 2, "batch_size": 8, "rank": 4},
}
VIEWS = {"augment": "crop_flip", "fixed_views": 2}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=24, test=10)


def train(
    source: ImageSource, out: Path, cache: FeatureCache | None = None, **changes: Any
) -> Path:
    values = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
    options = {"options": {**OPTIONS, **LOW_RANK}[changes["strategy"]]}
    config = RunConfig.parse({**values, **options, **changes})
    return run(prepare(config, source=source, cache=cache), out)


def test_no_source_names_a_gpu_by_hand() -> None:
    calls = (".cuda(", 'to("cuda', "to('cuda")
    for folder in ("cl_adapters", "strategies", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            assert not [call for call in calls if call in text], path


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", OPTIONS)
@pytest.mark.parametrize("pixels", [{}, VIEWS], ids=["plain", "views"])
def test_a_gpu_predicts_as_the_cpu_does(
    source: ImageSource, tmp_path: Path, strategy: str, pixels: dict[str, Any]
) -> None:
    tables = [
        read_predictions(
            train(source, tmp_path / device, strategy=strategy, device=device, **pixels)
        )
        for device in ("cpu", "cuda")
    ]
    keys = ["experience", "sample", "target"]
    pd.testing.assert_frame_equal(tables[0][keys], tables[1][keys])
    # Rounding differs, and training carries it on: the answers agree but for the closest calls.
    agree = (tables[0]["prediction"] == tables[1]["prediction"]).mean()
    assert agree >= 0.97
    assert (tables[0]["confidence"] - tables[1]["confidence"]).abs().median() < 1e-2


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", LOW_RANK)
def test_low_rank_updates_and_merged_sets_are_learned_on_a_gpu(
    source: ImageSource, tmp_path: Path, strategy: str
) -> None:
    # How near the CPU's their answers are is not said: directions that are about as strong as each
    # other may change places.
    found = read_predictions(train(source, tmp_path, strategy=strategy, device="cuda"))
    assert found["experience"].nunique() == 3
    assert found["confidence"].between(0, 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["simplecil", "sema", "mos"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_memo_on_a_gpu_answers_all_and_changes_little(
    source: ImageSource, tmp_path: Path, strategy: str, precision: str
) -> None:
    cache = tmp_path / "cache"
    folders = [
        train(source, tmp_path / name, kept, strategy=strategy, device="cuda", precision=precision)
        for name, kept in (
            ("off", None),
            ("cold", FeatureCache(cache)),
            ("warm", FeatureCache(cache)),
        )
    ]
    tables = [read_predictions(folder) for folder in folders]
    for table in tables[1:]:
        assert (tables[0]["prediction"] == table["prediction"]).mean() >= 0.97
    counts = [e for e in read_events(folders[2]) if e.event == "cache"]
    assert sum(e.read for e in counts) > 0
    peaks = [e.peak_bytes for e in read_events(folders[0]) if e.event == "memory"]
    assert min(peaks) > 0


@pytest.mark.gpu
def test_a_run_on_a_gpu_does_not_wait_in_its_steps(source: ImageSource) -> None:
    # torch itself tells of each wait.
    for strategy in ("sema", "lae", "mos", "finetune"):
        values = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
        config = RunConfig.parse(
            {**values, "strategy": strategy, "options": OPTIONS[strategy], "device": "cuda"}
        )
        prepared = prepare(config, source=source)
        strategy_ = prepared.strategy
        for name in ("_unpack_minibatch", "forward", "criterion", "optimizer_step", "after_step"):
            setattr(strategy_, name, _not_waiting(getattr(strategy_, name), strategy_))
        for experience in prepared.benchmark().train_stream:
            strategy_.train(experience)


def _not_waiting(step: Any, strategy: Any) -> Any:
    def run_step() -> Any:
        # What is set in closed form is solved for once, when it is first asked.
        is_step = strategy.is_training and strategy.clock.train_epoch_iterations > 0
        torch.cuda.set_sync_debug_mode("error" if is_step else "default")
        try:
            return step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return run_step


@pytest.mark.gpu
def test_pixels_and_losses_that_are_no_numbers_are_told_on_a_gpu(
    source: ImageSource, tmp_path: Path, tiny_vit: AdaptedViT
) -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"pixels must be finite, .* image 1 of the batch"):
        tiny_vit.inputs(images, torch.device("cuda"))
    exploding = {"epochs": 2, "batch_size": 8, "lr": 1e12}
    with pytest.raises(RunError, match=r"(features|loss) must .* epoch [01], batch"):
        train(source, tmp_path, strategy="finetune", device="cuda", options=exploding)


@pytest.mark.gpu
def test_the_bench_names_the_chip(tmp_path: Path) -> None:
    bench = Bench(
        BenchSettings(backbone="test_vit", image_size=32, train=24, test=6, device="cuda")
    )
    bench.run(["simplecil"], lengths=(5,))
    bench.write(tmp_path / "bench.json")
    assert torch.cuda.get_device_name() in (tmp_path / "bench.json").read_text()
