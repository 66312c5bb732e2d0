"""AdaptedViT against timm itself and against plain-loop attention."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import Preprocess
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.lora import KeyValueLoRA
from cl_adapters.peft.prefix import Prefix
from cl_adapters.peft.registry import build_adapters
from cl_adapters.vit.adapted_vit import AdaptedViT, prefix_attention

SMALL = {"num_classes": 0, "depth": 3, "embed_dim": 48, "num_heads": 3}

# Class token; pooled without class token; registers + LayerScale; CLIP's first norm; query/key norm.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 64},
    "vit_base_patch16_gap_224": {"img_size": 48},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56, "init_values": 0.3},
    "vit_base_patch32_clip_224": {"img_size": 96},
    "vit_small_patch8_224": {"img_size": 40, "qk_norm": True, "scale_attn_norm": True},
}


@pytest.fixture(params=ARCHITECTURES)
def vit(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model(request.param, **SMALL, **ARCHITECTURES[request.param])
        for parameter in model.parameters():  # fresh networks have many exact zeros and ones
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def images_for(vit: nn.Module) -> Tensor:
    size = vit.patch_embed.img_size[0]
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))


def timm_features(vit: nn.Module, images: Tensor) -> Tensor:
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


def test_features_equal_timms(vit: nn.Module) -> None:
    images = images_for(vit)
    expected = timm_features(vit, images)
    torch.testing.assert_close(AdaptedViT(vit)(images), expected, rtol=1e-5, atol=1e-5)


def test_bytes_are_scaled_to_the_same_bits_as_by_a_transform(tiny_vit: AdaptedViT) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    scaled = Preprocess(image_size=32, mean=(0.1, 0.5, 0.4), std=(0.3, 0.2, 0.7))
    as_bytes = replace(scaled, as_bytes=True)
    bytes_, floats = (
        torch.stack([each.evaluate(image) for image in drawn]) for each in (as_bytes, scaled)
    )
    assert (bytes_.dtype, floats.dtype) == (torch.uint8, torch.float32)
    vit = AdaptedViT(tiny_vit.vit, pixels=(scaled.mean, scaled.std))
    assert torch.equal(vit.inputs(bytes_, torch.device("cpu")), floats)
    assert torch.equal(vit(bytes_), vit(floats))
    assert as_bytes.describe() == scaled.describe()
    with pytest.raises(InputError, match=r"pixels must be floating-point .*, got torch.uint8"):
        tiny_vit(bytes_)


def test_what_is_no_image_only_moves(tiny_vit: AdaptedViT) -> None:
    for rows in (torch.arange(4), torch.full((4, 8), torch.nan), torch.ones(2, 3, 8)):
        moved = tiny_vit.inputs(rows, torch.device("cpu"))
        assert torch.equal(moved.nan_to_num(), rows.nan_to_num())
        assert moved.dtype == rows.dtype
    assert tiny_vit.inputs(torch.zeros(2, 3, 32, 32), torch.device("meta")).device.type == "meta"


@pytest.mark.slow
# torch's own look at its graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_agree(tiny_vit: AdaptedViT) -> None:
    compiled = AdaptedViT(tiny_vit.vit, is_compiled=True)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    seeded = torch.Generator().manual_seed(0)
    adapters = build_adapters("parallel", embed_dim=64, blocks=range(3), generator=seeded)
    for value in adapters.parameters():
        value.data.add_(0.1 * torch.randn(value.shape, generator=seeded))
    gradients = []
    for each in (tiny_vit, compiled):
        adapters.zero_grad()
        each(images, adapters).square().sum().backward()
        gradients.append([value.grad.clone() for value in adapters.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        plain, fused = (each(images[:3], adapters) for each in (tiny_vit, compiled))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("peft", ["adapter", "lora"])
def test_fresh_adapters_leave_the_features_as_they_are(vit: nn.Module, peft: str) -> None:
    images = images_for(vit)
    seeded = torch.Generator().manual_seed(0)
    adapters = build_adapters(peft, embed_dim=48, blocks=range(3), generator=seeded)
    torch.testing.assert_close(
        AdaptedViT(vit)(images, adapters), timm_features(vit, images), rtol=1e-5, atol=1e-5
    )


def test_running_in_parts_equals_running_at_once(tiny_vit: AdaptedViT) -> None:
    tokens = tiny_vit.tokens(torch.randn(2, 3, 32, 32))
    whole = tiny_vit.run(tokens)
    assert torch.equal(tiny_vit.run(tiny_vit.run(tokens, 0, 4), 4), whole)
    assert torch.equal(tiny_vit.run(tiny_vit.run(tokens, stop=-1), -1), whole)


def test_the_mlp_slot_reads_the_stream_after_attention(tiny_vit: AdaptedViT) -> None:
    module = Bottleneck(64, 4, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(module.up, generator=torch.Generator().manual_seed(1))
    tokens = tiny_vit.tokens(torch.randn(2, 3, 32, 32))
    block = tiny_vit.vit.blocks[2]
    before = tiny_vit.run(tokens, 0, 2)
    stream = before + block.ls1(block.attn(block.norm1(before)))
    expected = stream + block.ls2(block.mlp(block.norm2(stream))) + module(stream)
    found = tiny_vit.run(tokens, 0, 3, adapters=AdapterSet({("mlp", 2): module}))
    torch.testing.assert_close(found, expected)


def test_the_attention_slot_reads_the_normalised_stream(tiny_vit: AdaptedViT) -> None:
    module = Bottleneck(64, 4, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(module.up, generator=torch.Generator().manual_seed(1))
    tokens = tiny_vit.tokens(torch.randn(2, 3, 32, 32))
    block = tiny_vit.vit.blocks[0]
    normed = block.norm1(tokens)
    stream = tokens + block.ls1(block.attn(normed)) + module(normed)
    expected = stream + block.ls2(block.mlp(block.norm2(stream)))
    found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("attention", 0): module}))
    torch.testing.assert_close(found, expected)


def test_lora_equals_changed_key_and_value_weights(tiny_vit: AdaptedViT) -> None:
    seeded = torch.Generator().manual_seed(0)
    lora = KeyValueLoRA(64, 5, generator=seeded)
    for parameter in lora.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded)
    tokens = tiny_vit.tokens(torch.randn(2, 3, 32, 32))
    found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("key_value", 0): lora}))
    attention = tiny_vit.vit.blocks[0].attn
    with torch.no_grad():
        attention.qkv.weight[64:128] += lora.key_scale * lora.key_up @ lora.key_down
        attention.qkv.weight[128:] += lora.value_scale * lora.value_up @ lora.value_down
    torch.testing.assert_close(found, tiny_vit.run(tokens, 0, 1), rtol=1e-4, atol=1e-5)


def prefix_attention_by_loops(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor) -> Tensor:
    """One query, one head at a time: softmax over all, then the prefix part divided by lambda."""
    out = torch.zeros_like(q)
    batch, heads, num_tokens, width = q.shape
    for b in range(batch):
        for h in range(heads):
            keys = torch.cat(
                (k[b, h, :1], pk[h], k[b, h, 1:])
            )  # after the class token, as LAE does
            values = torch.cat((v[b, h, :1], pv[h], v[b, h, 1:]))
            prefix = range(1, 1 + len(pk[h]))
            for n in range(num_tokens):
                scores = [float(q[b, h, n] @ key) / math.sqrt(width) for key in keys]
                top = max(scores)
                weights = [math.exp(score - top) for score in scores]
                total = sum(weights)
                weights = [weight / total for weight in weights]
                share = sum(weights[p] for p in prefix)
                for j, weight in enumerate(weights):
                    out[b, h, n] += (weight / share if j in prefix else weight) * values[j]
    return out


def test_prefix_attention_equals_plain_loops() -> None:
    seeded = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=seeded) for _ in range(3))
    pk, pv = (torch.randn(3, 6, 4, generator=seeded) for _ in range(2))
    expected = prefix_attention_by_loops(q, k, v, pk, pv)
    torch.testing.assert_close(prefix_attention(q, k, v, pk, pv), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_prefix_reaches_attention_through_the_slot(tiny_vit: AdaptedViT) -> None:
    prefix = Prefix(64, 10, generator=torch.Generator().manual_seed(0))
    tokens = tiny_vit.tokens(torch.randn(2, 3, 32, 32))
    block = tiny_vit.vit.blocks[0]
    attention, heads = block.attn, block.attn.num_heads

    def split(tensor: Tensor) -> Tensor:
        return tensor.reshape(*tensor.shape[:-1], heads, 64 // heads).transpose(-3, -2)

    q, k, v = (split(part) for part in attention.qkv(block.norm1(tokens)).chunk(3, dim=-1))
    mixed = prefix_attention_by_loops(q, k, v, split(prefix.keys), split(prefix.values))
    stream = tokens + block.ls1(attention.proj(mixed.transpose(1, 2).flatten(2)))
    expected = stream + block.ls2(block.mlp(block.norm2(stream)))
    found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("prefix", 0): prefix}))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_backbone_is_frozen_for_good() -> None:
    vit = AdaptedViT(timm.create_model("test_vit", num_classes=0, img_size=32, proj_drop_rate=0.5))
    vit.vit.register_buffer("still", torch.zeros(1))
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    first = vit.train()(images)
    assert torch.equal(first, vit(images)), "dropout must be off in train mode"
    assert not any(value.requires_grad for value in vit.parameters())
    assert not vit.vit.training
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())


def test_only_adapters_get_gradients(tiny_vit: AdaptedViT) -> None:
    adapters = build_adapters(
        "lora", embed_dim=64, blocks=[1], generator=torch.Generator().manual_seed(0)
    )
    tiny_vit(torch.randn(2, 3, 32, 32), adapters).sum().backward()
    assert all(value.grad is None for value in tiny_vit.parameters())
    assert all(value.grad is not None for value in adapters.parameters())


def test_passes_are_counted_per_image_and_expert(tiny_vit: AdaptedViT) -> None:
    tokens = tiny_vit.tokens(torch.zeros(4, 3, 32, 32))
    tiny_vit.features(tiny_vit.run(tokens))
    tiny_vit.features(tiny_vit.run(tokens))
    assert tiny_vit.num_passes == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timm.create_model("test_resnet"), "must be a timm VisionTransformer, got ResNet"),
        (
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
            "must be a timm VisionTransformer, got VisionTransformerDistilled",
        ),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", depth=1, block_fn=OtherBlock),
            "block 0 of the backbone must be a plain pre-norm timm Block, got OtherBlock",
        ),
        (
            lambda: timm.create_model("vit_base_patch16_siglip_224", depth=1),
            "pooling of the backbone must be one of token, avg, avgmax, max, got 'map'",
        ),
    ],
)
def test_other_architectures_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptedViT(make())


class OtherBlock(timm.models.vision_transformer.Block):
    """Same attributes, and nobody knows what it computes."""


def test_images_of_another_shape_are_refused(tiny_vit: AdaptedViT) -> None:
    with pytest.raises(InputError, match=r"shape \(B, 3, 32, 32\) .* got \(2, 1, 32, 32\)"):
        tiny_vit(torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_refused(tiny_vit: AdaptedViT, value: float) -> None:
    images = torch.zeros(3, 3, 32, 32)
    images[1, 0, 0, 0] = value
    with pytest.raises(InputError, match="NaN or infinity in image 1"):
        tiny_vit(images)


def test_without_a_compiler_a_run_ends_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    config = RunConfig.parse({"strategy": "simplecil", "compile": True})
    with pytest.raises(InputError, match=r"`compile` must find a compiler .*: No working C\+\+"):
        prepare(config)
    assert "compile" not in RunConfig.parse({"strategy": "simplecil"}).model_dump()
