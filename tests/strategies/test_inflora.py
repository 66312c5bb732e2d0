"""InfLoRA against the fidelity checklist of the brief (10.8) and plain loops."""

import copy
import math
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

from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Directions
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.core.views import Views
from cl_adapters.strategies.inflora import InfLoRA, InfLoRAConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.killable import SOURCE, config

TWO = [[2, 0], [1, 3]]


class Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps what each experience starts and ends training with, and its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.batches: list[tuple[Tensor, Tensor]] = []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        self.starts.append(copied(strategy))
        self.ends.append({})
        self.batches.clear()

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.ends[-1] = copied(strategy)


def copied(strategy: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in strategy.learned_state().items()}


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> InfLoRA:
    fast = {"batch_size": 8, "epochs": 3, "rank": 3, "lr": 0.02}
    return InfLoRA(
        backbone=vit,
        config=InfLoRAConfig().override({**fast, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def images_of(experience: Any) -> Tensor:
    dataset = experience.dataset
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


@torch.no_grad()
def inputs_of_attention(vit: AdaptedViT, images: Tensor) -> list[Tensor]:
    """All rows that each block's attention is given, by hooks on timm's own network."""
    seen: list[Tensor] = []
    hooks = [
        block.attn.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, 1)))
        for block in vit.vit.blocks
    ]
    vit.vit.forward_features(images)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def with_updates(vit: AdaptedViT, downs: Tensor, ups: Tensor) -> AdaptedViT:
    """A copy whose keys and values have each update, (T, L, ...), added by hand."""
    network, size = copy.deepcopy(vit), vit.embed_dim
    for down, up in zip(downs, ups, strict=True):
        for block, layer in enumerate(network.vit.blocks):
            layer.attn.qkv.weight[size : 2 * size] += up[block, 0] @ down[block, 0]
            layer.attn.qkv.weight[2 * size :] += up[block, 1] @ down[block, 0]
    return network


def test_the_threshold_rises_with_the_experience_and_then_stays() -> None:
    # Checklist 3.
    options = InfLoRAConfig()
    assert options.threshold(3, 10) == pytest.approx(0.965)
    assert [round(options.threshold(each, 4), 4) for each in (0, 3, 4, 9)] == [
        0.95, 0.9875, 0.9875, 0.9875,
    ]  # fmt: skip


def test_the_worked_example_of_free_directions() -> None:
    # Checklist 1: M = diag(4, 3, 2, 1), U = e1, R = 2.
    vit = timm.create_model(
        "test_vit", num_classes=0, img_size=16, embed_dim=4, depth=1, num_heads=1
    )
    strategy = build(AdaptedViT(vit), rank=2)
    (space,) = strategy.model.spaces
    space.basis = torch.eye(4)[:, :1]
    strategy.register_classes((0, 1))
    strategy._moments = lambda _: [torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))]  # type: ignore[method-assign]
    strategy.begin_experience()
    found = strategy.model.updates.down[0, 0].abs().tolist()
    assert found == [pytest.approx(row, abs=5e-5) for row in ([0, 0.5774, 0, 0], [0, 0, 0.5774, 0])]


def test_a_is_set_from_the_inputs_and_stays_while_b_and_the_new_head_learn(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch)
    train = make_stream(TWO, per_class=6).train_stream
    strategy.train(train[0])
    first = copied(strategy)
    strategy.train(train[1])
    for number, experience in enumerate(train):
        start, end = watch.starts[number], watch.ends[number]
        # Checklist 5: bit for bit.
        assert torch.equal(start["updates.down"], end["updates.down"])
        assert not start["updates.up"].any()
        assert bool(end["updates.up"].abs().amax(dim=(2, 3)).gt(0).all())
        changed = {name for name in start if not torch.equal(start[name], end[name])}
        new = {f"heads.layers.{number}.weight", f"heads.layers.{number}.bias"}
        assert changed == {"updates.up", *new}
        # Checklist 1: the first left singular vectors of what M leaves outside of U, over root 3.
        network = tiny_vit
        if number:
            network = with_updates(
                tiny_vit, first["updates.frozen_down"], first["updates.frozen_up"]
            )
        for block, rows in enumerate(inputs_of_attention(network, images_of(experience))):
            moment = rows.double().T @ rows.double() / len(rows)
            if number:
                basis = first[f"spaces.{block}.basis"].double()
                assert not bool(first[f"spaces.{block}.is_free"])
                moment = moment - basis @ basis.T @ moment
                # Checklist 4: A U = 0.
                assert float((start["updates.down"][block, 0].double() @ basis).abs().max()) < 1e-6
            vectors = torch.linalg.svd(moment)[0][:, :3].T
            found = start["updates.down"][block, 0].double() * math.sqrt(3)
            signs = (found * vectors).sum(dim=1, keepdim=True).sign()
            torch.testing.assert_close(found, signs * vectors, atol=1e-3, rtol=0)
    assert torch.equal(strategy.model.updates.frozen_up[0], first["updates.frozen_up"][0])


