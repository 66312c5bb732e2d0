"""CorDA against the worked example, numpy, and what old inputs see of new directions."""

import numpy as np
import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.corda import CorDA, oriented
from cl_adapters.peft.registry import PEFTS
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.vit.calibration import calibrate
from cl_adapters.vit.checks import tiny_backbone
from cl_adapters.vit.expandable import ExpandableViT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def corda(rank: int = 4, *, freezes_down: bool = False) -> CorDA:
    site = tiny_backbone().site("key_value", 2)
    module = CorDA(
        32, rank, freezes_down=freezes_down, generator=seeded(), sites={"key_value": site}
    )
    module.up.data.normal_(std=0.1, generator=seeded(1))
    return module


def test_by_hand_and_both_modes_are_the_whole() -> None:
    up, down = oriented(torch.diag(torch.tensor([2.0, 1])), torch.diag(torch.tensor([1.0, 9])), 1)
    torch.testing.assert_close(up @ down, torch.tensor([[2.0, 0], [0, 0]]))
    weight = torch.randn(12, 6, generator=seeded(2))
    x = torch.randn(50, 6, generator=seeded(3)) * torch.arange(1, 7)
    moments = x.T @ x / 50
    parts = [oriented(weight, moments, 2), oriented(weight, moments, 4, "preview")]
    torch.testing.assert_close(sum(up @ down for up, down in parts), weight, rtol=1e-4, atol=1e-5)
    damped = moments.double().numpy()
    damped += 0.01 * damped.diagonal().mean() * np.eye(6)
    lost = np.linalg.svd(weight.double().numpy() @ damped, compute_uv=False)[-2:]
    found = (parts[0][0] @ parts[0][1]).double().numpy() @ damped
    np.testing.assert_allclose(np.linalg.svd(found, compute_uv=False)[:2], lost, rtol=1e-4)


def test_old_inputs_hardly_see_the_directions_it_takes() -> None:
    weight = torch.randn(32, 32, generator=seeded(4))
    basis = torch.randn(8, 32, generator=seeded(5))
    x = torch.randn(200, 8, generator=seeded(6)) @ basis
    x += 0.01 * x.std() * torch.randn(200, 32, generator=seeded(7))
    _, down = oriented(weight, x.T @ x / 200, 4)
    rows = torch.randn(4, 32, generator=seeded(8))
    seen = [
        (x @ (each / each.norm(dim=1, keepdim=True)).T).norm() / x.norm() for each in (down, rows)
    ]
    assert seen[0] < 0.01
    assert seen[1] > 0.2


@torch.no_grad()
@pytest.mark.parametrize("freezes_down", [False, True])
def test_it_turns_once_and_its_update_stays(freezes_down: bool) -> None:
    network, module = tiny_backbone(), corda(freezes_down=freezes_down)
    images = torch.randn(6, 3, 16, 16, generator=seeded(9))
    adapters = AdapterSet({("key_value", 2): module})
    before, update = network(images, adapters), module.delta()
    calibrate(network, adapters, [images[:4], images[4:]])
    torch.testing.assert_close(network(images, adapters), before)
    torch.testing.assert_close(module.delta(), update)
    u = network.vit.blocks[2].norm1(network.run(network.tokens(images), 0, 2)).flatten(0, 1)
    weight = network.site("key_value", 2).weight
    assert weight is not None
    up, down = oriented(weight + update, u.T @ u / len(u), 4)
    torch.testing.assert_close(module.up @ module.down, up @ down, rtol=1e-3, atol=1e-4)
    calibrate(network, adapters, [images.flip(0) * 2])
    torch.testing.assert_close(module.up @ module.down, up @ down, rtol=1e-3, atol=1e-4)
    assert ("down" in dict(module.named_parameters())) != freezes_down
    assert len(module.state_dict()) == 6


def test_sizes_and_what_does_not_fit() -> None:
    counts = [
        sum(v.numel() for v in corda(freezes_down=each).parameters()) for each in (False, True)
    ]
    assert counts == [3 * 32 * 4, 2 * 32 * 4]
    with pytest.raises(InputError, match="CorDA must see at least one image before it turns"):
        corda().calibrate()
    with pytest.raises(InputError, match="`rank` must be at most the width, 32, got 33"):
        corda(33)
    network = tiny_backbone()
    with pytest.raises(InputError, match="a stored set must hold another kind .*: CorDA turns"):
        AdapterStack.build(
            PEFTS["corda"], embed_dim=32, blocks=2, generator=seeded(), sites=network.site
        )
    with pytest.raises(InputError, match="a slot that grows must hold another kind"):
        ExpandableViT(
            network,
            expandable=[3],
            width=2,
            router="learned",
            generator=seeded(),
            peft=PEFTS["corda"],
        )
