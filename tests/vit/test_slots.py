"""Every slot against timm's own block, its layers by hand, or plain loops."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import SLOTS, AdapterSet, Slot
from cl_adapters.peft.lora import ProjectionLoRA
from cl_adapters.peft.prefix import Prefix
from cl_adapters.peft.registry import Peft
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import check_adapter
from cl_adapters.vit.slots import adapted_block, prefix_attention, shared_attention

DIM = 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=seeded(1))


class Beside(nn.Module):
    """Reads what enters a linear layer and what leaves it."""

    def __init__(self, in_features: int, out_features: int, seed: int = 0) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(out_features, in_features, generator=seeded(seed)) / 9)
        self.gain = nn.Parameter(torch.randn(out_features, generator=seeded(seed + 1)) / 9)

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        return functional.linear(inputs, self.mix) + self.gain * output


class Learned(nn.Module):
    """Learned tokens."""

    def __init__(self, *shape: int, **says: Any) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(*shape, DIM, generator=seeded(3)))
        vars(self).update(says)

    def forward(self) -> Tensor:
        return self.rows


WIDTHS: dict[Slot, tuple[int, int]] = {
    "qkv": (DIM, 3 * DIM),
    "proj": (DIM, DIM),
    "fc1": (DIM, 3 * DIM),
    "fc2": (3 * DIM, DIM),
}


def layer_of(block: nn.Module, slot: Slot) -> nn.Linear:
    return getattr(block.attn if slot in {"qkv", "proj"} else block.mlp, slot)


def test_a_block_with_an_empty_filling_is_timms_bit_for_bit(tiny_vit: AdaptedViT) -> None:
    tokens = tiny_vit.tokens(images())
    for block in tiny_vit.vit.blocks:
        assert torch.equal(adapted_block(block, tokens, {}), block(tokens))
        tokens = block(tokens)
    features = tiny_vit.vit.forward_head(tiny_vit.vit.norm(tokens), pre_logits=True)
    assert torch.equal(tiny_vit(images(), AdapterSet({})), features)
    assert torch.equal(tiny_vit(images()), features)


@pytest.mark.parametrize("slot", WIDTHS)
def test_a_module_beside_a_linear_layer_equals_changed_weights(
    tiny_vit: AdaptedViT, slot: Slot
) -> None:
    module, tokens = Beside(*WIDTHS[slot]), tiny_vit.tokens(images())
    found = tiny_vit.run(tokens, 2, 3, adapters=AdapterSet({(slot, 2): module}))
    changed = copy.deepcopy(tiny_vit.vit.blocks[2])
    layer = layer_of(changed, slot)
    with torch.no_grad():  # y + M x + g y = ((1 + g) W + M) x + (1 + g) b
        layer.weight.mul_(1 + module.gain[:, None]).add_(module.mix)
        layer.bias.mul_(1 + module.gain)
    torch.testing.assert_close(found, changed(tokens), rtol=1e-4, atol=1e-4)
    assert (found - tiny_vit.run(tokens, 2, 3)).abs().max() > 1e-2


@pytest.mark.parametrize("slot", WIDTHS)
def test_gradients_beside_a_linear_layer_are_those_of_finite_differences(
    tiny_vit: AdaptedViT, slot: Slot
) -> None:
    vit = AdaptedViT(tiny_vit.vit.double())
    module = Beside(*WIDTHS[slot]).double()
    adapters, tokens = AdapterSet({(slot, 0): module}), vit.tokens(images().double())

    def loss() -> Tensor:
        return vit.run(tokens, 0, 1, adapters=adapters).square().mean()

    loss().backward()
    with torch.no_grad():
        for value, place in ((module.mix, (1, 2)), (module.gain, (3,))):
            found, step = value.grad[place].item(), 1e-5
            value[place] += step
            above = loss().item()
            value[place] -= 2 * step
            below = loss().item()
            value[place] += step
            assert found == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)
    assert all(each.grad is None for each in vit.parameters())
    tiny_vit.vit.float()


def test_a_site_tells_widths_and_the_frozen_weight(tiny_vit: AdaptedViT) -> None:
    for slot, widths in WIDTHS.items():
        site = tiny_vit.site(slot, 4)
        assert (site.slot, site.block, site.in_features, site.out_features) == (slot, 4, *widths)
        assert site.weight is layer_of(tiny_vit.vit.blocks[4], slot).weight
    keys_and_values = tiny_vit.site("key_value", 1).weight
    assert torch.equal(keys_and_values, tiny_vit.vit.blocks[1].attn.qkv.weight[DIM:])
    assert tiny_vit.site("mlp", 0).weight is None
    with pytest.raises(InputError, match="must lie from 0 to 5, got 6"):
        tiny_vit.site("mlp", 6)


def test_lora_on_chosen_projections_equals_changed_rows(tiny_vit: AdaptedViT) -> None:
    tokens, attention = tiny_vit.tokens(images()), tiny_vit.vit.blocks[0].attn
    for projections in (("query", "value"), ("key",), ("value", "key", "query")):
        lora = ProjectionLoRA(DIM, 5, projections=projections, generator=seeded())
        for value in lora.parameters():
            nn.init.normal_(value, std=0.3, generator=seeded(2))
        found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("qkv", 0): lora}))
        before = attention.qkv.weight.detach().clone()
        with torch.no_grad():
            for row, name in enumerate(("query", "key", "value")):
                if name in projections:
                    rows = slice(row * DIM, row * DIM + DIM)
                    attention.qkv.weight[rows] += lora.up[name] @ lora.down[name]
            torch.testing.assert_close(found, tiny_vit.run(tokens, 0, 1), rtol=1e-4, atol=1e-4)
            attention.qkv.weight.copy_(before)
    with pytest.raises(InputError, match="must be some of query, key, value, got \\('q',\\)"):
        ProjectionLoRA(DIM, 5, projections=("q",), generator=seeded())  # type: ignore[arg-type]


def test_dualprompt_1_one_softmax_over_prefix_and_positions_by_hand() -> None:
    query, keys = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    prefix_key, prefix_value = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 5.0]])
    weights = [math.exp(score / math.sqrt(2)) for score in (2.0, 1.0, 0.0)]
    total = sum(weights)
    expected = [(5 * weights[0] + each) / total for each in weights[1:]]
    found = shared_attention(
        query[None, None], keys[None, None], keys[None, None], prefix_key[None], prefix_value[None]
    )
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx([3.164, 3.020], abs=1e-3)
    renormalised = prefix_attention(
        query[None, None], keys[None, None], keys[None, None], prefix_key[None], prefix_value[None]
    )
    assert renormalised.flatten().tolist() == pytest.approx([5.284, 5.140], abs=1e-3)  # LAE's


def attention_by_loops(
    normed: Tensor, attention: nn.Module, keys: Tensor, values: Tensor
) -> Tensor:
    """One image, one head, one query at a time; keys and values (L, D) stand in front."""
    width = DIM // attention.num_heads
    query, key, value = attention.qkv(normed).chunk(3, dim=-1)
    key, value = torch.cat((keys, key)), torch.cat((values, value))
    mixed = torch.zeros_like(normed)
    for head in range(attention.num_heads):
        part = slice(head * width, head * width + width)
        for token in range(len(normed)):
            scores = torch.stack([query[token, part] @ each[part] for each in key])
            weights = (scores / math.sqrt(width)).softmax(dim=0)
            mixed[token, part] = sum(w * v[part] for w, v in zip(weights, value, strict=True))
    return attention.proj(mixed)


@torch.no_grad()
def test_a_plain_prefix_one_for_all_and_one_an_image(tiny_vit: AdaptedViT) -> None:
    tokens, block = tiny_vit.tokens(images()), tiny_vit.vit.blocks[0]
    for shape in ((4, DIM), (2, 4, DIM)):
        prefix = Prefix(DIM, 4, renormalise=False, generator=seeded())
        prefix.keys = nn.Parameter(torch.randn(shape, generator=seeded(4)))
        prefix.values = nn.Parameter(torch.randn(shape, generator=seeded(5)))
        found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("prefix", 0): prefix}))
        assert found.shape == tokens.shape
        keys, values = (each.expand(2, 4, DIM) for each in (prefix.keys, prefix.values))
        for image in range(2):
            normed = block.norm1(tokens[image])
            stream = tokens[image] + attention_by_loops(
                normed, block.attn, keys[image], values[image]
            )
            expected = stream + block.mlp(block.norm2(stream))
            torch.testing.assert_close(found[image], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_renormalised_prefix_may_differ_by_image(tiny_vit: AdaptedViT) -> None:
    prefixes = [Prefix(DIM, 3, generator=seeded(seed)) for seed in (0, 1)]
    for number, each in enumerate(prefixes):
        each.keys.normal_(generator=seeded(number))
        each.values.normal_(generator=seeded(number + 5))
    both = copy.deepcopy(prefixes[0])
    both.keys = nn.Parameter(torch.stack([each.keys for each in prefixes]))
    both.values = nn.Parameter(torch.stack([each.values for each in prefixes]))
    together = tiny_vit(images(), AdapterSet({("prefix", 1): both}))
    for image, each in enumerate(prefixes):
        alone = tiny_vit(images()[image : image + 1], AdapterSet({("prefix", 1): each}))
        torch.testing.assert_close(together[image : image + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("place", "index"), [("after_class", 1), ("front", 0), ("end", 5)])
@pytest.mark.parametrize("is_kept", [True, False])
def test_learned_tokens_go_in_and_out_again(
    tiny_vit: AdaptedViT, place: str, index: int, *, is_kept: bool
) -> None:
    learned = Learned(5, place=place, is_kept=is_kept)
    tokens = tiny_vit.tokens(images(3))  # a class token and four patches
    adapters = AdapterSet({("tokens", 2): learned})
    found = tiny_vit.run(tokens, 0, 4, adapters=adapters)
    stream = tiny_vit.vit.blocks[1](tiny_vit.vit.blocks[0](tokens))
    rows = [
        torch.stack([*image[:index], *learned.rows, *image[index:]]) for image in stream
    ]  # token by token
    stream = tiny_vit.vit.blocks[2](torch.stack(rows))
    if not is_kept:
        stream = torch.stack([torch.stack([*x[:index], *x[index + 5 :]]) for x in stream])
    stream = tiny_vit.vit.blocks[3](stream)
    assert found.shape[1] == (10 if is_kept else 5)
    torch.testing.assert_close(found, stream)
    found.sum().backward()
    assert learned.rows.grad is not None
    assert bool(learned.rows.grad.any(dim=1).all())


def test_learned_tokens_may_differ_by_image_and_take_the_class_tokens_position(
    tiny_vit: AdaptedViT,
) -> None:
    tokens = tiny_vit.tokens(images(2))
    by_image = Learned(2, 5, is_kept=True)
    found = tiny_vit.run(tokens, 0, 1, adapters=AdapterSet({("tokens", 0): by_image}))
    for image in range(2):
        one = copy.deepcopy(by_image)
        one.rows = nn.Parameter(by_image.rows[image].detach())
        alone = tiny_vit.run(
            tokens[image : image + 1], 0, 1, adapters=AdapterSet({("tokens", 0): one})
        )
        torch.testing.assert_close(found[image : image + 1], alone, rtol=1e-5, atol=1e-5)
    plain, placed = Learned(5, is_kept=True), Learned(5, is_kept=True, position="class")
    placed.rows = nn.Parameter(plain.rows.detach() - tiny_vit.vit.pos_embed[0, 0])
    sets = [AdapterSet({("tokens", 0): each}) for each in (plain, placed)]
    one, other = (tiny_vit.run(tokens, 0, 1, adapters=each) for each in sets)
    torch.testing.assert_close(one, other)


def test_tokens_behind_class_and_registers_leave_the_pooled_token_in_its_place() -> None:
    torch.manual_seed(0)
    options = {"num_classes": 0, "depth": 2, "embed_dim": DIM, "num_heads": 4, "img_size": 28}
    vit = AdaptedViT(timm.create_model("vit_small_patch14_reg4_dinov2", **options))
    learned = Learned(3, is_kept=True)
    tokens = vit.tokens(torch.randn(1, 3, 28, 28, generator=seeded()))
    found = vit.run(tokens, 0, 1, adapters=AdapterSet({("tokens", 0): learned}))
    joined = torch.cat((tokens[:, :5], learned.rows[None], tokens[:, 5:]), dim=1)
    torch.testing.assert_close(found, vit.vit.blocks[0](joined))
    other = AdapterSet({("tokens", 0): Learned(3, position="class")})
    with pytest.raises(InputError, match="must have `position` 'none' in a backbone whose class"):
        vit.run(tokens, 0, 1, adapters=other)
    other = AdapterSet({("tokens", 0): Learned(3, place="middle")})
    with pytest.raises(InputError, match="unknown place 'middle'"):
        vit.run(tokens, 0, 1, adapters=other)


class Both(nn.Module):
    """Fills two slots of a block with one set of parameters."""

    slots = ("attention", "fc2")
    default_size = 2

    def __init__(
        self, dim: int, size: int, *, generator: torch.Generator, sites: dict[Slot, Any]
    ) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"`size` must be positive, got {size}")
        self.widths = {slot: (site.in_features, site.out_features) for slot, site in sites.items()}
        self.down = nn.Parameter(torch.randn(size, dim, generator=generator) / 8)
        self.up = nn.Parameter(torch.zeros(dim, size))
        self.gain = nn.Parameter(torch.zeros(self.widths["fc2"][1]))

    def forward(self, inputs: Tensor, output: Tensor | None = None, *, slot: str) -> Tensor:
        if slot == "attention":
            return inputs @ self.down.T @ self.up.T
        assert output is not None
        return self.gain * output


def test_one_module_fills_several_slots(tiny_vit: AdaptedViT) -> None:
    sites = {slot: tiny_vit.site(slot, 1) for slot in Both.slots}  # type: ignore[arg-type]
    module = Both(DIM, 2, generator=seeded(), sites=sites)
    assert module.widths == {"attention": (DIM, DIM), "fc2": (3 * DIM, DIM)}
    nn.init.normal_(module.up, generator=seeded(1))
    nn.init.normal_(module.gain, generator=seeded(2))
    adapters = AdapterSet({(("attention", "fc2"), 1): module})
    tokens, block = tiny_vit.tokens(images()), tiny_vit.vit.blocks[1]
    found = tiny_vit.run(tokens, 1, 2, adapters=adapters)
    normed = block.norm1(tokens)
    stream = tokens + block.attn(normed) + normed @ module.down.T @ module.up.T
    expected = stream + (1 + module.gain) * block.mlp(block.norm2(stream))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in adapters.named_parameters()] == [
        f"_by_name.attention+fc2_1.{part}" for part in ("down", "up", "gain")
    ]
    assert adapters.at("fc2", 1) is adapters.at(("attention", "fc2"), 1) is module


def zero_beside(slot: Slot) -> Callable[..., nn.Module]:
    def make(dim: int, size: int, generator: torch.Generator, *, sites: Any) -> nn.Module:
        site = sites[slot]
        module = Beside(site.in_features, site.out_features)
        if size < 1:
            raise InputError(f"`size` must be positive, got {size}")
        for value in module.parameters():
            nn.init.zeros_(value)
        return module

    return make


def tokens_of(dim: int, size: int, generator: torch.Generator) -> nn.Module:
    if size < 1:
        raise InputError(f"`size` must be positive, got {size}")
    module = Learned(size)
    module.rows = nn.Parameter(torch.randn(size, dim, generator=generator))
    return module


def test_every_slot_passes_the_checks_of_kinds() -> None:
    kinds = [Peft(slot, 2, zero_beside(slot), takes_sites=True) for slot in WIDTHS]
    kinds += [Peft("tokens", 2, tokens_of)]
    kinds += [
        Peft("prefix", 2, lambda d, s, g: Prefix(d, s, renormalise=False, generator=g)),
        Peft("qkv", 2, lambda d, s, g: ProjectionLoRA(d, s, generator=g)),
        Peft(("attention", "fc2"), 2, lambda d, s, g, **k: Both(d, s, generator=g, **k), (), True),
    ]
    for kind in kinds:
        assert check_adapter(kind) == [], kind.slot
    covered = {slot for kind in kinds for slot in kind.slots}
    assert covered == set(SLOTS) - {"key_value", "mlp", "attention_graph"}  # these are built in


def test_an_mlp_of_another_kind_has_no_slots_inside() -> None:
    torch.manual_seed(0)
    vit = AdaptedViT(
        timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, depth=1, mlp_layer=timm.layers.GluMlp
        )
    )
    with pytest.raises(InputError, match="must lie in a backbone with timm's plain Mlp, got GluM"):
        vit.site("fc1", 0)
