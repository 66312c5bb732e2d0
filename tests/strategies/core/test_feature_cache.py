"""What a frozen part makes of images: the same numbers with a cache, without one, and warm."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from avalanche.core import SupervisedPlugin

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Cache, Evaluation
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.strategies.core.extractors import FeatureExtractor
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.lae import LAE, LAEConfig
from cl_adapters.strategies.simplecil import SimpleCIL
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.killable import stripes
from tests.marks import by_default

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "simplecil": {},
    "lae": {"epochs": 3, "freeze_epochs": 2, "batch_size": 8},
    "mos": {"epochs": 2, "batch_size": 8, "alignment_epochs": 2},
    "sema": {**SLOTS, "epochs": 2, "batch_size": 8, "expandable": 2, "detector": "mahalanobis"},
}
VIEWS: dict[str, Any] = {"augment": "crop_flip", "fixed_views": 2}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=24, test=5)


def run(source: ImageSource, out: Path, cache: FeatureCache | None, **changes: Any) -> Path:
    strategy = changes.pop("strategy", "sema")
    values = {"strategy": strategy, "options": OPTIONS[strategy], **TINY, **changes}
    return runner.run(prepare(RunConfig.parse(values), source=source, cache=cache), out)


def counts(folder: Path) -> list[tuple[int, int]]:
    return [(e.read, e.computed) for e in read_events(folder) if isinstance(e, Cache)]


# Half precision is slow where a processor has to imitate it: the others show that it is kept apart.
IN_HALF = [pytest.param(each, "bf16", marks=pytest.mark.slow) for each in OPTIONS]
IN_FULL = by_default([(each, "fp32") for each in OPTIONS], [("mos", "fp32")])


@pytest.mark.parametrize(("strategy", "precision"), [*IN_FULL, *IN_HALF])
def test_a_cache_off_cold_and_warm_gives_one_result(
    source: ImageSource, tmp_path: Path, strategy: str, precision: str
) -> None:
    caches = None, FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache")
    folders = [
        run(source, tmp_path / str(number), cache, strategy=strategy, precision=precision)
        for number, cache in enumerate(caches)
    ]
    tables = [read_predictions(folder) for folder in folders]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sema", "lae", "mos"])
def test_fixed_views_give_one_result_with_what_is_kept_and_without(
    source: ImageSource, tmp_path: Path, strategy: str
) -> None:
    # Plain: without a cache, and what SEMA and LAE would keep in memory is computed at each use.
    plain = {"cache_megabytes": 0} if strategy == "sema" else {}
    fast = [
        run(source, tmp_path / str(number), cache, **VIEWS, strategy=strategy)
        for number, cache in enumerate(
            (None, FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache"))
        )
    ]
    options = {**OPTIONS[strategy], **plain}
    prepared = prepare(
        RunConfig.parse({"strategy": strategy, "options": options, **TINY, **VIEWS}), source=source
    )
    if strategy == "lae":
        prepared.strategy.train_on_features = lambda _: None  # type: ignore[method-assign]
    tables = [read_predictions(each) for each in fast]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, check_exact=True)
    # Some processors round a row otherwise in a batch of another size; MOS keeps none.
    by_use = read_predictions(runner.run(prepared, tmp_path / "plain"))
    pd.testing.assert_series_equal(tables[0]["prediction"], by_use["prediction"])
    pd.testing.assert_frame_equal(tables[0], by_use, rtol=0, atol=0 if strategy == "mos" else 1e-3)


@pytest.mark.slow
def test_sema_computes_a_view_once_and_at_most_all_of_them(
    source: ImageSource, tmp_path: Path
) -> None:
    options = {**OPTIONS["sema"], "epochs": 12, "views": 6}
    cold, warm, other = (
        run(
            source,
            tmp_path / name,
            FeatureCache(tmp_path / "cache"),
            **VIEWS,
            options=options,
            seed=seed,
        )
        for name, seed in (("cold", 0), ("warm", 0), ("other", 1))
    )
    # 48 new train images of two views each, 10 test images, and for the classes' statistics the
    # train images as they are.
    assert [computed for _, computed in counts(cold)][1:] == [2 * 48 + 48 + 10] * 2
    assert all(computed == 0 for _, computed in counts(warm))
    modes = {e.mode for e in read_events(cold) if isinstance(e, Cache)}
    assert modes == {"2 fixed views"}
    record = RunRecord.read(cold)
    assert record.config["fixed_views"] == record.fingerprint["pixels"]["fixed_views"] == 2
    # Another seed has other adapters in the prefix, so it shares nothing.
    assert sum(computed for _, computed in counts(other)) > 0


def test_views_are_crops_of_the_image_and_their_number_is_kept(source: ImageSource) -> None:
    prepared = prepare(
        RunConfig.parse({"strategy": "lae", **TINY, **VIEWS, "fixed_views": 3}), source=source
    )
    dataset = prepared.benchmark().train_stream[0].dataset
    views = prepared.strategy.augmentation.views
    assert views is not None
    seen: list[set[bytes]] = [set() for _ in range(4)]
    for moment in range(30):
        views.show(str(moment))
        for index, shown in enumerate(seen):
            shown.add(dataset[index][0].numpy().tobytes())
    counts = [len(shown) for shown in seen]
    assert max(counts) == 3  # of so small an image two views may be the same
    assert sum(counts) >= 10
    draws = []
    for moment in range(2):
        views.show(str(moment))
        draws.append([views.shown(key) for key in dataset.pixel_keys])
    assert draws[0] != draws[1]
    assert {0, 1, 2} == set(draws[0])
    prepared.strategy.set_augmentation_seed("again")
    plain = dataset.eval()[0][0]
    assert not torch.equal(dataset[0][0], plain)
    pixels = source.train.read(int(prepared.plan.train[0][0]))
    seed = int.from_bytes(views.key(dataset.pixel_keys[0])[:7], "big")
    shown = replace(prepared.preprocess, as_bytes=True)
    view = shown.train(pixels, torch.Generator().manual_seed(seed))
    assert torch.equal(dataset[0][0], view)


def test_fixed_views_without_augmentation_are_refused(source: ImageSource) -> None:
    config = RunConfig.parse({"strategy": "lae", **TINY, "fixed_views": 2})
    with pytest.raises(InputError, match=r"`fixed_views` must go with an augmentation"):
        prepare(config, source=source)


def test_a_warm_cache_answers_all_and_passes_stay_those_of_the_method(
    source: ImageSource, tmp_path: Path
) -> None:
    cold, warm = (
        run(source, tmp_path / name, FeatureCache(tmp_path / "cache"), strategy="simplecil")
        for name in ("cold", "warm")
    )
    assert counts(cold) == [(0, 48 + 10), (10, 48 + 10), (20, 48 + 10)]
    assert all(computed == 0 for _, computed in counts(warm))
    passes = [e.passes for e in read_events(warm) if isinstance(e, Evaluation)]
    assert passes == [1, 1, 1]
    told = [e for e in read_events(warm) if isinstance(e, Cache)]
    assert [e.earlier_hits for e in told] == [e.read for e in told]
    assert all(e.earlier_hits == 0 for e in read_events(cold) if isinstance(e, Cache))


def test_other_increments_share_what_was_computed(source: ImageSource, tmp_path: Path) -> None:
    run(source, tmp_path / "a", FeatureCache(tmp_path / "cache"), strategy="simplecil")
    other = run(
        source, tmp_path / "b", FeatureCache(tmp_path / "cache"), strategy="simplecil", increment=3
    )
    assert sum(computed for _, computed in counts(other)) == 0


@pytest.mark.parametrize(
    "change",
    by_default(
        [{"precision": "bf16"}, {"input_range": "imagenet"}, {"seed": 0, "backbone": "same"}],
        [{"input_range": "imagenet"}],
    ),
)
def test_another_precision_or_pixels_share_nothing(
    source: ImageSource, tmp_path: Path, change: dict[str, Any]
) -> None:
    same = change.pop("backbone", None) == "same"
    run(source, tmp_path / "a", FeatureCache(tmp_path / "cache"), strategy="simplecil")
    other = run(
        source, tmp_path / "b", FeatureCache(tmp_path / "cache"), strategy="simplecil", **change
    )
    assert (sum(computed for _, computed in counts(other)) == 0) == same


def test_sema_reads_its_prefix_from_the_first_evaluation_on(
    source: ImageSource, tmp_path: Path
) -> None:
    folder = run(source, tmp_path, FeatureCache(tmp_path / "cache"), strategy="sema")
    # Experience 0: its test images after training. Then 48 new train and 10 new test images each,
    # everything else is read.
    assert [computed for _, computed in counts(folder)] == [10, 48 + 10, 48 + 10]


def test_mos_asks_a_stored_set_about_an_image_once(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path, FeatureCache(tmp_path / "cache"), strategy="mos")
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
    strategy = SimpleCIL(backbone=tiny_vit, cache=FeatureCache(tmp_path / "cache"))
    for experience in stream.train_stream:
        strategy.train(experience)
    strategy.eval(stream.test_stream)
    assert not (tmp_path / "cache").exists()


def test_rows_beyond_the_memory_are_computed_at_each_use(make_stream: Callable[..., Any]) -> None:
    asked: list[int] = []

    def compute(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return images.flatten(1)

    dataset = make_stream([[0, 1]]).train_stream[0].dataset
    small = CachedFeatures(dataset, FeatureExtractor(compute), same=True, megabytes=0.01)
    large = CachedFeatures(dataset, FeatureExtractor(compute), same=True)
    assert not large.is_kept
    whole = large.rows(torch.arange(24))
    assert large.is_kept
    del asked[:]
    for part in small.in_order(8):
        assert torch.equal(small.rows(part), whole[part])
    assert sum(asked) >= 24
    assert not small.is_kept
    del asked[:]
    large.rows(torch.tensor([3, 1]))
    assert not asked


def test_a_dataset_with_other_transforms_is_not_answered_from_the_cache(
    source: ImageSource, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path)
    values = {"strategy": "simplecil", **TINY}
    dataset = prepare(RunConfig.parse(values), source=source).benchmark().test_stream[0].dataset

    def rows(of: Any) -> CachedFeatures:
        part = FeatureExtractor(lambda images: images.flatten(1), namespace="ab")
        return CachedFeatures(of, part, same=True, keep=False, cache=cache)

    clean = rows(dataset).rows(torch.arange(4))
    dark = dataset.replace_current_transform_group(
        lambda image: 0 * torch.tensor(image[..., 0]) + 1.0
    )
    assert rows(dataset).is_kept
    assert not rows(dark).is_kept
    assert torch.equal(rows(dark).rows(torch.arange(4)), torch.ones(4, 144))
    assert torch.equal(rows(dataset).rows(torch.arange(4)), clean)


def test_a_dataset_that_would_fill_the_cache_stays_out_of_it(
    source: ImageSource, tmp_path: Path
) -> None:
    small = run(source, tmp_path / "a", FeatureCache(tmp_path / "cache", megabytes=0.005))
    assert counts(small)[0] == (0, 0)
    assert not list((tmp_path / "cache").glob("*/*"))


def test_replay_keeps_its_loader(make_stream: Callable[..., Any], tiny_vit: AdaptedViT) -> None:
    class Mixed(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
        """Puts a loader of its own in place, as replay does."""

        def before_training_exp(self, strategy: Any, **_: Any) -> None:
            strategy.dataloader = list(strategy.dataloader)[:1]

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            steps.append(len(strategy.dataloader))

    steps: list[int] = []
    stream = make_stream([[0, 1], [2, 3]])
    options = LAEConfig(epochs=3, freeze_epochs=1, batch_size=8)
    strategy = LAE(backbone=tiny_vit, config=options, plugins=[Mixed()], fixed_views=True)
    for experience in stream.train_stream:
        strategy.train(experience)
    assert steps == [1] * 6


def test_rows_on_disk_are_those_of_the_view_that_is_shown(
    source: ImageSource, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path)
    prepared = prepare(RunConfig.parse({"strategy": "lae", **TINY, **VIEWS}), source=source)
    dataset: Any = prepared.benchmark().train_stream[0].dataset.train()
    views: Any = prepared.strategy.augmentation.fixed_views
    part = FeatureExtractor(lambda images: images.float().flatten(1), namespace="ab")
    kept = CachedFeatures(dataset, part, same=views, keep=False, cache=cache)
    shown = []
    for moment in ("a", "b", "c", "a"):
        views.show(moment)
        expected = torch.stack([dataset[index][0] for index in range(6)]).float().flatten(1)
        assert torch.equal(kept.rows(torch.arange(6)), expected)
        shown.append(expected)
    assert not torch.equal(shown[0], shown[1])
    assert 6 < cache.computed <= 12  # at most two views of each
