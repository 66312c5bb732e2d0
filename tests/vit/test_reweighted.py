"""Networks with other weights than their own, against hooks and plain copies."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.reweighted import (
    OwnWeights,
    ScaleShift,
    as_differences,
    from_differences,
)


def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def scaled(module: nn.Module, gain: Tensor, shift: Tensor) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if output.ndim == 4:  # the patch projection: channels stand in front
            return output * gain[:, None, None] + shift[:, None, None]
        return output * gain + shift

    return module.register_forward_hook(hook)


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"qkv_bias": False}])
def test_scale_and_shift_are_what_stands_behind_each_layer(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    vit = AdaptedViT(timm.create_model("test_vit", num_classes=0, img_size=32, **options))
    module = ScaleShift(vit, torch.Generator().manual_seed(0))
    merged = module.features(vit, images())
    places = {name.removeprefix("vit-").replace("-", "."): name for name in module.gains}
    layers = [name.rpartition(".")[2] for name in places]
    assert len(places) == 6 * vit.num_blocks + 2
    last = "fc_norm" if options == {"global_pool": "avg"} else "norm"
    assert (layers[0], layers[1], layers[-1]) == ("proj", "norm1", last)
    handles = [
        scaled(vit.vit.get_submodule(place), module.gains[name], module.shifts[name])
        for place, name in places.items()
    ]
    torch.testing.assert_close(vit(images()), merged, atol=1e-5, rtol=1e-4)
    for each in handles:
        each.remove()
    assert not torch.allclose(vit(images()), merged)


def test_without_scale_and_shift_it_is_the_network_itself(tiny_vit: AdaptedViT) -> None:
    module = ScaleShift(tiny_vit, torch.Generator().manual_seed(0))
    for gain, shift in zip(module.gains.values(), module.shifts.values(), strict=True):
        gain.data.fill_(1)
        shift.data.zero_()
    assert torch.equal(module.features(tiny_vit, images()), tiny_vit(images()))


def test_of_a_vit_b_it_has_as_many_numbers_as_published() -> None:
    with torch.device("meta"):
        vit = AdaptedViT(timm.create_model("vit_base_patch16_224", num_classes=0))
    module = ScaleShift(vit, torch.Generator().manual_seed(0))
    values = torch.cat(list(module.gains.values()))
    assert sum(value.numel() for value in module.parameters()) == 205_824
    assert values.mean().item() == pytest.approx(1, abs=1e-3)
    assert values.std().item() == pytest.approx(0.02, rel=0.02)


def test_own_weights_are_trained_and_the_network_s_stay(tiny_vit: AdaptedViT) -> None:
    before = copy.deepcopy(tiny_vit.state_dict())
    module, twin = OwnWeights(tiny_vit), copy.deepcopy(tiny_vit)
    assert torch.equal(module.features(tiny_vit, images()), tiny_vit(images()))
    # The same step on a copy of the network by plain torch.
    twin.vit.requires_grad_(requires_grad=True)
    for parameters, run in (
        (list(module.parameters()), lambda: module.features(tiny_vit, images())),
        (list(twin.parameters()), lambda: twin(images())),
    ):
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
        for _ in range(2):
            optimizer.zero_grad()
            run().square().mean().backward()
            optimizer.step()
    expected = twin(images())
    torch.testing.assert_close(module.features(tiny_vit, images()), expected)
    assert not torch.allclose(expected, tiny_vit(images()))
    assert all(torch.equal(value, before[name]) for name, value in tiny_vit.state_dict().items())
    assert all(value.grad is None for value in tiny_vit.parameters())


def test_states_of_copies_are_stored_as_differences_and_others_as_they_are(
    tiny_vit: AdaptedViT,
) -> None:
    model = nn.ModuleDict({"own": OwnWeights(tiny_vit), "head": nn.Linear(3, 2)})
    draws = torch.Generator().manual_seed(2)
    for value in model["own"].parameters():
        value.data += 1e-4 * torch.randn(value.shape, generator=draws)
    state = model.state_dict()
    stored = as_differences(model, tiny_vit, state)
    assert sorted(stored) == ["head.bias", "head.weight", "own.difference"]
    assert len(stored["own.difference"]) < 0.75 * sum(each.nbytes for each in state.values())
    fresh = nn.ModuleDict({"own": OwnWeights(tiny_vit), "head": nn.Linear(3, 2)})
    for given in (stored, state):
        found = from_differences(fresh, tiny_vit, given)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
    alone = OwnWeights(tiny_vit)
    assert list(as_differences(alone, tiny_vit, alone.state_dict())) == ["difference"]


def test_a_copy_in_half_precision_comes_back_bit_for_bit(tiny_vit: AdaptedViT) -> None:
    half = copy.deepcopy(tiny_vit).to(torch.bfloat16)
    model = OwnWeights(half)
    for value in model.parameters():
        value.data *= 1.01
    state, fresh = model.state_dict(), OwnWeights(half)
    fresh.load_state_dict(from_differences(fresh, half, as_differences(model, half, state)))
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())
    assert next(fresh.parameters()).dtype == torch.bfloat16


def test_the_network_counts_the_passes(tiny_vit: AdaptedViT) -> None:
    OwnWeights(tiny_vit).features(tiny_vit, images())
    assert tiny_vit.num_passes == 3
