"""SHiRA against loops over its places."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.shira import Mask, SHiRA
from cl_adapters.peft.site import Site


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_it_equals_a_loop_over_its_places() -> None:
    module = SHiRA(4, 1, generator=seeded())
    assert module.values.shape == (2, 8)
    module.places[0] = torch.tensor([1, 11, 0, 2, 3, 4, 5, 6])  # (0, 1), (2, 3), and others
    module.values[0, :2] = torch.tensor([0.5, -1])
    keys, values = module(torch.tensor([[[1.0, 2, 3, 4]]]))
    assert keys.tolist() == [[[1, 0, -4, 0]]]
    assert not values.any()
    module = SHiRA(6, 2, generator=seeded())
    module.values.normal_(generator=seeded(1))
    x = torch.randn(2, 3, 6, generator=seeded(2))
    for side, found in enumerate(module(x)):
        expected = torch.zeros(2, 3, 6)
        for place, value in zip(module.places[side].tolist(), module.values[side], strict=True):
            expected[:, :, place // 6] += value * x[:, :, place % 6]
        torch.testing.assert_close(found, expected)


def test_training_changes_its_places_alone_and_reaches_a_high_rank() -> None:
    module = SHiRA(32, 2, generator=seeded())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn(2, 40, 32, generator=seeded(1))
    keys, values = module(x)
    (keys * x.roll(1, 2)).sum().add((values * x.roll(2, 2)).sum()).backward()
    optimizer.step()
    for side, delta in enumerate(module.delta().detach().chunk(2)):
        assert sorted(module.places[side].tolist()) == delta.flatten().nonzero()[:, 0].tolist()
        assert delta.count_nonzero() == 2 * 32 * 2
        assert torch.linalg.matrix_rank(delta) > 20
    assert len(set(module.places[0].tolist()) & set(module.places[1].tolist())) < 64


def test_the_mask_of_weights_takes_the_largest() -> None:
    weight = torch.randn(16, 8, generator=seeded(3))
    site = Site("key_value", 0, 8, 8, weight)
    module = SHiRA(8, 1, mask="weight", generator=seeded(), sites={"key_value": site})
    for side, rows in enumerate(weight.chunk(2)):
        sizes = sorted(rows.abs().flatten().tolist(), reverse=True)
        found = rows.abs().flatten()[module.places[side].long()]
        assert sorted(found.tolist(), reverse=True) == sizes[:16]


@pytest.mark.parametrize("mask", ["gradient", "snip"])
def test_masks_of_a_gradient_take_the_largest_once_it_is_seen(mask: Mask) -> None:
    weight = torch.randn(16, 8, generator=seeded(3))
    site = Site("key_value", 0, 8, 16, weight)
    module = SHiRA(8, 1, mask=mask, generator=seeded(), sites={"key_value": site})
    plain = SHiRA(8, 1, mask="weight", generator=seeded(), sites={"key_value": site})
    assert torch.equal(module.places, plain.places)
    assert module.awaits_gradient
    gradient = torch.randn(16, 8, generator=seeded(4))
    module.calibrate_by({"key_value": gradient})
    scores = [
        [abs(g * (w if mask == "snip" else 1)) for g, w in zip(*rows, strict=True)]
        for rows in zip(gradient.view(2, -1).tolist(), weight.view(2, -1).tolist(), strict=True)
    ]
    for side, each in enumerate(scores):
        best = sorted(range(64), key=lambda place: -each[place])[:16]
        assert module.places[side].tolist() == sorted(best)
    assert not module.awaits_gradient
    assert not plain.awaits_gradient
    assert "weight" not in module.state_dict()


def test_parameters_and_masks_that_are_too_large() -> None:
    module = SHiRA(768, 8, generator=seeded())
    assert sum(value.numel() for value in module.parameters()) == 24_576
    assert module.places.dtype == torch.int32
    with pytest.raises(
        InputError, match="at most half the width, 4, got 5: a mask of 80 places is"
    ):
        SHiRA(8, 5, generator=seeded())
    with pytest.raises(
        InputError, match="mask 'weight' must have frozen weights to go by, got none"
    ):
        SHiRA(8, 1, mask="weight", generator=seeded())
