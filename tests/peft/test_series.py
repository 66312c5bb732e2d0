"""Series adapters against plain loops, and against Hydra's branch behind a layer."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.series import Series
from tests.peft.test_hydra import hydra


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_it_equals_a_loop_over_what_the_layer_gave() -> None:
    module = Series(4, 3, scale=0.5, start="official", generator=seeded())
    y = torch.randn(2, 3, 4, generator=seeded(1)) * 10
    for slot in ("proj", "fc2"):
        found = module(torch.full((2, 3, 9), torch.nan), y, slot=slot)
        for image in range(2):
            for token in range(3):
                middle = [
                    math.tanh(sum(float(a * b) for a, b in zip(row, y[image, token], strict=True)))
                    for row in module.down[slot]
                ]
                for out in range(4):
                    expected = sum(float(module.up[slot][out, r]) * middle[r] for r in range(3))
                    assert found[image, token, out].item() == pytest.approx(expected / 2, abs=1e-6)


@torch.no_grad()
def test_without_a_nonlinearity_it_is_hydras_branch_behind_a_layer() -> None:
    module, other = (
        Series(8, 2, places=("fc2",), nonlinearity="none", generator=seeded()),
        hydra(8, 2),
    )
    module.up["fc2"].normal_(generator=seeded(1))
    other.sequential["fc2"].down.copy_(module.down["fc2"])
    other.sequential["fc2"].up.copy_(module.up["fc2"])
    y = torch.randn(2, 5, 8, generator=seeded(2))
    expected = other(torch.randn(2, 5, 32), y, slot="fc2")
    torch.testing.assert_close(module(y, y), expected)


def test_starts() -> None:
    x = torch.randn(1, 2, 256, generator=seeded(1))
    assert not Series(256, 4, generator=seeded())(x, x, slot="proj").any()
    drawn = Series(256, 64, start="official", generator=seeded())
    assert all(each.std().item() == pytest.approx(0.02, rel=0.05) for each in drawn.parameters())
    dropping = Series(256, 4, start="official", dropout=0.5, generator=seeded())
    assert not torch.equal(dropping(x, x, slot="fc2"), dropping(x, x, slot="fc2"))
    assert torch.equal(dropping.eval()(x, x, slot="fc2"), dropping(x, x, slot="fc2"))


def test_parameters_and_what_does_not_fit() -> None:
    counts = [
        Series(768, 16, places=each, generator=seeded()) for each in (("proj", "fc2"), ("fc2",))
    ]
    assert [sum(v.numel() for v in each.parameters()) for each in counts] == [49_152, 24_576]
    with pytest.raises(InputError, match="unknown nonlinearity 'swish'"):
        Series(8, 2, nonlinearity="swish", generator=seeded())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`dropout` must lie in \[0, 1\), got -1"):
        Series(8, 2, dropout=-1, generator=seeded())
    with pytest.raises(InputError, match="`width` must be a positive integer, got 0"):
        Series(8, 0, generator=seeded())
