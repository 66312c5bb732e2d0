"""First-session adaptation: equal to a plain loop, and frozen for good after the first experience."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial, copied
from cl_adapters.strategies.core.first_session import (
    FirstSession,
    FirstSessionConfig,
    FirstSessionModel,
    FirstSessionStrategy,
)
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone


class AdaptedMeans(FirstSessionStrategy):
    """Class means on features that the first experience has adapted."""

    config_class = FirstSessionConfig

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: Any, seed: int) -> FirstSessionModel:
        return FirstSessionModel(backbone, config, seed, PrototypeHead(backbone.embed_dim))

    def end_experience(self) -> None:
        for features, labels in self.plain_features():
            self.model.head.add(features, labels)


def test_it_is_a_sound_strategy() -> None:
    names = ["answers", "backbone", "declares", "seen_classes", "seeds", "resumes", "small"]
    assert check_strategy(AdaptedMeans, checks=[*names, "resumes_inside"]) == []


def test_only_the_first_experience_trains_it() -> None:
    strategy = Trial(AdaptedMeans).build()
    before = copied(strategy.learned_state())
    run = Trial(AdaptedMeans).train(strategy, TinyStream())
    first, *later = ({k: v for k, v in s.items() if k.startswith("first.")} for s in run.states)
    assert not torch.equal(first["first.adapters.up"], before["first.adapters.up"])
    for state in later:
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_it_learns_what_a_plain_loop_learns() -> None:
    # One batch an epoch, so that no order matters; torch's own SGD, cosine and cross-entropy.
    options = {"batch_size": 24, "epochs": 3, "lr": 0.1, "dropout": 0.0, "size": 7}
    trial = Trial(AdaptedMeans, options)
    stream = TinyStream(experiences=((0, 1),))
    strategy = trial.build()
    images, labels = stream.train_sets[0].tensors
    network, first = tiny_backbone(), FirstSession(tiny_backbone(), trial.config, 0)
    first.add_classes([0, 1], _weights(strategy))
    trained = list(first.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2
        weight = torch.cat([layer.weight for layer in first.head.layers])
        features = network(images, first.adapters.adapters())
        cosines = nn.functional.normalize(features) @ nn.functional.normalize(weight).T
        loss = nn.functional.cross_entropy(first.head.scale * cosines, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    strategy.train(stream.benchmark.train_stream[0])
    expected, found = first.state_dict(), strategy.model.first.state_dict()
    assert found["head.scale"] != 1
    assert found["adapters.down"].shape == (4, 7, 32)
    for name, value in expected.items():
        if name != "is_over":
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def _weights(strategy: AdapterStrategy) -> torch.Generator:
    # As the strategy draws them once the first experience has begun.
    strategy.classes_by_experience.append(())
    generator = strategy.generator("weights")
    strategy.classes_by_experience.pop()
    return generator


def test_the_head_has_the_classes_of_the_first_experience_alone(tiny_vit: AdaptedViT) -> None:
    first, draws = FirstSession(tiny_vit, FirstSessionConfig(), 0), torch.Generator().manual_seed(0)
    first.add_classes([2, 0], draws)
    first.add_classes([1, 3], draws)
    assert first.head.classes == [2, 0]


def test_the_published_adapter_is_the_default_and_other_kinds_have_their_own_size() -> None:
    stack = FirstSession(tiny_backbone(), FirstSessionConfig(), 0).adapters
    assert stack.down.shape == (4, 64, 32)
    assert (stack.template.module.scale, stack.template.dropout) == (1.0, 0.1)
    official = FirstSession(tiny_backbone(), FirstSessionConfig.official(), 0).adapters
    assert official.template.module.scale == 0.1
    lora = FirstSession(tiny_backbone(), FirstSessionConfig(peft="lora"), 0).adapters
    assert getattr(lora, "peft-key_down").shape == (4, 5, 32)
    with pytest.raises(InputError, match="`dropout` must stay at 0.1 with peft 'lora'"):
        FirstSessionConfig().override({"peft": "lora", "dropout": 0.0})


def test_a_first_experience_of_one_class_trains_nothing() -> None:
    trial = Trial(AdaptedMeans)
    strategy = trial.build()
    before = copied(strategy.learned_state())
    run = trial.train(strategy, TinyStream(experiences=((2,), (0, 1))))
    names = [name for name in before if name.startswith("first.adapters.")]
    assert names
    assert all(torch.equal(run.states[-1][name], before[name]) for name in names)
    images = torch.cat([each.tensors[0] for each in TinyStream().test_sets])
    with torch.no_grad():  # a new adapter adds nothing: features are the backbone's
        assert torch.equal(strategy.model.eval().features(images), tiny_backbone()(images))


def test_a_first_experience_of_one_class_is_refused_where_that_is_asked_for() -> None:
    trial = Trial(AdaptedMeans, {"one_class": "refuse"})
    strategy, stream = trial.build(), TinyStream(experiences=((2,), (0, 1)))
    with pytest.raises(InputError, match="at least 2 classes to train a first session, got 1;"):
        strategy.train(stream.benchmark.train_stream[0])
    assert strategy.classes_seen == []
    # A later one of one class is none of its business, nor is any without a first session.
    trial.train(trial.build(), TinyStream(experiences=((0, 1), (2,))), only_last=True)
    options = {"one_class": "refuse", "first_session": False}
    trial = Trial(AdaptedMeans, options)
    trial.train(trial.build(), stream, only_last=True)


def test_the_trained_head_answers_until_the_session_is_over() -> None:
    strategy, images = Trial(AdaptedMeans).build(), torch.randn(4, 3, 16, 16)
    model = strategy.model.eval()
    strategy.register_classes((0, 1))
    cosines = model(images)
    assert cosines.abs().max() <= 1
    assert strategy.frozen_features() is None
    model.first.is_over.fill_(value=True)
    assert (model(images) == -1000).all()  # class means of no image


def test_the_cache_holds_the_adapted_features(tmp_path: Path) -> None:
    plain, cached = (
        Trial(AdaptedMeans, {"lr": 0.5}).build(cache=cache)
        for cache in (None, FeatureCache(tmp_path))
    )
    stream = TinyStream()
    runs = [Trial(AdaptedMeans).train(each, stream) for each in (plain, cached)]
    assert torch.equal(runs[0].outputs[-1], runs[1].outputs[-1])
    extractor = cached.frozen_features()
    bare = cached.features.feature_extractor(cached.backbone, cached.backbone)
    assert extractor is not None
    assert extractor.namespace not in {"", bare.namespace}
    images = stream.test_sets[0].tensors[0]
    with torch.no_grad():
        assert torch.equal(extractor.compute(images), cached.model.features(images))
