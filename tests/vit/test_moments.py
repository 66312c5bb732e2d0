"""Second moments of attention's inputs, against hooks on timm's own network."""

import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.moments import input_moments


def test_moments_are_means_over_all_tokens_of_all_batches(tiny_vit: AdaptedViT) -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen: list[Tensor] = []
    place = tiny_vit.vit.blocks[4].norm1
    watch = place.register_forward_hook(lambda *given: seen.append(given[2].flatten(0, 1)))
    with torch.no_grad():
        plain = tiny_vit(images)
    watch.remove()
    rows = seen[0].double()
    expected = sum(torch.outer(row, row) for row in rows) / len(rows)
    before = tiny_vit.num_passes
    _, found = input_moments(tiny_vit, {}, [0, 4], [images[:2], images[2:]])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert tiny_vit.num_passes - before == 5
    assert torch.equal(tiny_vit(images), plain)
    with pytest.raises(InputError, match="at least one image, got none"):
        input_moments(tiny_vit, {}, [0], [])
