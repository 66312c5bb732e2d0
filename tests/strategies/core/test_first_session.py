"""First-session adaptation: equal to a plain loop, and frozen for good after the first experience."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial, copied
from cl_adapters.strategies.core.first_session import FirstSession, FirstSessionConfig
from cl_adapters.strategies.core.optimizers import set_cosine_rates
from cl_adapters.strategies.core.output import Phase
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone


class AdaptedMeans(nn.Module):
    def __init__(self, backbone: AdaptedViT, config: FirstSessionConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.first = FirstSession(backbone, config, seed)
        self.means = PrototypeHead(backbone.embed_dim, scale=10.0)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.first.logits(self.backbone, images)
        return self.means(self.first.features(self.backbone, images))


class AdaptedMeansStrategy(AdapterStrategy):
    """Class means on features that the first experience has adapted."""

    config_class = FirstSessionConfig
    config: FirstSessionConfig
    model: AdaptedMeans

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: Any, seed: int) -> AdaptedMeans:
        return AdaptedMeans(backbone, config, seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        self.model.first.add_classes(classes, generator)
        self.model.means.add_classes(classes)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return self.model.first.optimizer(self.config)

    def begin_epoch(self, epoch: int) -> None:
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def phases(self) -> Iterator[Phase]:
        yield from self.model.first.phases(self.classes_by_experience, self.config)

    @torch.no_grad()
    def end_experience(self) -> None:
        for images, labels in self.plain_images():
            self.model.means.add(self.model.first.features(self.backbone, images), labels)


def test_it_is_a_sound_strategy() -> None:
    names = ["answers", "backbone", "declares", "seen_classes", "seeds", "resumes", "small"]
    assert check_strategy(AdaptedMeansStrategy, checks=[*names, "resumes_inside"]) == []


def test_only_the_first_experience_trains_it() -> None:
    strategy = Trial(AdaptedMeansStrategy).build()
    before = copied(strategy.learned_state())
    run = Trial(AdaptedMeansStrategy).train(strategy, TinyStream())
    first, *later = ({k: v for k, v in s.items() if k.startswith("first.")} for s in run.states)
    assert not torch.equal(first["first.adapters.up"], before["first.adapters.up"])
    for state in later:
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_it_learns_what_a_plain_loop_learns() -> None:
    # One batch an epoch, so that no order matters; torch's own SGD, cosine and cross-entropy.
    trial = Trial(AdaptedMeansStrategy, {"batch_size": 24, "epochs": 3, "lr": 0.1})
    stream = TinyStream(experiences=((0, 1),))
    strategy = trial.build()
    images, labels = stream.train_sets[0].tensors
    model = AdaptedMeans(tiny_backbone(), trial.config, 0)
    model.first.add_classes([0, 1], _weights(strategy))
    trained = list(model.first.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2
        weight = torch.cat([layer.weight for layer in model.first.head.layers])
        features = model.backbone(images, model.first.adapters.adapters())
        cosines = nn.functional.normalize(features) @ nn.functional.normalize(weight).T
        loss = nn.functional.cross_entropy(model.first.head.scale * cosines, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    strategy.train(stream.benchmark.train_stream[0])
    expected, found = model.first.state_dict(), strategy.model.first.state_dict()
    assert found["head.scale"] != 1
    for name, value in expected.items():
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
