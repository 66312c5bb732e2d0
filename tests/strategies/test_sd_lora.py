"""SD-LoRA against the fidelity checklist of the brief (14.6) and plain loops."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.sd_lora import SDLoRA, SDLoRAConfig, SDLoRAModel
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.test_inflora import Watch, copied, images_of

THREE = [[2, 0], [1, 3], [4, 5]]


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> SDLoRA:
    fast = {"batch_size": 8, "epochs": 2, "rank": 3, "lr": 0.05, "optimizer": "sgd"}
    return SDLoRA(
        backbone=vit,
        config=SDLoRAConfig().override({**fast, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def narrow() -> SDLoRAModel:
    """Of width 2, with the update of the brief's example in its only block."""
    vit = timm.create_model(
        "test_vit", num_classes=0, img_size=16, embed_dim=2, depth=1, num_heads=1
    )
    model = SDLoRAModel(AdaptedViT(vit), SDLoRAConfig(rank=1))
    model.magnitudes = torch.nn.Parameter(torch.tensor([0.8]))
    model.updates.renew(torch.tensor([0.6, 0.8]).expand(1, 2, 1, 2))
    model.updates.up.data.copy_(torch.tensor([3.0, 4.0])[:, None].expand(1, 2, 2, 1))
    return model


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_optimiser_is_the_one_that_is_named_and_decays_nothing(
    tiny_vit: AdaptedViT, name: str
) -> None:
    value = torch.nn.Parameter(torch.ones(1))
    made = build(tiny_vit, optimizer=name, lr=0.1).build_optimizer([value])
    value.grad = torch.full((1,), 0.5)
    made.step()
    # A first step of Adam is the rate itself, whatever the gradient.
    assert value.item() == pytest.approx(0.9 if name == "adam" else 0.95)
    value.grad = torch.zeros(1)
    made.step()
    if name == "sgd":
        assert value.item() == pytest.approx(0.95 - 0.1 * 0.9 * 0.5)


@torch.no_grad()
def added(model: SDLoRAModel) -> list[float]:
    """What an input (1, 2) gets added to its query, key and value."""
    update = model.updates.total(model.magnitudes).adapters().at("qkv", 0)
    assert update is not None
    found: Tensor = update(torch.tensor([[[1.0, 2.0]]]), torch.zeros(1, 1, 6))
    return found.flatten().tolist()


def one_more(model: SDLoRAModel, *, keep_function: bool) -> None:
    grown = torch.cat((model.magnitudes.detach(), torch.zeros(1)))
    model.magnitudes = torch.nn.Parameter(grown)
    model.begin_update(torch.zeros(1, 2, 1, 2), keep_function=keep_function)


def test_the_function_jumps_where_an_update_loses_its_norm_unless_it_is_kept() -> None:
    # Checklist 1 and 4.
    model = narrow()
    assert added(model) == pytest.approx([5.28, 7.04, 0, 0, 5.28, 7.04])
    one_more(model, keep_function=False)
    assert added(model) == pytest.approx([1.056, 1.408, 0, 0, 1.056, 1.408])
    assert model.magnitudes.tolist() == pytest.approx([0.8, 0.8])
    kept = narrow()
    one_more(kept, keep_function=True)
    assert added(kept) == pytest.approx([5.28, 7.04, 0, 0, 5.28, 7.04])
    assert kept.magnitudes.tolist() == pytest.approx([0.8 * 5 * 1, 0.8])
    # Stored without a norm: A of length 1 already.
    assert kept.updates.frozen_up.norm().item() == pytest.approx(2**0.5)


def test_a_new_update_is_drawn_as_a_fresh_linear_layer() -> None:
    # 14.1: at rank 10 and width 768 ||A|| is about 1.82; each number of a variance of 1 / (3 * 768).
    vit = timm.create_model(
        "test_vit", num_classes=0, img_size=16, embed_dim=768, depth=2, num_heads=12
    )
    strategy = build(AdaptedViT(vit), rank=10)
    strategy.register_classes((0, 1))
    strategy.begin_experience()
    updates = strategy.model.updates
    assert updates.down.norm(dim=(2, 3)).flatten().tolist() == pytest.approx([1.82] * 4, abs=0.04)
    assert float(updates.down.detach().abs().max()) <= 768**-0.5
    assert not updates.up.any()


@pytest.mark.parametrize("keep_function", [False, True])
def test_stored_updates_stay_and_all_magnitudes_learn(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], keep_function: bool
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch, keep_function=keep_function)
    train = make_stream(THREE, per_class=6).train_stream
    for number, experience in enumerate(train):
        before = copied(strategy)
        strategy.train(experience)
        start, end = watch.starts[number], watch.ends[number]
        changed = {name for name in start if not torch.equal(start[name], end[name])}
        head = {f"heads.layers.{number}.weight", f"heads.layers.{number}.bias"}
        # Checklist 2.
        assert changed == {"magnitudes", "updates.down", "updates.up", *head}
        assert bool((start["magnitudes"] != end["magnitudes"]).all())
        assert len(end["updates.frozen_up"]) == number
        # Checklist 5.
        if not keep_function:
            assert start["magnitudes"].tolist() == pytest.approx([0.8] * (number + 1))
        assert float(start["magnitudes"][-1]) == pytest.approx(0.8)
        if number:
            norms = before["updates.down"].norm(dim=(2, 3)) * before["updates.up"].norm(dim=(2, 3))
            stored = start["updates.frozen_up"][number - 1]
            if keep_function:
                common = norms.square().mean().sqrt()
                torch.testing.assert_close(stored, before["updates.up"] / common)
                expected = before["magnitudes"].clone()
                expected[-1] *= common
                torch.testing.assert_close(start["magnitudes"][:-1], expected)
            else:
                directions = before["updates.up"] / norms[..., None, None]
                torch.testing.assert_close(stored, directions)
                whole = stored @ start["updates.frozen_down"][number - 1]
                assert float(whole.flatten(2).norm(dim=2).max()) <= 1 + 1e-5


