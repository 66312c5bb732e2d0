"""LAE against the fidelity checklist of the brief and plain-loop oracles."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.merging import PAPER_DECAY, auto_decay
from cl_adapters.records.event_kinds import Votes
from cl_adapters.strategies.lae import LAE, LAEConfig, ensemble
from cl_adapters.vit.adapted_vit import AdaptedViT


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> LAE:
    return LAE(
        backbone=vit,
        config=LAEConfig().override({"batch_size": 8, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def values(module: torch.nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.parameters()]


class Watcher(SupervisedPlugin):
    """Notes the online and offline parameters around every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, list[Tensor], list[Tensor], list[Tensor]]] = []

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.before = values(strategy.model.offline)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        epoch = strategy.clock.train_exp_epochs
        online, offline = values(strategy.model.online), values(strategy.model.offline)
        self.steps.append((epoch, self.before, online, offline))


def test_peft_modules_sit_in_the_first_five_blocks(tiny_vit: AdaptedViT) -> None:
    model = build(tiny_vit).model
    assert list(model.online) == [("attention", block) for block in range(5)]
    assert next(iter(build(tiny_vit, peft="lora").model.online)) == ("key_value", 0)
    assert list(build(tiny_vit, peft="prefix").model.online)[4] == ("prefix", 4)


@pytest.mark.parametrize("peft", ["adapter", "lora", "prefix"])
def test_the_offline_modules_start_as_the_online_ones_of_experience_0(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], peft: str
) -> None:
    strategy = build(tiny_vit, peft=peft, epochs=2, freeze_epochs=1)
    initial = values(strategy.model.offline)
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    strategy.train(stream[0])
    learned = values(strategy.model.online)
    assert all(map(torch.equal, initial, values(strategy.model.offline))), "no EMA in experience 0"
    assert not all(map(torch.equal, initial, learned)), (
        "the online PEFT module learns in experience 0"
    )

    class First(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **_: Any) -> None:
            self.offline = values(strategy.model.offline)

    first = First()
    strategy.plugins.append(first)
    strategy.train(stream[1])
    assert all(map(torch.equal, learned, first.offline))
    accumulated = values(strategy.model.offline)
    strategy.train(stream[2])
    assert all(map(torch.equal, accumulated, first.offline)), "later experiences go on with them"
    assert not all(map(torch.equal, learned, values(strategy.model.online))), "online continues"


def test_accumulation_happens_at_every_step_freeze_epochs_included(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watcher = Watcher()
    strategy = build(tiny_vit, watcher, epochs=3, freeze_epochs=2, ema_decay=0.75)
    stream = make_stream([[0, 1], [2, 3]]).train_stream
    strategy.train(stream[0])
    watcher.steps.clear()
    strategy.train(stream[1])
    assert len(watcher.steps) == 9
    for _, before, online, after in watcher.steps:
        for old, new, found in zip(before, online, after, strict=True):
            torch.testing.assert_close(found, 0.75 * old + 0.25 * new)


def test_freeze_epochs_train_the_new_head_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watcher = Watcher()
    strategy = build(tiny_vit, watcher, epochs=3, freeze_epochs=2)
    stream = make_stream([[0, 1], [2, 3]]).train_stream
    strategy.train(stream[0])
    assert {epoch for epoch, *_ in watcher.steps} == {0, 1, 2}
    moved = [
        not all(map(torch.equal, a[2], b[2]))
        for a, b in zip(watcher.steps, watcher.steps[1:], strict=False)
    ]
    assert all(moved), "experience 0 has no freeze epochs"
    watcher.steps.clear()
    start, head = values(strategy.model.online), values(strategy.model.heads.layers[0])
    strategy.train(stream[1])
    for epoch, _, online, _ in watcher.steps:
        assert all(map(torch.equal, start, online)) == (epoch < 2)
    assert all(map(torch.equal, head, values(strategy.model.heads.layers[0]))), "old heads stay"


def test_auto_decay_moves_the_offline_modules_as_far_as_the_paper() -> None:
    assert LAEConfig().ema_decay == "auto"
    assert LAEConfig.official().ema_decay == PAPER_DECAY
    assert LAEConfig.official().drop_last
    assert auto_decay(45) < PAPER_DECAY


def test_auto_decay_knows_the_number_of_steps(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=2, freeze_epochs=0)
    strategy.train(make_stream([[0, 1]], per_class=9).train_stream[0])  # 18 images, batches of 8
    assert strategy.num_steps == 6
    assert strategy.decay == auto_decay(6)


def test_official_drops_the_last_batch(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=2, freeze_epochs=0, drop_last=True)
    strategy.train(make_stream([[0, 1]], per_class=9).train_stream[0])
    assert strategy.num_steps == 4
    strategy.train(make_stream([[2]], per_class=5).train_stream[0])
    assert strategy.num_steps == 2, "an experience below one batch keeps it"


def test_the_loss_is_over_the_current_classes_only(tiny_vit: AdaptedViT) -> None:
    strategy = build(tiny_vit)
    strategy.current_classes = (2, 4)
    logits = torch.randn(3, 5)
    targets = torch.tensor([4, 2, 4])
    expected = 0.0
    for row, target in zip(logits, targets, strict=True):
        total = math.exp(row[2]) + math.exp(row[4])
        expected -= math.log(math.exp(row[target]) / total) / 3
    assert strategy.batch_loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)


def test_ensemble_is_the_normalised_elementwise_maximum() -> None:
    online, offline = torch.randn(4, 6), torch.randn(4, 6)
    found = ensemble(online, offline).exp()
    for b in range(4):
        on = [math.exp(v) / sum(math.exp(w) for w in online[b]) for v in online[b]]
        off = [math.exp(v) / sum(math.exp(w) for w in offline[b]) for v in offline[b]]
        scores = [max(pair) for pair in zip(on, off, strict=True)]
        for c in range(6):
            assert found[b, c].item() == pytest.approx(scores[c] / sum(scores), abs=1e-5)


