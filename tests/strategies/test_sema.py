"""SEMA against the fidelity checklist of the brief and plain-loop oracles."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.shift import DETECTORS, Detector, Verdict
from cl_adapters.strategies.sema import SEMA, SEMAConfig
from cl_adapters.vit.adapted_vit import AdaptedViT

TWO = [[0, 1], [2, 3]]


class Scripted(Detector):
    """Fires where the test says so; counts what it is asked."""

    min_samples: ClassVar[int] = 4
    fires: ClassVar[Callable[[int], bool]] = lambda _: False  # by number of the question
    asked: ClassVar[list[tuple[int, int]]] = []  # (which detector, images)
    made: ClassVar[int] = 0

    def __init__(self, num_features: int, **_: Any) -> None:
        super().__init__(num_features)
        self.register_buffer("fitted", torch.zeros(()))
        self.number = Scripted.made
        Scripted.made += 1

    def fit(self, features: Tensor) -> None:
        self.fitted = torch.tensor(float(len(features.reshape(-1, features.shape[-1]))))

    def check(self, features: Tensor) -> Verdict:
        Scripted.asked.append((self.number, len(features)))
        return Verdict(1.0 if Scripted.fires(len(Scripted.asked) - 1) else 0.0, 0.5)

    def reset(self) -> None:
        self.fitted = torch.zeros(())


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setitem(DETECTORS, "scripted", Scripted)
    Scripted.asked, Scripted.made, Scripted.fires = [], 0, lambda _: False
    return Scripted


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> SEMA:
    official = options.pop("official", False)
    config = SEMAConfig.official() if official else SEMAConfig()
    fast = {"batch_size": 8, "epochs": 1, "descriptor_epochs": 2}
    return SEMA(
        backbone=vit,
        config=config.override({**fast, **options}),
        fixed_views=options.pop("fixed_views", True),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def adapters_by_block(strategy: SEMA) -> dict[int, int]:
    return {block: len(strategy.model.slot(block)) for block in strategy.blocks}


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


class Epochs(SupervisedPlugin):
    """Notes learning rates, phases, and which parameters an epoch may change."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.trainable: list[set[str]] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        self.trainable.append(
            {name for name, value in strategy.model.named_parameters() if value.requires_grad}
        )