def test_the_next_experience_begins_with_the_function_of_the_last(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Checklist 4.
    benchmark = make_stream(THREE, per_class=6)
    images = images_of(benchmark.test_stream[0])
    gaps = {}
    for keep in (True, False):
        strategy = build(tiny_vit, keep_function=keep, lr=0.2)
        strategy.train(benchmark.train_stream[:2])
        model = strategy.model.eval()
        with torch.no_grad():
            before = model(images)
            strategy.register_experience(benchmark.train_stream[2])
            strategy.begin_experience()
            gaps[keep] = float((model(images)[:, :4] - before).abs().max())
    assert gaps[True] < 1e-4
    assert gaps[False] > 0.01


def test_training_equals_a_plain_loop(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch, keep_function=False)
    strategy.train(make_stream(THREE, per_class=6).train_stream[:2])
    start, end = watch.starts[1], watch.ends[1]
    names = [
        "magnitudes",
        "updates.down",
        "updates.up",
        "heads.layers.1.weight",
        "heads.layers.1.bias",
    ]
    values = [start[name].clone().requires_grad_() for name in names]
    magnitudes, down, up, weight, bias = values
    optimizer = torch.optim.SGD(values, lr=0.05, momentum=0.9)
    qkv = [block.attn.qkv.weight.detach().clone() for block in tiny_vit.vit.blocks]
    size = tiny_vit.embed_dim
    assert len(watch.batches) == 4
    for images, targets in watch.batches:
        weights = {}
        for block, plain in enumerate(qkv):
            rows = []
            for place in range(2):
                old = (
                    start["updates.frozen_up"][0, block, place]
                    @ start["updates.frozen_down"][0, block, place]
                )
                new = up[block, place] @ down[block, place]
                rows.append(magnitudes[0] * old + magnitudes[1] * new)
            change = torch.cat([rows[0], torch.zeros(size, size), rows[1]])
            weights[f"vit.blocks.{block}.attn.qkv.weight"] = plain + change
        features = torch.func.functional_call(tiny_vit, weights, (images,))
        own = torch.tensor([[1, 3].index(int(label)) for label in targets])
        torch.autograd.backward(functional.cross_entropy(features @ weight.T + bias, own))
        optimizer.step()
        optimizer.zero_grad()
    for name, value in zip(names, values, strict=True):
        torch.testing.assert_close(end[name], value.detach(), rtol=1e-3, atol=1e-5)


def test_merged_and_unmerged_scores_agree_and_an_image_takes_one_pass(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Checklist 3.
    strategy = build(tiny_vit, lr=0.2)
    benchmark = make_stream(THREE, per_class=6)
    strategy.train(benchmark.train_stream)
    model, images = strategy.model.eval(), images_of(benchmark.test_stream[0])
    before = tiny_vit.num_passes
    with torch.no_grad():
        merged = model(images)
        assert tiny_vit.num_passes - before == len(images)
        apart = copy.deepcopy(model).train()(images)
        torch.testing.assert_close(merged, apart, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.fixed_graph()(images), merged, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(merged, model.heads(tiny_vit(images)), atol=1e-2)


def test_an_experience_costs_no_pass_beside_training(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Section 18.
    strategy = build(tiny_vit, epochs=3)
    for experience in make_stream(THREE, per_class=6).train_stream:
        before = tiny_vit.num_passes
        strategy.train(experience)
        assert tiny_vit.num_passes - before == 12 * 3


def test_later_updates_may_have_a_lower_rank(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    options = SDLoRAConfig(ranks="shrinking")
    assert [options.rank_of(each) for each in (0, 3, 4, 7, 8, 30)] == [10, 10, 8, 8, 6, 6]
    assert SDLoRAConfig().rank_of(30) == 10
    strategy = build(tiny_vit, rank=5, ranks="shrinking", epochs=1)
    strategy.train(make_stream([[each % 3, 3] for each in range(5)], per_class=2).train_stream)
    used = strategy.model.updates.up.detach().abs().amax(dim=(0, 1, 2)) > 0
    assert used.tolist() == [True] * 4 + [False]
    assert bool((strategy.model.updates.frozen_up[0].abs().amax(dim=(0, 1, 2)) > 0).all())


@pytest.mark.slow  # the suite over the defaults is run each time
def test_variants_are_sound() -> None:
    options = {"keep_function": False, "ranks": "shrinking"}
    assert check_strategy(SDLoRA, options=options, checks=["answers", "resumes", "small"]) == []


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    options = SDLoRAConfig.official()
    trained = {"batch_size": 128, "optimizer": "sgd", "lr": 8e-3, "head_init_std": None}
    assert options == SDLoRAConfig().override({**trained, "keep_function": False})
    assert (options.epochs, options.lr, options.rank, options.ranks) == (20, 8e-3, 10, "constant")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "option `rank`: .* 1, got 0"),
        ({"ranks": "growing"}, "option `ranks`: .* got 'growing'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SDLoRAConfig().override(options)
