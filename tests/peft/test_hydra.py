"""Hydra against the worked example, one merged layer, and LoRA."""

import pytest
import torch
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.hydra import Hydra
from cl_adapters.peft.site import Site


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hydra(dim: int, rank: int, scale: float = 1.0, dropout: float = 0.0) -> Hydra:
    sites: dict[Slot, Site] = {
        slot: Site(slot, 0, taken, dim, None) for slot, taken in (("proj", dim), ("fc2", 4 * dim))
    }
    return Hydra(dim, rank, scale=scale, dropout=dropout, generator=seeded(), sites=sites)


@torch.no_grad()
def test_by_hand() -> None:
    module = hydra(2, 1, scale=0.5)
    beside, behind = module.parallel["proj"], module.sequential["proj"]
    beside.down.copy_(torch.tensor([[1.0, 1]]))
    beside.up.copy_(torch.tensor([[1.0], [0]]))
    behind.down.copy_(torch.tensor([[1.0, 0]]))
    behind.up.copy_(torch.tensor([[0.0], [1]]))
    weight, bias = torch.tensor([[1.0, 0], [0, 2]]), torch.ones(2)
    x, y = torch.tensor([[[1.0, 2]]]), torch.tensor([[[2.0, 5]]])
    assert (y + module(x, y, slot="proj")).tolist() == [[[3.5, 6]]]
    merged, shifted = module.merged("proj", weight, bias)
    assert merged.tolist() == [[1.5, 0.5], [0.5, 2]]
    assert shifted.tolist() == [1, 1.5]


@torch.no_grad()
@pytest.mark.parametrize("slot", ["proj", "fc2"])
def test_a_merged_layer_does_the_same(slot: str) -> None:
    module = hydra(8, 3, scale=0.7)
    for value in module.parameters():
        value.normal_(generator=seeded(value.numel()))
    taken = 32 if slot == "fc2" else 8
    weight = torch.randn(8, taken, generator=seeded(1))
    bias, x = torch.randn(8, generator=seeded(2)), torch.randn(2, 5, taken, generator=seeded(3))
    y = functional.linear(x, weight, bias)
    found = y + module(x, y, slot=slot)
    expected = functional.linear(x, *module.merged(slot, weight, bias))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    for value in module.sequential.parameters():
        value.zero_()
    beside = module.parallel[slot]
    middle = x.double() @ beside.down.double().T + beside.down_bias
    lora = 0.7 * (middle @ beside.up.double().T + beside.up_bias)
    torch.testing.assert_close(module(x, y, slot=slot).double(), lora, rtol=1e-4, atol=1e-3)


def test_it_drops_in_training_alone() -> None:
    module = hydra(8, 64, dropout=0.5)
    for value in module.parameters():
        value.data.normal_(generator=seeded(value.numel()))
    x = torch.randn(1, 2, 8, generator=seeded(1))
    assert not torch.equal(module(x, x, slot="proj"), module(x, x, slot="proj"))
    assert torch.equal(module.eval()(x, x, slot="proj"), module(x, x, slot="proj"))


def test_parameters_and_what_does_not_fit() -> None:
    assert sum(value.numel() for value in hydra(768, 2).parameters()) == 19_976
    with pytest.raises(InputError, match="`rank` must be a positive integer, got 0"):
        hydra(8, 0)
    with pytest.raises(InputError, match=r"`dropout` must lie in \[0, 1\), got 1.0"):
        hydra(8, 1, dropout=1.0)
