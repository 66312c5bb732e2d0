"""Modules that can be merged: a network with their weights is the network beside which they run."""

import copy

import pytest
import torch
from torch import nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.registry import PEFTS
from cl_adapters.peft.vida import ViDA
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(name: str, network: AdaptedViT, block: int, size: int) -> nn.Module:
    module = PEFTS[name].build(32, size, seeded(block), place=(network.site, block))
    with torch.no_grad():
        for value in module.parameters():
            value.normal_(std=0.1, generator=seeded(value.numel() + block))
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "miss",
        "miss_mini",
        "bat",
        "dylora",
        "shira",
        "shira_weight",
        "lora_xs",
        "lora_sb",
        "corda",
        "vida",
        "lora_qv",
        "lora_mlp",
        "lora_all",
    ],
)
def test_merged_is_unmerged(name: str) -> None:
    network = tiny_backbone()
    modules = {block: trained(name, network, block, 3) for block in (0, 2)}
    if name == "dylora":
        for each in modules.values():
            each.rank = 2  # type: ignore[assignment]
    merged = copy.deepcopy(network.vit)
    for block, module in modules.items():
        within = merged.blocks[block]
        weights = {"qkv": within.attn.qkv.weight, "key_value": within.attn.qkv.weight[32:]}
        weights |= {"proj": within.attn.proj.weight, "fc1": within.mlp.fc1.weight}
        weights["fc2"] = within.mlp.fc2.weight
        if isinstance(module, ViDA):
            module.scales = (0.5, 2.0)
        slots = PEFTS[name].slots
        for slot in slots:
            weights[slot] += module.delta(slot) if len(slots) > 1 else module.delta()  # type: ignore[operator]
    images = torch.randn(3, 3, 16, 16, generator=seeded(1))
    adapters = AdapterSet({(PEFTS[name].slot, block): each for block, each in modules.items()})
    found = network(images, adapters)
    torch.testing.assert_close(found, AdaptedViT(merged)(images), rtol=1e-4, atol=1e-5)
    assert (found - network(images)).abs().max() > 0.01


@torch.no_grad()
def test_vida_starts_as_published_and_is_lora_without_its_high_rank() -> None:
    module = ViDA(768, 128, generator=seeded())
    assert sum(value.numel() for value in module.parameters()) == 594_432
    low, high = module.down["qkv"]
    assert low.std().item() == pytest.approx(1, rel=0.1)
    assert high.std().item() == pytest.approx(128**-2, rel=0.02)
    assert not any(value.any() for each in module.up.values() for value in each)
    module = ViDA(8, 4, generator=seeded())
    for value in module.parameters():
        value.normal_(generator=seeded(value.numel()))
    module.scales = (1.0, 0.0)
    x = torch.randn(2, 3, 8, generator=seeded(1))
    for slot in ("qkv", "proj"):
        (down, _), (up, _) = module.down[slot], module.up[slot]
        expected = torch.stack([up[:, 0] * (down[0] @ row) for row in x.flatten(0, 1)])
        torch.testing.assert_close(module(x, x, slot=slot).flatten(0, 1), expected)
