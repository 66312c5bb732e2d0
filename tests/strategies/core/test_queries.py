"""A method that takes frozen features beside images gets each image's own, computed once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.strategies.core.config import TrainedConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.killable import stripes

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
TRAIN, TEST, EPOCHS = 2 * 6, 2 * 3, 3  # images of an experience, and epochs


class PromptedModel(nn.Module):
    """Chooses a prompt by the query and adds it to the features, as prompt pools do."""

    def __init__(self, backbone: AdaptedViT) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompts = nn.Parameter(torch.zeros(2, backbone.embed_dim))
        self.heads = ExperienceHeads(backbone.embed_dim)
        self.seen: list[tuple[bool, Tensor, Tensor]] = []

    def forward(self, images: Tensor, queries: Tensor) -> Tensor:
        self.seen.append((self.training, images.clone(), queries.clone()))
        chosen = (queries[:, 0] > 0).long()
        logits: Tensor = self.heads(self.backbone(images) + self.prompts[chosen])
        return logits


class Prompted(AdapterStrategy):
    """Trains a pool of two prompts."""

    config_class = TrainedConfig
    model: PromptedModel
    computed = 0

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: Any, seed: int) -> nn.Module:
        return PromptedModel(backbone)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        self.model.heads.add_classes(classes, generator)

    def query_features(self) -> FeatureExtractor:
        return self.features.feature_extractor(self.query, self.backbone)

    def query(self, images: Tensor) -> Tensor:
        self.computed += len(images)
        features: Tensor = self.backbone(images)
        return features


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=6, test=3)


def prepared(source: ImageSource, cache: FeatureCache | None, **pixels: Any) -> PreparedRun:
    reference = f"{__name__}:Prompted"
    options = {"epochs": EPOCHS, "batch_size": 5}
    values = {"strategy": reference, "options": options, **TINY, **pixels}
    return prepare(RunConfig.parse(values), source=source, cache=cache)


def assert_queries_are_of_their_images(strategy: Any) -> None:
    assert {training for training, _, _ in strategy.model.seen} == {True, False}
    for _, images, queries in strategy.model.seen:
        with torch.no_grad():
            expected = strategy.backbone(images)
        torch.testing.assert_close(queries, expected, rtol=1e-4, atol=1e-5)
        assert not queries.requires_grad
        # Images differ enough that a query of another would be noticed.
        others = expected.roll(1, dims=0)
        assert len(images) == 1 or not torch.allclose(queries, others, rtol=1e-4, atol=1e-5)


def learn(made: PreparedRun) -> list[int]:
    """Trains and evaluates two experiences; returns how many queries each of these computed."""
    strategy: Any = made.strategy
    benchmark, counts = made.benchmark(), []
    for number, experience in enumerate(benchmark.train_stream[:2]):
        steps: list[Callable[[], Any]] = [
            lambda each=experience: strategy.train(each),
            lambda last=number: strategy.eval(benchmark.test_stream[: last + 1]),
        ]
        for step in steps:
            before = strategy.computed
            step()
            counts.append(strategy.computed - before)
    assert_queries_are_of_their_images(strategy)
    return counts


PROBES = 2  # images by which a cache knows a frozen part


def test_queries_of_images_that_repeat_are_computed_once(source: ImageSource) -> None:
    assert learn(prepared(source, None)) == [TRAIN, TEST, TRAIN, 2 * TEST]


@pytest.mark.slow
def test_with_a_cache_no_image_is_computed_twice_nor_by_another_run(
    source: ImageSource, tmp_path: Path
) -> None:
    counts = []
    for _ in range(2):
        cache = FeatureCache(tmp_path / "cache")
        counts.append(learn(prepared(source, cache)))
        cache.flush()
    cold, warm = counts
    # The second evaluation has one test experience more.
    assert cold == [TRAIN + PROBES, TEST, TRAIN, TEST]
    assert warm == [PROBES, 0, 0, 0]


@pytest.mark.parametrize("has_cache", [False, True])
def test_of_fixed_views_each_is_computed_at_most_once(
    source: ImageSource, tmp_path: Path, *, has_cache: bool
) -> None:
    cache = FeatureCache(tmp_path / "cache") if has_cache else None
    made = prepared(source, cache, augment="crop_flip", fixed_views=2)
    first, _, second, _ = learn(made)
    probes = PROBES if has_cache else 0
    assert TRAIN < first - probes <= 2 * TRAIN  # three epochs show an image in one view or in two
    assert TRAIN < second <= 2 * TRAIN


def test_new_views_are_queried_as_they_are_shown(source: ImageSource) -> None:
    counts = learn(prepared(source, None, augment="crop_flip"))
    assert counts == [EPOCHS * TRAIN, TEST, EPOCHS * TRAIN, 2 * TEST]


def test_a_strangers_dataset_is_queried_batch_by_batch(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = Prompted(backbone=tiny_vit, config=TrainedConfig(epochs=2, batch_size=5))
    benchmark = make_stream([[0, 1], [2, 3]])
    for experience in benchmark.train_stream:
        strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    assert_queries_are_of_their_images(strategy)
    assert strategy.computed == 2 * 2 * 24 + 2 * 12