def test_inference_asks_both_experts_from_experience_1_on(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=2, freeze_epochs=0)
    benchmark = make_stream([[0, 1], [2, 3]])
    images = torch.randn(5, 3, 32, 32)
    model = strategy.model
    strategy.train(benchmark.train_stream[0])
    before = tiny_vit.num_passes
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval()(images).logits, model.heads(tiny_vit(images, model.online))
        )
    assert tiny_vit.num_passes - before == 10  # one pass of the model, one of this test
    strategy.train(benchmark.train_stream[1])
    with torch.no_grad():
        expected = ensemble(
            model.heads(tiny_vit(images, model.online)),
            model.heads(tiny_vit(images, model.offline)),
        )
        torch.testing.assert_close(model.eval()(images).logits, expected)
        torch.testing.assert_close(
            model.train()(images).logits, model.heads(tiny_vit(images, model.online))
        )


def test_adam_runs_at_a_constant_rate_over_what_is_trainable(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=1, freeze_epochs=0)
    strategy.train(make_stream([[0, 1]]).train_stream[0])
    assert type(strategy.optimizer) is torch.optim.Adam
    (group,) = strategy.optimizer.param_groups
    assert group["lr"] == 0.0028125  # 0.03 * 24 / 256
    assert group["weight_decay"] == 0
    held = {id(value) for value in group["params"]}
    trained = [*strategy.model.online.parameters(), *strategy.model.heads.parameters()]
    assert held == {id(value) for value in trained}


def test_one_step_equals_a_hand_written_one(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    """The whole first step of an experience, recomputed without Avalanche."""
    stream = make_stream([[0, 1], [2, 3]], per_class=4).train_stream
    strategy = build(tiny_vit, epochs=1, freeze_epochs=0, ema_decay=0.5)
    strategy.train(stream[0])
    twin = copy.deepcopy(strategy.model)
    strategy.train(stream[1])  # eight images: one batch, one step
    images, targets = (
        torch.stack(part)
        for part in zip(*[(x, torch.as_tensor(y)) for x, y, *_ in stream[1].dataset], strict=True)
    )
    twin.offline.load_state_dict(twin.online.state_dict())
    twin.heads.layers.append(copy.deepcopy(strategy.model.heads.layers[1]))
    seeded = torch.Generator().set_state(_head_generator(strategy).get_state())
    torch.nn.init.normal_(twin.heads.layers[1].weight, std=0.001, generator=seeded)
    torch.nn.init.zeros_(twin.heads.layers[1].bias)
    features = tiny_vit(images, twin.online)
    logits = torch.cat([layer(features) for layer in twin.heads.layers], dim=1)[:, 2:]
    optimizer = torch.optim.Adam(
        [*twin.online.parameters(), *twin.heads.layers[1].parameters()], lr=0.0028125
    )
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(logits, targets - 2).backward()
    optimizer.step()
    for found, expected in zip(values(strategy.model.online), values(twin.online), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for found, old, new in zip(
        values(strategy.model.offline), values(twin.offline), values(twin.online), strict=True
    ):
        torch.testing.assert_close(found, 0.5 * (old + new), rtol=1e-4, atol=1e-5)


def _head_generator(strategy: LAE) -> torch.Generator:
    return strategy.generator("weights")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": "1.5"}, r"must be 'auto' or lie in \[0, 1\], got 1.5"),
        ({"freeze_epochs": 5}, "`freeze_epochs` must be below `epochs`, 5, got 5"),
        ({"peft": "lorra"}, "option `peft`: .*unknown peft 'lorra'; did you mean 'lora'"),
        ({"epochs": "many"}, "option `epochs`: .*valid integer.*, got 'many'"),
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"lr": -1}, "option `lr`: .*greater than 0, got -1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LAEConfig().override(options)


def test_votes_are_counted_where_the_experts_differ(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    """Against both experts asked one image at a time; no further pass of the backbone."""
    stream = make_stream([[0, 1], [2, 3]])
    strategy = build(tiny_vit, epochs=2, freeze_epochs=1)
    strategy.train(stream.train_stream[0])
    strategy.eval(stream.test_stream[:1])
    assert strategy.pop_events(0) == []  # one expert alone
    strategy.train(stream.train_stream[1])
    strategy.pop_events(1)
    # After so few steps the experts still agree: the offline one is moved away.
    for value in strategy.model.offline.parameters():
        value.data += 0.5 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    before = strategy.backbone.num_passes
    strategy.eval(stream.test_stream)
    num_images = sum(len(each.dataset) for each in stream.test_stream)
    assert strategy.backbone.num_passes - before == 2 * num_images
    (event,) = strategy.pop_events(1)
    assert isinstance(event, Votes)
    assert event.experiences == [0, 1]
    model = strategy.model.eval()
    for i, each in enumerate(stream.test_stream):
        counts = dict.fromkeys(
            ("images", "differ", "online_right", "offline_right", "vote_right"), 0
        )
        for image, label, *_ in each.dataset:
            with torch.no_grad():
                online, offline = (
                    int(model.heads(model.backbone(image[None], pefts)).argmax())
                    for pefts in (model.online, model.offline)
                )
                vote = int(model(image[None]).logits.argmax())
            differs = online != offline
            counts["images"] += 1
            counts["differ"] += differs
            counts["online_right"] += differs and online == int(label)
            counts["offline_right"] += differs and offline == int(label)
            counts["vote_right"] += differs and vote == int(label)
        assert {name: getattr(event, name)[i] for name in counts} == counts
    assert sum(event.differ) > 0
