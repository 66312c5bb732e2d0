"""Gradients at frozen weights against autograd in a copy of the network, without any slot."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slot
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone
from cl_adapters.vit.site_gradients import calibrate_by_gradient, site_gradients

LABELS = torch.tensor([3, 0, 3, 5, 0, 3])


def images() -> Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(images()[:4], LABELS[:4]), (images()[4:], LABELS[4:])]


def by_autograd(network: AdaptedViT) -> nn.Module:
    vit = copy.deepcopy(network.vit).requires_grad_(requires_grad=True)
    features = vit.forward_head(vit.forward_features(images()), pre_logits=True)
    unit = nn.functional.normalize(features, dim=1)
    means = torch.stack([features[label == LABELS].mean(dim=0) for label in (0, 3, 5)]).detach()
    total = torch.zeros(())
    for row, label in zip(unit, LABELS.tolist(), strict=True):
        logits = 10 * torch.stack([row @ mean / mean.norm() for mean in means])
        total = total - (logits - logits.logsumexp(dim=0))[[0, 3, 5].index(label)]
    (total / 6).backward()
    return vit


def test_they_are_those_of_the_frozen_weights_themselves() -> None:
    network = tiny_backbone()
    places: list[tuple[Slot, int]] = [
        ("key_value", 0),
        ("qkv", 2),
        ("proj", 1),
        ("fc1", 3),
        ("fc2", 0),
    ]
    found = site_gradients(network, places, batches())
    blocks = by_autograd(network).blocks  # type: ignore[union-attr]
    expected = [
        blocks[0].attn.qkv.weight.grad[32:],  # type: ignore[index]
        blocks[2].attn.qkv.weight.grad,  # type: ignore[index]
        blocks[1].attn.proj.weight.grad,  # type: ignore[index]
        blocks[3].mlp.fc1.weight.grad,  # type: ignore[index]
        blocks[0].mlp.fc2.weight.grad,  # type: ignore[index]
    ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
        assert one.abs().max() > 1e-4
    assert network.num_passes == 2 * 6
    assert all(value.grad is None for value in network.parameters())


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[Slot, Tensor]] = []

    @property
    def awaits_gradient(self) -> bool:
        return not self.seen

    def calibrate_by(self, gradients: dict[Slot, Tensor]) -> None:
        self.seen.append(gradients)


def test_each_module_that_asks_is_shown_those_of_its_slots_once() -> None:
    network = tiny_backbone()
    one, two, deaf = Asks(), Asks(), nn.Linear(2, 2)
    sets = [
        AdapterSet({(("fc1", "fc2"), 1): one, ("mlp", 1): deaf}),
        AdapterSet({("fc1", 1): two}),
    ]
    calibrate_by_gradient(network, sets, batches())
    first, second = site_gradients(network, [("fc1", 1), ("fc2", 1)], batches())
    assert torch.equal(one.seen[0]["fc1"], first)
    assert torch.equal(one.seen[0]["fc2"], second)
    assert torch.equal(two.seen[0]["fc1"], first)
    passes = network.num_passes
    calibrate_by_gradient(network, sets, [])  # nobody asks any more
    assert network.num_passes == passes


def test_what_has_no_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="of at least one image, got none"):
        calibrate_by_gradient(tiny_backbone(), [AdapterSet({("fc1", 1): Asks()})], [])
    with pytest.raises(InputError, match="at frozen weights, got slot 'mlp', which has none"):
        site_gradients(tiny_backbone(), [("mlp", 1)], batches())
