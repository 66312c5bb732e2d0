"""Learned tokens: visual prompts, in timm's blocks by hand."""

import pytest
import torch

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.peft.tokens import VPT_DEEP, VPT_SHALLOW, LearnedTokens
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import check_adapter


def stack(vit: AdaptedViT, *, is_deep: bool) -> AdapterStack:
    generator = torch.Generator().manual_seed(0)
    found = AdapterStack.build(
        VPT_DEEP if is_deep else VPT_SHALLOW,
        embed_dim=vit.embed_dim,
        blocks=vit.num_blocks if is_deep else 1,
        generator=generator,
    )
    for value in found.parameters():
        value.data.normal_(generator=generator)
    return found


@pytest.mark.parametrize("is_deep", [True, False])
def test_tokens_stand_behind_the_image_s_own(tiny_vit: AdaptedViT, *, is_deep: bool) -> None:
    prompts = stack(tiny_vit, is_deep=is_deep)
    (rows,) = prompts.tensors()
    assert rows.shape == (6 if is_deep else 1, 5, 64)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = tiny_vit.tokens(images)
    count, lengths = tokens.shape[1], []
    for number, block in enumerate(tiny_vit.vit.blocks):
        if is_deep or number == 0:
            tokens = torch.cat([tokens, rows[number].expand(3, -1, -1)], dim=1)
        tokens = block(tokens)
        lengths.append(tokens.shape[1])
        if is_deep:
            tokens = tokens[:, :count]
    assert set(lengths) == {count + 5}
    expected = tiny_vit.features(tokens)  # of the class token, which stays in front
    torch.testing.assert_close(tiny_vit(images, prompts.adapters()), expected)


def test_a_token_of_zeros_takes_weight_from_all_others(tiny_vit: AdaptedViT) -> None:
    block, tokens = tiny_vit.vit.blocks[0], torch.randn(1, 4, 64)
    for value in (block.attn.qkv.weight, block.norm2.weight):
        value.data.zero_()  # equal scores, and values that are the biases alone
    block.attn.qkv.bias.data[:128].zero_()
    prompts = AdapterSet({("tokens", 0): LearnedTokens(64, 5)})
    with torch.no_grad():
        without = tiny_vit.run(tokens, 0, 1)
        found = tiny_vit.run(tokens, 0, 1, adapters=prompts)
    torch.testing.assert_close(found, without)  # all values are equal: their mean is any of them
    block.attn.qkv.weight.data[128:] = torch.eye(64)
    with torch.no_grad():
        normed = block.norm1(torch.cat([tokens, torch.zeros(1, 5, 64)], dim=1))
        mean = (normed + block.attn.qkv.bias[128:]).mean(dim=1, keepdim=True)
        stream = tokens + block.attn.proj(mean)
        expected = stream + block.mlp(block.norm2(stream))
        found = tiny_vit.run(tokens, 0, 1, adapters=prompts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [VPT_DEEP, VPT_SHALLOW])
def test_they_pass_the_checks_of_peft_modules(kind: object) -> None:
    assert check_adapter(kind) == []  # type: ignore[arg-type]
