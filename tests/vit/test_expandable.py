"""Slots with several adapters against loops over samples, tokens and adapters."""

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cl_adapters.errors import InputError
from cl_adapters.peft.registry import PEFTS, Peft
from cl_adapters.peft.routing import ExpandableSlot, RouterKind, SlotRecord
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.expandable import ExpandableViT

DIM, WIDTH = 8, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_slot(
    router: RouterKind, adapters: int, peft: Peft = PEFTS["parallel"]
) -> ExpandableSlot:
    slot, draws = ExpandableSlot(DIM, WIDTH, router=router, peft=peft), generator(1)
    for adapter in range(adapters):
        slot.add_adapter(draws)
        slot.update_router(torch.randn(20, DIM, generator=draws) + adapter, adapter)
    with torch.no_grad():
        for value in slot.adapters.parameters():
            value.copy_(torch.randn(value.shape, generator=draws))
    return slot


@pytest.mark.parametrize("router", ["learned", "discriminant"])
@pytest.mark.parametrize("adapters", [1, 2, 5])
def test_the_mixture_is_the_weighted_sum_of_the_adapters(router: RouterKind, adapters: int) -> None:
    slot = trained_slot(router, adapters)
    tokens = torch.randn(4, 6, DIM, generator=generator(2))
    with torch.no_grad():
        output = slot(tokens)
        for image in range(4):
            mean = sum(tokens[image, token] for token in range(6)) / 6
            weights = slot.route(mean[None])[0]
            assert weights.sum().item() == pytest.approx(1, abs=1e-6)
            for token in range(6):
                expected = sum(
                    weights[k] * slot.adapters[k](tokens[image, token]) for k in range(adapters)
                )
                torch.testing.assert_close(output[image, token], expected, atol=1e-5, rtol=1e-5)


def test_any_kind_that_takes_tokens_is_mixed() -> None:
    tokens = torch.randn(4, 6, DIM, generator=generator(2))
    for name in ("adapter", "lora"):
        slot = trained_slot("discriminant", 3, PEFTS[name])
        with torch.no_grad():
            found = slot(tokens)
            for image in range(4):
                weights = slot.route(tokens[image].mean(dim=0)[None])[0]
                outputs = [each(tokens[image]) for each in slot.adapters]
                if name == "adapter":
                    expected = sum(weights[k] * outputs[k] for k in range(3))
                    torch.testing.assert_close(found[image], expected, atol=1e-5, rtol=1e-5)
                    continue
                for part in range(2):  # what is added to keys, to values
                    expected = sum(weights[k] * outputs[k][part] for k in range(3))
                    torch.testing.assert_close(found[part][image], expected, atol=1e-5, rtol=1e-5)


def test_the_learned_router_is_a_softmax_over_one_linear_column_an_adapter() -> None:
    slot = trained_slot("learned", 3)
    means = torch.randn(5, DIM, generator=generator(3))
    with torch.no_grad():
        for row, weights in zip(means, slot.route(means), strict=True):
            logits = torch.stack(
                [row @ column.weight[0] + column.bias[0] for column in slot.columns]
            )
            torch.testing.assert_close(weights, logits.exp() / logits.exp().sum())


def test_a_new_adapter_adds_nothing_and_a_new_column_is_within_its_bound() -> None:
    slot = ExpandableSlot(DIM, WIDTH, router="learned")
    slot.add_adapter(generator())
    tokens = torch.randn(2, 4, DIM, generator=generator(2))
    assert (slot(tokens) == 0).all()
    bound = DIM**-0.5
    assert all((value.abs() <= bound).all() for value in slot.columns[0].parameters())
    assert len({id(value) for value in slot.newest_parameters()}) == 6


def test_with_one_adapter_its_learned_column_gets_no_gradient() -> None:
    slot = trained_slot("learned", 1)
    slot(torch.randn(2, 4, DIM, generator=generator(2))).sum().backward()
    assert all(value.grad is None or not value.grad.any() for value in slot.columns.parameters())


def test_the_discriminant_router_sends_data_to_the_adapter_it_was_told_of() -> None:
    slot = ExpandableSlot(DIM, WIDTH, router="discriminant")
    draws = generator(4)
    for adapter in range(3):
        slot.add_adapter(draws)
        slot.update_router(torch.randn(60, DIM, generator=draws) + 4 * adapter, adapter)
    for adapter in range(3):
        fresh = torch.randn(60, DIM, generator=draws) + 4 * adapter
        assert slot.route(fresh)[:, adapter].mean() > 0.95


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0, img_size=32)


@pytest.mark.parametrize("expandable", [(4, 5), (1, 3), (0,)])
def test_a_pass_cut_at_the_first_expandable_block_equals_a_whole_one(
    vit: nn.Module, expandable: tuple[int, ...]
) -> None:
    backbone = AdaptedViT(vit)
    model = ExpandableViT(
        backbone, expandable=expandable, width=WIDTH, router="learned", generator=generator()
    )
    images = torch.randn(2, 3, 32, 32, generator=generator(5))
    with torch.no_grad():
        # New adapters change nothing.
        torch.testing.assert_close(model.features(images), backbone(images), atol=1e-5, rtol=1e-5)
        for value in model.adapters.parameters():
            value.copy_(torch.randn(value.shape, generator=generator(6)) / 10)
        whole = backbone(images, model.adapters)
        assert (whole - backbone(images)).abs().max() > 1e-3
        torch.testing.assert_close(model.features(images), whole)
        torch.testing.assert_close(model.features(model.prefix(images)), whole)