def test_the_last_three_blocks_expand_and_all_train_in_experience_0(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, official=True)
    assert strategy.blocks == (3, 4, 5)
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
        name: value.detach().clone()
        for name, value in strategy.model.adapters.named_parameters()
        if "columns" not in name
    }
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
        grads = torch.autograd.grad(
            functional.cross_entropy(logits, targets), list(weights.values())
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
        torch.testing.assert_close(value, learned[f"adapters.{name}"], atol=2e-6, rtol=1e-4)


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


def test_a_window_grows_the_shallowest_block_that_fires_and_deeper_ones_are_not_asked(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", detect_batch_size=24)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda question: question == 1  # block 3 no, block 4 yes
    strategy.train(stream[1])
    # One window: blocks 3 and 4; then, as block 4 grew, a second pass over blocks 3 and 5.
    assert [number for number, _ in scripted.asked] == [0, 1, 0, 2]
    assert adapters_by_block(strategy) == {3: 1, 4: 2, 5: 1}


def test_scanning_repeats_until_a_pass_is_clean_and_a_block_grows_once(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, detector="scripted", detect_batch_size=24, epochs=2)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda _: True
    epochs.trainable.clear()
    strategy.train(stream[1])
    # Pass 1 grows block 3, pass 2 block 4, pass 3 block 5; then no block is left to ask.
    assert len(scripted.asked) == 3
    assert adapters_by_block(strategy) == {3: 2, 4: 2, 5: 2}
    assert len(epochs.trainable) == 3 * 2
    grown = [{name.split(".")[2] for name in each if "mlp" in name} for each in epochs.trainable]
    assert grown == [{"mlp_3"}] * 2 + [{"mlp_4"}] * 2 + [{"mlp_5"}] * 2


def test_with_several_adapters_a_block_grows_only_if_all_fire(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", detect_batch_size=24, expandable=1)
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda _: True
    strategy.train(stream[1])
    assert adapters_by_block(strategy) == {5: 2}
    scripted.asked.clear()
    scripted.fires = lambda question: question == 0  # the first detector fires, the second not
    strategy.train(stream[2])
    assert [number for number, _ in scripted.asked] == [0, 1]
    assert adapters_by_block(strategy) == {5: 2}


def test_remaining_windows_are_scanned_after_growth_and_the_last_window_by_the_option(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    stream = make_stream(TWO, per_class=10).train_stream
    for merge, windows in ((False, [8, 8, 4]), (True, [8, 12])):
        scripted.asked.clear()
        scripted.fires = lambda question: question == 0
        strategy = build(
            tiny_vit,
            detector="scripted",
            detect_batch_size=8,
            expandable=1,
            merge_last=merge,
        )
        strategy.train(stream[0])
        strategy.train(stream[1])
        # Grown at the first window: the others of that pass and of the next are not asked, since
        # the only block has grown.
        assert [images for _, images in scripted.asked] == windows[:1]
        scripted.asked.clear()
        scripted.fires = lambda _: False
        strategy.train(stream[1])
        assert [images for _, images in scripted.asked] == [
            images for images in windows for _ in range(2)
        ]


def test_nothing_grown_trains_the_head_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, detector="scripted", classifier="linear", epochs=3)
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


def test_policies_and_budgets_decide_what_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    one = 2 * 64 * 16 + 16 + 64 + 1  # adapter and the detector's only number
    cases: list[tuple[dict[str, Any], Callable[[int], bool], list[int]]] = [
        ({"policy": "never"}, lambda _: True, [1, 1, 1]),
        ({"policy": "every_experience"}, lambda _: False, [3, 3, 3]),
        ({"policy": "whole_network"}, lambda question: question == 0, [2, 2, 2]),
        ({"budget": {"adapters": 2}}, lambda _: True, [2, 2, 2]),
        ({"budget": {"parameters": 2 * one}}, lambda _: True, [2, 2, 1]),
        ({"policy": "whole_network", "budget": {"parameters": 4 * one}}, lambda _: True, [3, 2, 2]),
    ]
    for options, fires, expected in cases:
        scripted.asked.clear()
        scripted.fires = fires
        strategy = build(tiny_vit, detector="scripted", **options)
        strategy.train(stream)
        assert list(adapters_by_block(strategy).values()) == expected, options


def test_events_say_why(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", expandable=1, budget={"adapters": 2})
    benchmark = make_stream([[0, 1], [2, 3], [4, 5]])
    reasons = []
    for index, experience in enumerate(benchmark.train_stream):
        scripted.fires = lambda _: True
        strategy.train(experience)
        strategy.eval(benchmark.test_stream[: index + 1])
        events = strategy.pop_events(index)
        assert all(event["experience"] == index for event in events)
        reasons += [(each["grown"], each["reason"]) for each in events if each["event"] == "scan"]
        (router,) = [each for each in events if each["event"] == "router"]
        assert len(router["weights"]) == index + 1
        assert all(sum(row) == pytest.approx(1) for row in router["weights"])
    assert reasons == [
        (True, "all 1 detectors fired"),
        (False, "budget of 2 adapters a block is spent"),
    ]
    assert strategy.pop_events(0) == []


@pytest.mark.parametrize("official", [True, False])
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
            outputs.append(strategy.model.eval()(images))
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


def test_too_few_images_and_too_small_budgets_leave_the_model_as_it_was(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted")
    before = snapshot(strategy.model)
    with pytest.raises(InputError, match="at least 4 training images .*'scripted', got 2"):
        strategy.train(make_stream([[0, 1]], per_class=1).train_stream[0])
    assert not changed(before, strategy.model)
    assert set(before) == set(strategy.model.state_dict())
    with pytest.raises(InputError, match="`budget.parameters` must hold one adapter, 2129 param"):
        build(tiny_vit, detector="scripted", budget={"parameters": 100})


@pytest.mark.parametrize("official", [True, False])
def test_a_checkpoint_brings_back_adapters_statistics_and_decisions(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], official: bool
) -> None:
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    options = {"official": official, "threshold": 0.01, "signed": False}
    straight = build(tiny_vit, **options)
    straight.train(stream[:2])
    state = {name: value.clone() for name, value in straight.learned_state().items()}
    assert sum(adapters_by_block(straight).values()) > 3
    straight.pop_events(1)
    resumed = build(tiny_vit, **options)
    resumed.restore(state, stream[:2])
    assert adapters_by_block(resumed) == adapters_by_block(straight)
    for strategy in (straight, resumed):
        strategy.train(stream[2])
    assert resumed.pop_events(2) == straight.pop_events(2)
    for name, value in straight.learned_state().items():
        assert torch.equal(value, resumed.learned_state()[name]), name


def test_nan_features_stop_the_scan_before_anything_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.adapters.at("mlp", 0).up_bias.fill_(torch.nan)
    with pytest.raises(InputError, match="features must be finite"):
        strategy.train(stream[1])
    assert adapters_by_block(strategy) == {3: 1, 4: 1, 5: 1}