def test_training_equals_a_plain_loop(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch)
    train = make_stream(TWO, per_class=6).train_stream
    strategy.train(train)
    start, end = watch.starts[1], watch.ends[1]
    network = with_updates(tiny_vit, start["updates.frozen_down"], start["updates.frozen_up"])
    up = start["updates.up"].clone().requires_grad_()
    weight, bias = (
        start[f"heads.layers.1.{each}"].clone().requires_grad_() for each in ("weight", "bias")
    )
    optimizer = torch.optim.Adam([up, weight, bias])
    assert len(watch.batches) == 6
    qkv = [block.attn.qkv.weight.detach().clone() for block in network.vit.blocks]
    size = network.embed_dim
    for step, (images, targets) in enumerate(watch.batches):
        optimizer.param_groups[0]["lr"] = 0.02 * math.cos(99 * math.pi * (step // 2) / (200 * 2))
        weights = {}
        for block, plain in enumerate(qkv):
            down = start["updates.down"][block, 0]
            added = torch.cat([torch.zeros(size, size), up[block, 0] @ down, up[block, 1] @ down])
            weights[f"vit.blocks.{block}.attn.qkv.weight"] = plain + added
        rows = torch.func.functional_call(network, weights, (images,))
        own = torch.tensor([[1, 3].index(int(label)) for label in targets])
        torch.autograd.backward(functional.cross_entropy(rows @ weight.T + bias, own))
        optimizer.step()
        optimizer.zero_grad()
    for name, value in (("updates.up", up), ("heads.layers.1.weight", weight)):
        torch.testing.assert_close(end[name], value.detach(), rtol=1e-2, atol=1e-4)


def test_merged_and_unmerged_scores_agree_and_an_image_takes_one_pass(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    benchmark = make_stream(TWO, per_class=6)
    strategy.train(benchmark.train_stream)
    model, images = strategy.model.eval(), images_of(benchmark.test_stream[0])
    before = tiny_vit.num_passes
    with torch.no_grad():
        merged = model(images)
        assert tiny_vit.num_passes - before == len(images)
        apart = model.heads(tiny_vit(images, model.updates.total().adapters()))
        by_hand = with_updates(tiny_vit, model.updates.frozen_down, model.updates.frozen_up)
        graph = model.fixed_graph()
        # Checklist 6.
        for other in (apart, model.heads(by_hand(images)), graph(images)):
            torch.testing.assert_close(merged, other, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(merged, model.heads(tiny_vit(images)), atol=1e-2)


def test_an_experience_costs_two_passes_of_each_image_beside_training(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Section 18: one for A, one for DualGPM.
    strategy = build(tiny_vit, epochs=3)
    for experience in make_stream(TWO, per_class=6).train_stream:
        before = tiny_vit.num_passes
        strategy.train(experience)
        assert tiny_vit.num_passes - before == 12 * (3 + 2)


def test_an_update_leaves_what_the_projections_make_of_old_inputs(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Checklist 4: u in the span of U gives B A u = 0.
    strategy = build(tiny_vit)
    train = make_stream(TWO, per_class=6).train_stream
    strategy.train(train[0])
    bases = [space.basis.clone() for space in strategy.model.spaces]  # type: ignore[union-attr]
    strategy.train(train[1])
    old, new = (strategy.model.updates.frozen(each).weights() for each in (0, 1))
    for block, basis in enumerate(bases):
        assert float((new[block] @ basis).abs().max()) < 1e-5 * float(new[block].abs().max())
        assert float((old[block] @ basis).abs().max()) > 1e-3 * float(old[block].abs().max())


def test_after_an_experience_the_directions_hold_the_share_of_its_inputs(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, lamb=0.99, experiences_total=4)
    train = make_stream(TWO, per_class=6).train_stream
    for number, experience in enumerate(train):
        strategy.train(experience)
        (event,) = (e for e in strategy.pop_events(number) if isinstance(e, Directions))
        assert (event.threshold, event.experiences) == (pytest.approx(0.99 + 0.0025 * number), 4)
        model = strategy.model
        network = with_updates(tiny_vit, model.updates.frozen_down, model.updates.frozen_up)
        for block, rows in enumerate(inputs_of_attention(network, images_of(experience))):
            space: Any = model.spaces[block]
            moment = rows.double().T @ rows.double() / len(rows)
            total = moment.square().sum()
            left = float(space.project(moment).square().sum() / total)
            fewer = copy.deepcopy(space)
            assert event.used[block] == space.num_used
            if number:  # the first experience stays just below its threshold, as published
                assert left <= 1 - event.threshold + 1e-6
            else:
                assert left >= 1 - event.threshold - 1e-6
                fewer.basis = torch.linalg.svd(moment)[0][:, : space.num_used + 1].float()
                assert (
                    float(fewer.project(moment).square().sum() / total)
                    <= 1 - event.threshold + 1e-6
                )


def test_the_number_of_experiences_is_the_streams_and_kept() -> None:
    # Six classes, two an experience; what an option says counts more.
    recipe = config("inflora")
    strategy = prepare(recipe, source=SOURCE).strategy
    assert strategy.config.experiences_total == 3  # type: ignore[attr-defined]
    named = config("inflora", options={"experiences_total": 7, "batch_size": 8})
    assert prepare(named, source=SOURCE).strategy.config.experiences_total == 7  # type: ignore[attr-defined]
    values = {**recipe.model_dump(), "task_free": "mahalanobis", "reference": 20, "window": 20}
    found = prepare(RunConfig.parse(values), source=SOURCE).strategy
    assert found.config.experiences_total is None  # type: ignore[attr-defined]


def test_where_nobody_says_how_many_experiences_come_ten_are_counted_on(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=1)
    strategy.train(make_stream(TWO, per_class=2).train_stream[0])
    assert int(strategy.learned_state()["experiences_total"]) == 10
    # A run that goes on takes what the checkpoint says.
    other = build(tiny_vit, epochs=1, experiences_total=3)
    train = make_stream(TWO, per_class=2).train_stream
    other.restore(strategy.learned_state(), train[:1])
    other.train(train[1])
    assert int(other.learned_state()["experiences_total"]) == 10


def test_directions_are_taken_from_images_as_training_shows_them_where_asked(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    asked: list[str] = []

    class Told(Views):
        def show(self, moment: str) -> None:
            asked.append(moment)

    for moments, expected in (("plain", []), ("augmented", ["0 1 before", "0 1 after"])):
        asked.clear()
        strategy = InfLoRA(
            backbone=tiny_vit,
            config=InfLoRAConfig().override({"moments": moments, "epochs": 1, "rank": 2}),
            fixed_views=Told("crops"),
            evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
        )
        strategy.train(make_stream(TWO, per_class=2).train_stream[0])
        assert [each for each in asked if "phase" not in each] == expected


@pytest.mark.slow  # the suite over the defaults is run each time
@pytest.mark.parametrize("options", [{"blocks": 2, "moments": "augmented"}, {"rank": 200}])
def test_variants_are_sound(options: dict[str, object]) -> None:
    assert check_strategy(InfLoRA, options=options, checks=["answers", "resumes", "small"]) == []


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    options = InfLoRAConfig.official()
    expected = {"batch_size": 128, "lr": 5e-4, "moments": "augmented", "head_init_std": None}
    assert options == InfLoRAConfig().override({**expected, "first_form": "published"})
    trained = options.epochs, options.lr, options.rank, options.lamb, options.lame
    assert trained == (20, 5e-4, 10, 0.95, 1.0)


def test_the_published_first_form_stops_where_the_authors_code_does(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=1, lamb=0.9999999, first_form="published")
    with pytest.raises(InputError, match="at most half of all under `first_form` 'published'"):
        strategy.train(make_stream(TWO, per_class=6).train_stream[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lame": 0.9}, "`lame` must be at least `lamb`, 0.95, got 0.9"),
        ({"rank": 0}, "option `rank`: .* 1, got 0"),
        ({"experiences_total": 0}, "option `experiences_total`: .* 1, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        InfLoRAConfig().override(options)
