"""SEMA in training against the fidelity checklist of the brief and plain-loop oracles."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.marks import by_default
from tests.strategies.trained_sema import (
    TWO,
    Epochs,
    Scripted,
    adapters_by_block,
    build,
    changed,
    snapshot,
)


def test_the_last_three_blocks_expand_and_all_train_in_experience_0(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, official=True)
    assert strategy.model.expandable == (3, 4, 5)
    assert list(strategy.model.adapters) == [("mlp", block) for block in range(6)]
    before = snapshot(strategy.model.adapters)
    strategy.train(make_stream(TWO).train_stream[0])
    ups = {name for name in before if name.endswith("up") and "columns" not in name}
    assert len(ups) == 6
    assert ups <= changed(before, strategy.model.adapters)
    assert set(strategy.model.detectors) == {"3", "4", "5"}
    assert not any(value.requires_grad for value in strategy.model.parameters())


def test_official_training_of_experience_0_equals_a_plain_loop(  # noqa: PLR0915 - one long loop
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    class Batches(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[Tensor, Tensor]] = []

        def before_forward(self, strategy: Any, **_: Any) -> None:
            self.seen.append((strategy.mb_x.clone(), strategy.mb_y.clone()))

    batches = Batches()
    strategy = build(tiny_vit, batches, official=True, epochs=2, num_classes=4)
    weights = {
        name: value.detach().clone() for name, value in strategy.model.adapters.named_parameters()
    }
    before = dict(weights)
    strategy.train(make_stream(TWO).train_stream[0])
    learned = dict(strategy.model.named_parameters())

    # The head as the strategy drew it: torch's fresh linear layer from the same generator.
    rows = torch.empty(4, tiny_vit.embed_dim)
    twin = build(tiny_vit, official=True, num_classes=4)
    twin.classes_by_experience.append((0, 1))
    draws = twin.generator("weights")
    torch.nn.init.kaiming_uniform_(rows, a=math.sqrt(5), generator=draws)
    weights["weight"], weights["bias"] = rows, torch.zeros(4)
    momentum = {name: torch.zeros_like(value) for name, value in weights.items()}
    steps = len(batches.seen) // 2
    for step, (images, targets) in enumerate(batches.seen):
        for value in weights.values():
            value.requires_grad_(True)
        tokens = tiny_vit.tokens(images)
        for index, block in enumerate(tiny_vit.vit.blocks):
            place = f"mlp_{index}" + (".adapters.0" if index >= 3 else "")
            own = {
                part: weights[f"_by_name.{place}.{part}"]
                for part in ("down", "down_bias", "up", "up_bias")
            }
            stream = tokens + block.attn(block.norm1(tokens))
            hidden = torch.relu(stream @ own["down"].T + own["down_bias"])
            added = hidden @ own["up"].T + own["up_bias"]
            tokens = stream + block.mlp(block.norm2(stream)) + added
        features = tiny_vit.vit.forward_head(tiny_vit.vit.norm(tokens), pre_logits=True)
        logits = features @ weights["weight"].T + weights["bias"]
        logits[:, 2:] = -math.inf
        # The first column of a router has no say: gradients of zero, but weight decay.
        grads = torch.autograd.grad(
            functional.cross_entropy(logits, targets),
            list(weights.values()),
            allow_unused=True,
            materialize_grads=True,
        )
        rate = 0.005 * (1 + math.cos(math.pi * (step // steps) / 2)) / 2
        with torch.no_grad():
            for (name, value), grad in zip(list(weights.items()), grads, strict=True):
                momentum[name] = 0.9 * momentum[name] + grad + 5e-4 * value
                weights[name] = value.detach() - rate * momentum[name]
    head = strategy.model.heads.layers[0]
    torch.testing.assert_close(weights.pop("weight"), head.weight, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(weights.pop("bias"), head.bias, atol=2e-6, rtol=1e-4)
    for name, value in weights.items():
        found, is_column = learned[f"adapters.{name}"], "columns" in name
        bounds = {"atol": 0.0, "rtol": 1e-6} if is_column else {"atol": 2e-6, "rtol": 1e-4}
        torch.testing.assert_close(value, found, **bounds)
        assert not torch.allclose(found, before[name], **bounds)
    assert strategy.model.detectors.newest(3).batch_size == strategy.config.batch_size == 8


def test_sgd_has_the_authors_settings_and_a_cosine_from_epoch_to_epoch(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, official=True, epochs=4)
    strategy.train(make_stream(TWO).train_stream[0])
    expected = [0.005 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert epochs.rates == pytest.approx(expected)
    (group,) = strategy.optimizer.param_groups
    assert (type(strategy.optimizer), group["momentum"], group["weight_decay"]) == (
        torch.optim.SGD,
        0.9,
        5e-4,
    )


def test_nothing_grown_trains_the_head_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, detector="scripted", head="linear", epochs=3)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    before = snapshot(strategy.model)
    epochs.trainable.clear()
    strategy.train(stream[1])
    assert len(epochs.trainable) == 3
    assert all(name.startswith("heads.") for each in epochs.trainable for name in each)
    learned = {name for name in changed(before, strategy.model) if "discriminant" not in name}
    assert learned
    assert all(name.startswith("heads.") for name in learned)


def test_frozen_adapters_columns_and_detectors_never_change(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, official=True, policy="every_experience")
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    strategy.train(stream[0])
    for experience in stream[1:]:
        before = snapshot(strategy.model.adapters), snapshot(strategy.model.detectors)
        strategy.train(experience)
        assert not changed(before[0], strategy.model.adapters)
        assert not changed(before[1], strategy.model.detectors)
    assert adapters_by_block(strategy) == {3: 3, 4: 3, 5: 3}
    assert len(strategy.model.slot(3).columns) == 3


def test_old_classes_get_no_gradient_but_decay(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, official=True, policy="never")
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    old = strategy.model.heads.layers[0].weight.detach().clone()
    strategy.train(stream[1])
    now = strategy.model.heads.layers[0].weight.detach()
    # 24 images in batches of 8: three steps of momentum over lr * decay, no gradient.
    value, velocity = old.clone(), torch.zeros_like(old)
    for _ in range(3):
        velocity = 0.9 * velocity + 5e-4 * value
        value = value - 0.005 * velocity
    torch.testing.assert_close(now, value)


@pytest.mark.parametrize("official", by_default([True, False], [False]))
def test_kept_tokens_and_images_learn_the_same(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], official: bool
) -> None:
    class Inputs(SupervisedPlugin):
        dimensions: ClassVar[set[int]] = set()

        def before_forward(self, strategy: Any, **_: Any) -> None:
            if strategy.clock.train_exp_counter == 1:
                self.dimensions.add(strategy.mb_x.ndim)

    benchmark = make_stream(TWO)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    outputs = []
    for megabytes, dimensions in ((1024, {3}), (0, {4})):
        Inputs.dimensions = set()
        strategy = build(
            tiny_vit,
            Inputs(),
            official=official,
            policy="every_experience",
            cache_megabytes=megabytes,
        )
        strategy.train(benchmark.train_stream)
        assert Inputs.dimensions == dimensions
        with torch.no_grad():
            outputs.append(strategy.model.eval()(images).logits)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=1e-4)


def test_the_discriminant_classifier_is_that_of_the_final_features(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    benchmark = make_stream(TWO)
    strategy.train(benchmark.train_stream[0])
    dataset = benchmark.train_stream[0].dataset
    with torch.no_grad():
        features = strategy.model.features(torch.stack([sample[0] for sample in dataset]))
    targets = torch.tensor([sample[1] for sample in dataset])
    for label in (0, 1):
        mean = strategy.model.classes.sums[label] / strategy.model.classes.counts[label]
        directions = functional.normalize(features[targets == label], dim=1)
        torch.testing.assert_close(mean.float(), directions.mean(dim=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expandable": [2, 6]}, "`expandable` must name blocks from 0 to 5, got 6"),
        ({"expandable": 7}, "`expandable` must be from 1 to the number of blocks, 6, got 7"),
        ({"expandable": "some"}, "`expandable` must be a count of the last blocks, .* got 'some'"),
        ({"expandable": 1.5}, "option `expandable`: .* integer.*; or: .*'all', got 1.5"),
        ({"threshold": "much"}, "option `threshold`: .* number.*; or: .*'auto', got 'much'"),
        ({"threshold": 0}, "`threshold` must be 'auto' or above 0, got 0"),
        ({"threshold": -1.5}, "`threshold` must be 'auto' or above 0, got -1.5"),
        ({"detector": "zscor"}, "unknown detector 'zscor'"),
        ({"policy": "sometimes"}, "option `policy`"),
        ({"budget": {"adapters": 0}}, r"option `budget.adapters`"),
    ],
)
def test_bad_options_are_refused(
    tiny_vit: AdaptedViT, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(tiny_vit, **options)


class _Norms(SupervisedPlugin):
    """Notes how long the gradients of each step are together."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def after_update(self, strategy: Any, **_: Any) -> None:
        groups = strategy.optimizer.param_groups
        found = [value.grad.flatten() for group in groups for value in group["params"]]
        self.found.append(float(torch.cat(found).norm()))


def test_a_small_head_and_clipped_steps_as_the_options_say(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    experience = make_stream(TWO).train_stream[0]
    long, short = _Norms(), _Norms()
    build(tiny_vit, long).train(experience)
    strategy = build(tiny_vit, short, clip_norm=0.01, head_init_std=1e-4, lr=1e-9)
    strategy.train(experience)
    assert min(long.found) > 0.01
    assert max(short.found) == pytest.approx(0.01, rel=1e-3)
    weights = [value for value in strategy.model.heads.parameters() if value.ndim == 2]
    assert 0.7e-4 < float(torch.cat(weights).std()) < 1.3e-4
