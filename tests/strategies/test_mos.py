"""MOS in training against the fidelity checklist of the brief and plain-loop oracles."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.heads.gaussians import FLOOR
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.merging import merge_
from cl_adapters.records.event_kinds import Drift
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.strategies.mos import orthogonality_loss
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import NAMES, TWO, build, images_of


class Batches(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.seen.append((strategy.mb_x.clone(), strategy.mb_y.clone()))


class Plain:
    """Adapter sets as plain modules, merged block after block as the authors' code does."""

    def __init__(self, vit: AdaptedViT, tensors: tuple[Tensor, ...]) -> None:
        self.vit = vit
        self.blocks: list[Bottleneck] = []
        for block in range(vit.num_blocks):
            module = Bottleneck(
                vit.embed_dim, 16, activation="relu", scale=0.1, generator=torch.Generator()
            )
            for name, value in zip(NAMES, tensors, strict=True):
                getattr(module, name).data.copy_(value[block])
            self.blocks.append(module)

    def tensors(self) -> list[Tensor]:
        return [
            torch.stack([getattr(module, name).detach() for module in self.blocks])
            for name in NAMES
        ]

    def parameters(self) -> list[torch.nn.Parameter]:
        return [value for module in self.blocks for value in module.parameters()]

    def merge(self, average: list[Tensor] | None) -> None:
        for block, module in enumerate(self.blocks):
            for name, value in zip(NAMES, average or [], strict=bool(average)):
                parameter = getattr(module, name)  # new memory: what a pass saved stays as it was
                parameter.data = 0.9 * parameter.data + 0.1 * value[block]

    def features(self, images: Tensor, average: list[Tensor] | None) -> Tensor:
        tokens = self.vit.tokens(images)
        for block, module in enumerate(self.blocks):
            self.merge(average)  # the whole set, at every block
            tokens = self.vit.run(
                tokens, block, block + 1, adapters=AdapterSet({("mlp", block): module})
            )
        return self.vit.features(tokens)


