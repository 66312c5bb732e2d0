"""Attention with quick gradients equals PyTorch's, and stands where gradients are wanted alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.attention import WrittenOut, attention


def _drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_written_out_gradients_are_those_of_finite_differences() -> None:
    shapes = ((2, 3, 4), (2, 5, 4), (2, 5, 4))
    inputs = [each.requires_grad_() for each in _drawn(*shapes)]
    assert torch.autograd.gradcheck(WrittenOut.apply, inputs)


def test_written_out_attention_is_as_near_to_exact_as_the_fused_one() -> None:
    shape = (3, 2, 37, 16)
    query, key, value, wanted = _drawn(shape, shape, shape, shape)

    def found(way: object, dtype: torch.dtype) -> list[Tensor]:
        parts = [(2 * each).to(dtype).requires_grad_() for each in (query, key, value)]
        mixed = way(*parts)  # type: ignore[operator]
        (mixed * wanted.to(dtype)).sum().backward()
        gradients = [each.grad for each in parts]
        return [mixed.detach().double(), *(each.double() for each in gradients if each is not None)]

    fused = functional.scaled_dot_product_attention
    exact = found(fused, torch.float64)
    for ours, theirs, right in zip(
        found(attention, torch.bfloat16), found(fused, torch.bfloat16), exact, strict=True
    ):
        assert (ours - right).norm() < 1.5 * (theirs - right).norm()


@pytest.mark.parametrize("wants_gradients", [True, False])
def test_only_gradients_in_bfloat16_take_the_written_out_way(
    monkeypatch: pytest.MonkeyPatch, tiny_vit: AdaptedViT, *, wants_gradients: bool
) -> None:
    calls: list[torch.dtype] = []
    forward = WrittenOut.forward

    def counted(ctx: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls.append(query.dtype)
        return forward(ctx, query, key, value)

    monkeypatch.setattr(WrittenOut, "forward", staticmethod(counted))
    tokens = tiny_vit.tokens(torch.rand(2, *tiny_vit.input_shape)).requires_grad_(wants_gradients)
    tiny_vit.run(tokens)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        tiny_vit.run(tokens)
        with torch.no_grad():
            tiny_vit.run(tokens)
    assert calls == [torch.bfloat16] * (tiny_vit.num_blocks if wants_gradients else 0)
