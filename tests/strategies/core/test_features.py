"""A namespace stands for all that decides about features, and is found again without work."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.peft.bank import AdapterBank, AdapterStack
from cl_adapters.peft.registry import PARALLEL
from cl_adapters.strategies.core import features as features_module
from cl_adapters.strategies.core.extractors import extractor_digest
from cl_adapters.strategies.core.features import Features
from cl_adapters.vit.adapted_vit import AdaptedViT


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the arguments of each digest that is computed."""
    calls: list[Any] = []

    def counted(*arguments: Any) -> tuple[str, int]:
        calls.append(arguments)
        return extractor_digest(*arguments)

    monkeypatch.setattr(features_module, "extractor_digest", counted)
    return calls


@pytest.fixture
def features(tiny_vit: AdaptedViT, tmp_path: Any) -> Features:
    cache = FeatureCache(tmp_path / "cache")
    return Features(tiny_vit, torch.device("cpu"), half=False, cache=cache)


def written_in_place(vit: AdaptedViT) -> None:
    next(vit.parameters()).add_(1)


def set_through_data(vit: AdaptedViT) -> None:
    vit.vit.blocks[0].mlp.fc1.bias.data[0] += 1e-7  # which torch's counters of versions miss


def replaced(vit: AdaptedViT) -> None:
    norm = vit.vit.norm
    norm.weight = nn.Parameter(norm.weight * 1.5, requires_grad=False)


def permuted(vit: AdaptedViT) -> None:
    first = vit.vit.blocks[0].mlp.fc1.weight
    first[[0, 1]] = first[[1, 0]].clone()


def loaded(vit: AdaptedViT) -> None:
    vit.load_state_dict({name: value * 0.5 for name, value in vit.state_dict().items()})


@pytest.mark.parametrize("write", [written_in_place, set_through_data, replaced, permuted, loaded])
@torch.no_grad()
def test_the_backbone_is_digested_once_and_again_when_it_was_written_to(
    tiny_vit: AdaptedViT, features: Features, asked: list[Any], write: Any
) -> None:
    names = [features.feature_extractor(tiny_vit, tiny_vit).namespace for _ in range(3)]
    assert len(set(names)) == 1
    assert names[0]
    assert len(asked) == 1
    before = {name: value.clone() for name, value in tiny_vit.state_dict().items()}
    write(tiny_vit)
    other = features.feature_extractor(tiny_vit, tiny_vit).namespace
    assert other != names[0]
    assert len(asked) == 2
    features.feature_extractor(tiny_vit, tiny_vit)
    assert len(asked) == 2
    tiny_vit.load_state_dict(before)
    assert features.feature_extractor(tiny_vit, tiny_vit).namespace == names[0]


def test_what_stands_beside_the_backbone_is_digested_too(
    tiny_vit: AdaptedViT, features: Features
) -> None:
    gain = nn.Linear(tiny_vit.embed_dim, 2)

    def compute(images: Tensor) -> Tensor:
        found: Tensor = gain(tiny_vit(images))
        return found

    def name() -> str:
        return features.feature_extractor(compute, tiny_vit, gain).namespace

    first = name()
    assert name() == first
    with torch.no_grad():
        gain.bias[1] += 1
    assert name() != first
    assert features.feature_extractor(compute).namespace == ""  # not to be kept on disk


def test_digests_are_no_passes_of_images(tiny_vit: AdaptedViT, features: Features) -> None:
    features.feature_extractor(tiny_vit, tiny_vit)
    assert tiny_vit.num_passes == 0


def test_a_digest_sees_weights_and_behaviour() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    shape = (1, 2, 3)

    def part(module: nn.Module, scale: float = 1.0) -> str:
        weights = module.state_dict().values()
        return extractor_digest(lambda images: scale * module(images), weights, shape)[0]

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


def test_sets_that_may_change_are_digested_again_and_settled_ones_are_not(
    features: Features, asked: list[Any]
) -> None:
    draws = torch.Generator().manual_seed(0)
    stack = AdapterStack.build(PARALLEL, embed_dim=64, blocks=6, size=2, generator=draws)
    bank = AdapterBank(stack)
    for _ in range(3):
        with torch.no_grad():
            for value in stack.tensors():
                value.normal_(generator=draws)
        bank.append(stack.tensors())
    first = features.adapter_feature_extractor(bank, settled=2).sets
    count = len(asked)
    bank.cut(2)
    bank.append(stack.tensors())  # the same, but this could not be known
    assert features.adapter_feature_extractor(bank, settled=2).sets == first
    assert len(asked) == count + 1
    bank.cut(2)
    bank.append([value + 1 for value in stack.tensors()])
    again = features.adapter_feature_extractor(bank, settled=2).sets
    assert again[:2] == first[:2]
    assert again[2] != first[2]


def test_shuffled_images_are_the_training_views_each_once(
    features: Features, make_stream: Any
) -> None:
    experience = make_stream([[0, 1]], per_class=5).train_stream[0]
    rows = [
        list(
            features.shuffled_images(
                experience.dataset, torch.Generator().manual_seed(seed), batch_size=4
            )
        )
        for seed in (0, 0, 1)
    ]
    assert [len(labels) for _, labels in rows[0]] == [4, 4, 2]
    orders = [torch.cat([images for images, _ in each]).flatten(1) for each in rows]
    plain = torch.stack([experience.dataset[index][0] for index in range(10)]).flatten(1)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0].sort(dim=0).values, plain.sort(dim=0).values)
    for images, labels in rows[0]:  # labels stay with their images
        for image, label in zip(images.flatten(1), labels, strict=True):
            place = (plain == image).all(dim=1).nonzero().item()
            assert experience.dataset[int(place)][1] == label
