"""LoRA on chosen layers against a network with the products in its weights, and by its counts."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.layer_lora import LayerLoRA, lora_on, slots_for
from cl_adapters.vit.checks import check_adapter, tiny_backbone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_only_the_rows_of_chosen_projections_change() -> None:
    kind, network = lora_on("value", "fc2", "query"), tiny_backbone()
    assert kind.slots == ("qkv", "fc2")
    module = kind.build(32, 2, seeded(), place=(network.site, 1))
    assert isinstance(module, LayerLoRA)
    for value in module.parameters():
        value.normal_(std=0.1, generator=seeded(value.numel()))
    adapters = AdapterSet({(kind.slot, 1): module})
    images = torch.randn(2, 3, 16, 16, generator=seeded(1))
    found = network(images, adapters)
    block, update = network.vit.blocks[1], module.updates["qkv"]
    for row, name in ((0, "query"), (64, "value")):
        for out in range(32):
            for rank in range(2):
                block.attn.qkv.weight[row + out] += (
                    update.up[name][out, rank] * update.down[name][rank]
                )
    block.mlp.fc2.weight += module.updates["fc2"].up @ module.updates["fc2"].down
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)


def test_one_layer_alone_passes_the_battery() -> None:
    assert check_adapter(lora_on("proj")) == []


def test_what_is_no_choice_is_refused() -> None:
    for layers in ([], ["query", "output"], ["fc1", "fc1"]):
        with pytest.raises(InputError, match="`layers` must be some of query, .*, each once, got"):
            slots_for(layers)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`rank` must be a positive integer, got 0"):
        lora_on("fc1").build(32, 0, seeded(), place=(tiny_backbone().site, 0))