def test_official_training_equals_a_plain_loop_with_thirteen_merges_a_step(  # noqa: PLR0915
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    batches = Batches()
    strategy = build(tiny_vit, batches, official=True, dropout=0, num_classes=4, lr=0.3)
    first, second = make_stream(TWO).train_stream
    strategy.train(first)
    plain = Plain(tiny_vit, strategy.model.current_adapters.tensors())
    average = [value[0].clone() for value in strategy.model.frozen_adapters.tensors()]
    weight = strategy.model.heads.layers[0].weight.detach().clone().requires_grad_()
    bias = strategy.model.heads.layers[0].bias.detach().clone().requires_grad_()
    old_means = strategy.model.classes.class_means()
    batches.seen.clear()
    strategy.config = strategy.config.override({"alignment": False})
    strategy.train(second)

    optimizer = torch.optim.SGD(
        [{"params": plain.parameters(), "lr": 0.3}, {"params": [weight, bias], "lr": 0.03}],
        momentum=0.9,
        weight_decay=5e-4,
    )
    rates = [0.3, 0.3 * (1 + math.cos(math.pi / 2)) / 2]
    assert len(batches.seen) == 6
    for number, (images, targets) in enumerate(batches.seen):
        optimizer.param_groups[0]["lr"] = rates[number // 3]
        optimizer.param_groups[1]["lr"] = rates[number // 3] / 10
        features = plain.features(images, average)
        logits = features @ weight.T + bias
        logits = torch.cat([torch.full_like(logits[:, :2], -torch.inf), logits[:, 2:]], dim=1)
        rows = torch.cat([old_means, features])
        apart = functional.cross_entropy(rows @ rows.T / 0.8, torch.arange(len(rows)))
        loss = functional.cross_entropy(logits, targets) + 0.1 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plain.merge(average)
    stored = [value[1] for value in strategy.model.frozen_adapters.tensors()]
    for found, expected in zip(stored, plain.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(strategy.model.heads.layers[0].weight, weight, rtol=1e-4, atol=1e-6)

    # Statistics: each batch goes on merging the set in training, not the stored one. A class has
    # batches of its own, three times as large as a step's.
    images, targets = images_of(second)
    size = 3 * strategy.config.batch_size
    for label in (2, 3):
        with torch.no_grad():
            parts = [plain.features(some, average) for some in images[targets == label].split(size)]
        rows = torch.cat(parts)
        component = int((strategy.model.classes.labels == label).nonzero())
        torch.testing.assert_close(
            strategy.model.classes.means[component], rows.mean(dim=0), rtol=1e-4, atol=1e-5
        )
        factor = strategy.model.classes.factors[component]
        spread = factor.T @ factor + strategy.model.classes.spreads[component].square().diag()
        expected = torch.cov(rows.T) + FLOOR * torch.eye(64)
        torch.testing.assert_close(spread, expected, rtol=1e-3, atol=1e-5)


def test_official_statistics_take_a_class_at_a_time_in_batches_three_times_as_large(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    experience = make_stream(TWO, per_class=8).train_stream[0]
    for merge, sizes in (("official", [3, 3, 2] * 2), ("per_step", [16])):
        strategy = build(tiny_vit, merge=merge, batch_size=1, epochs=1)
        strategy.train(experience)
        strategy.experience = experience
        batches = list(strategy._images_of_classes())
        assert [len(labels) for _, labels in batches] == sizes
        if merge == "official":
            found = torch.cat([labels for _, labels in batches]).tolist()
            assert found == sorted(found)
            assert {found.count(label) for label in set(found)} == {8}


def test_merges_in_closed_form_equal_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    value, average = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    expected = value.clone()
    for block, times in enumerate((0, 1, 13)):
        for _ in range(times):
            expected[block] = 0.9 * expected[block] + 0.1 * average[block]
    merge_([value], [average], 0.1, [0, 1, 13])
    torch.testing.assert_close(value, expected)
    for _ in range(3):
        expected = 0.9 * expected + 0.1 * average
    merge_([value], [average], 0.1, 3)
    torch.testing.assert_close(value, expected)


def test_the_modes_of_merging_differ_as_they_should(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    apart = {}
    for mode in ("official", "per_step", "none"):
        strategy = build(tiny_vit, merge=mode, merge_strength=0.1, epochs=4)
        strategy.train(make_stream(TWO, per_class=8).train_stream)
        apart[mode] = float(strategy.model.frozen_adapters.distances()[0, 1])
    assert apart["official"] < apart["per_step"] < apart["none"]


def test_the_first_step_without_merging_starts_where_the_experience_before_ended(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, merge="none", epochs=1, lr=1e-12)
    strategy.train(make_stream(TWO).train_stream)
    first, second = (
        torch.cat([value[index].flatten() for value in strategy.model.frozen_adapters.tensors()])
        for index in (0, 1)
    )
    torch.testing.assert_close(first, second)


def test_the_orthogonality_term_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    means = torch.tensor([[1.0, 1.0]])
    scores = [[2, 1, 2], [1, 1, 0], [2, 0, 4]]
    expected = 0.0
    for row, values in enumerate(scores):
        powers = [math.exp(value / 0.8) for value in values]
        expected -= math.log(powers[row] / sum(powers)) / 3
    assert orthogonality_loss(features, means).item() == pytest.approx(expected, rel=1e-5)


def test_the_orthogonality_term_has_its_own_switch(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    train = make_stream(TWO).train_stream
    with_term, without = build(tiny_vit, orthogonality=0.5), build(tiny_vit, orthogonality=0)
    for strategy in (with_term, without):
        strategy.train(train[0])
    logits, targets = torch.randn(3, 2, requires_grad=True), torch.tensor([0, 1, 1])
    plain = without.batch_loss(logits, targets)
    torch.testing.assert_close(plain, functional.cross_entropy(logits, targets))
    features = torch.randn(3, 64)
    with_term.output = Output(logits, {"features": features})
    extra = orthogonality_loss(features, with_term.old_means)
    torch.testing.assert_close(with_term.batch_loss(logits, targets), plain + 0.5 * extra)


def test_the_head_learns_a_tenth_as_fast_and_both_rates_fall_along_a_cosine(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    class Rates(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.rates: list[list[float]] = []

        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            self.rates.append([group["lr"] for group in strategy.optimizer.param_groups])

    rates = Rates()
    strategy = build(tiny_vit, rates, epochs=4, lr=0.2)
    strategy.train(make_stream(TWO).train_stream[0])
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [pair[0] for pair in rates.rates] == pytest.approx(expected)
    assert [pair[1] for pair in rates.rates] == pytest.approx([each / 10 for each in expected])


def test_alignment_begins_with_experience_1_and_changes_the_head_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    train = make_stream(TWO).train_stream
    aligned, plain = build(tiny_vit), build(tiny_vit, alignment=False)
    for number, experience in enumerate(train):
        for strategy in (aligned, plain):
            strategy.train(experience)
        states = [strategy.learned_state() for strategy in (aligned, plain)]
        differ = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
        heads = {key for key in states[0] if key.startswith("heads.")}
        assert differ == (heads if number else set())
    drawn = aligned.timings["alignment"][1]
    assert drawn == 2 * 4 * 5 * 8  # epochs, classes, five batches of eight a class


@pytest.mark.parametrize("statistics", ["full", "low_rank", "diagonal", "centroids"])
def test_poor_experiences_neither_crash_nor_give_nan(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], statistics: str
) -> None:
    # One class alone; classes of one image; and one that returns.
    strategy = build(tiny_vit, statistics=statistics)
    strategy.train(make_stream([[0]]).train_stream)
    strategy.pop_events(0)
    benchmark = make_stream([[1, 2], [0, 3]], per_class=1)
    strategy.train(benchmark.train_stream[0])
    noted = [event for event in strategy.pop_events(1) if event.event == "statistics"]
    assert [event.values["class"] for event in noted] == [1, 2]
    strategy.train(benchmark.train_stream[1])
    model = strategy.model.eval()
    with torch.no_grad():
        logits = model(images_of(benchmark.test_stream[1])[0]).logits
    assert bool(torch.isfinite(logits).all())
    assert model.class_to_task.experience_of.tolist() == [2, 1, 1, 2]


def test_two_classes_with_the_same_images_share_their_answers(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Labels 0 and 12 look the same: 0 % 3 == 12 % 3 and 0 % 4 == 12 % 4.
    strategy = build(tiny_vit, epochs=4)
    benchmark = make_stream([[0, 12], [1, 2]])
    strategy.train(benchmark.train_stream)
    model = strategy.model.eval()
    with torch.no_grad():
        scores = model(images_of(benchmark.test_stream[0])[0]).logits.exp()
    assert set(scores.argmax(dim=1).tolist()) <= {0, 12}
    assert bool(torch.isfinite(scores).all())


def test_the_drift_between_stored_sets_is_noted(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    for number, experience in enumerate(make_stream(TWO).train_stream):
        strategy.train(experience)
        (event,) = (each for each in strategy.pop_events(number) if isinstance(each, Drift))
        assert len(event.distances) == number + 1
    assert event.distances[0][0] == 0
    assert event.distances[0][1] > 0


def test_statistics_are_those_of_the_set_without_what_training_drops(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, dropout=0.5, lr=0.1, epochs=2)
    experience = make_stream(TWO).train_stream[0]
    strategy.train(experience)
    images, targets = images_of(experience)
    with torch.no_grad():
        features = tiny_vit(images, strategy.model.frozen_adapters.choose(0))
    expected = torch.stack([features[targets == label].mean(dim=0) for label in TWO[0]])
    torch.testing.assert_close(strategy.model.classes.class_means(), expected, rtol=1e-4, atol=1e-5)
    assert strategy.model.current_adapters.training  # and trains on as before