def test_the_slot_reads_the_stream_after_attention_that_is_not_normalised(vit: nn.Module) -> None:
    backbone = AdaptedViT(vit)
    model = ExpandableViT(
        backbone, expandable=(0,), width=WIDTH, router="learned", generator=generator()
    )
    images = torch.randn(2, 3, 32, 32, generator=generator(5))
    with torch.no_grad():
        record: dict[int, SlotRecord] = {}
        model.features(images, record)
        stream, block = backbone.tokens(images), vit.blocks[0]
        after = stream + block.ls1(block.attn(block.norm1(stream)))
        torch.testing.assert_close(record[0].mean_tokens, after.mean(dim=1))


def test_a_record_holds_what_each_router_read_and_decided_and_changes_nothing(
    vit: nn.Module,
) -> None:
    backbone = AdaptedViT(vit)
    model = ExpandableViT(
        backbone, expandable=(2, 4), width=WIDTH, router="learned", generator=generator()
    )
    model.slot(4).add_adapter(generator(3))
    with torch.no_grad():
        for value in model.adapters.parameters():
            value.copy_(torch.randn(value.shape, generator=generator(6)) / 10)
    tokens = backbone.tokens(torch.randn(3, 3, 32, 32, generator=generator(5)))
    record: dict[int, SlotRecord] = {}
    whole = model.forward_blocks(tokens, 0, 6, record=record)
    assert torch.equal(whole, model.forward_blocks(tokens, 0, 6))
    assert sorted(record) == [2, 4]
    assert record[2].weights.tolist() == [[1.0]] * 3
    before = model.forward_blocks(tokens, 0, 4)
    block = vit.blocks[4]
    after = before + block.ls1(block.attn(block.norm1(before)))
    torch.testing.assert_close(record[4].mean_tokens, after.mean(dim=1))
    columns = model.slot(4).columns
    logits = torch.cat([column(record[4].mean_tokens) for column in columns], dim=1)
    torch.testing.assert_close(record[4].weights, logits.softmax(dim=1))
    assert not record[4].mean_tokens.requires_grad
    assert not record[4].weights.requires_grad
    partial: dict[int, SlotRecord] = {}
    model.forward_blocks(tokens, 0, 3, record=partial)
    assert sorted(partial) == [2]


def test_a_training_step_with_twenty_adapters_costs_what_one_with_two_does() -> None:
    # ViT-Tiny, whose shapes decide the ratio; few tokens, since all of the cost grows with them.
    vit = AdaptedViT(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64))
    tokens = torch.randn(8, 17, 192, generator=generator())

    def flops(adapters: int) -> int:
        model = ExpandableViT(
            vit, expandable=(9, 10, 11), width=16, router="discriminant", generator=generator()
        )
        for block in model.expandable:
            for adapter in range(adapters):
                if adapter > 0:
                    model.slot(block).add_adapter(generator())
                model.slot(block).update_router(
                    torch.randn(20, 192, generator=generator()), adapter
                )
        model.requires_grad_(requires_grad=False)
        for block in model.expandable:
            for value in model.slot(block).newest_parameters():
                value.requires_grad = True
        with FlopCounterMode(display=False) as counter:
            model.features(tokens).square().sum().backward()
        return counter.get_total_flops()

    assert flops(20) <= 1.25 * flops(2)


def test_the_prefix_names_all_that_it_computes_with(vit: nn.Module) -> None:
    model = ExpandableViT(
        AdaptedViT(vit), expandable=(3, 5), width=WIDTH, router="learned", generator=generator()
    )
    for value in model.parameters():  # so that each of them counts
        value.data.add_(0.05 * torch.randn(value.shape, generator=generator(7)))
    model.adapters.requires_grad_(requires_grad=True)
    images = torch.randn(2, 3, 32, 32, generator=generator(5))
    model.prefix(images).square().sum().backward()
    used = {value for value in model.adapters.parameters() if value.grad is not None}
    named = {value for part in model.prefix_modules() for value in part.parameters()}
    assert len(used) == 3 * 4  # of the bottlenecks of blocks 0 to 2
    assert named == used | set(model.backbone.parameters())


@pytest.mark.parametrize("router", ["learned", "discriminant"])
def test_what_is_left_out_gives_its_weight_to_the_others(router: RouterKind) -> None:
    slot, tokens = trained_slot(router, 3), torch.randn(4, 6, DIM, generator=generator(2))
    with torch.no_grad():
        whole, outputs = slot(tokens), [adapter(tokens) for adapter in slot.adapters]
        weights = slot.route(tokens.mean(dim=1)).double()
        slot.left_out = frozenset({1})
        shares = weights[:, [0, 2]] / weights[:, [0, 2]].sum(dim=1, keepdim=True)
        expected = shares[:, 0, None, None] * outputs[0] + shares[:, 1, None, None] * outputs[2]
        torch.testing.assert_close(slot(tokens), expected.float(), rtol=1e-4, atol=1e-5)
        slot.left_out = frozenset({0, 1, 2})
        assert torch.equal(slot(tokens), torch.zeros_like(whole))
        slot.left_out = frozenset()
        assert torch.equal(slot(tokens), whole)


def test_adapters_are_back_after_they_were_left_out(tiny_vit: AdaptedViT) -> None:
    model = ExpandableViT(
        tiny_vit, expandable=(4, 5), width=3, router="learned", generator=generator()
    )
    model.slot(5).add_adapter(generator(1))
    assert model.grown() == [(5, 1)]
    with model.leaving_out([(5, 1)]):
        assert model.slot(5).left_out == {1}
    assert not model.slot(5).left_out
    for absent in ((5, 2), (3, 0)):
        with pytest.raises(InputError, match="adapters to leave out"), model.leaving_out([absent]):
            pass
