"""SLCA against the fidelity checklist of the brief (9.7) and plain loops."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.heads.alignment import aged_means, normalized_logits
from cl_adapters.strategies.checks.trial import TinyStream, Trial, copied
from cl_adapters.strategies.cofima import CoFiMA
from cl_adapters.strategies.slca import SLCA, SLCAConfig
from cl_adapters.vit.checks import tiny_backbone
from tests.strategies.watched import Watch

THREE = ((2, 0), (1, 3), (4, 5))


def trained(*, stream: TinyStream | None = None, **options: Any) -> tuple[Any, Watch, SLCA]:
    fast = {"epochs": 2, "lr": 0.05, "alignment_epochs": 1, "alignment_samples": 16}
    trial = Trial(SLCA, {**fast, **options})
    watch, strategy = Watch(), trial.build()
    assert isinstance(strategy, SLCA)
    strategy.plugins.append(watch)
    return trial.train(strategy, stream or TinyStream(experiences=THREE)), watch, strategy


def test_the_worked_numbers_9_7_1() -> None:
    logits, owners = torch.tensor([[3.0, 4.0, 0.0, 12.0, 5.0]]), torch.tensor([0, 0, 1, 1, 1])
    found = normalized_logits(logits, owners, 0.1)[0].tolist()
    assert found == pytest.approx([3.333, 4.444, 0, 13.333, 5.556], abs=1e-3)
    factors = aged_means(torch.arange(10)).tolist()
    assert factors == pytest.approx([0.91 + 0.01 * each for each in range(10)])
    config = SLCAConfig.official()
    assert (config.logit_temperature, config.mean_scaling) == (0.1, "slca")


def test_training_equals_a_plain_loop_over_all_weights_at_two_rates_9_7_5() -> None:
    run, watch, _ = trained(milestone=1, lr_ratio=0.01)
    assert watch.rates[1] == [
        pytest.approx([0.05, 0.0005]),
        pytest.approx([0.005, 0.00005]),  # a tenth from the milestone on, the ratio stays
    ]
    vit, start = tiny_backbone(), watch.starts[1]
    network = copy.deepcopy(vit)
    named = dict(network.named_parameters())
    for name, value in named.items():
        value.data.copy_(start[f"network.values.{name.replace('.', '-')}"])
        value.requires_grad_()
    weight, bias = (start[f"heads.layers.1.{part}"].clone() for part in ("weight", "bias"))
    head = [weight.requires_grad_(), bias.requires_grad_()]
    groups: list[dict[str, Any]] = [{"params": head}, {"params": list(named.values())}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=5e-4)
    per_epoch = len(watch.batches[1]) // 2
    for step, (images, targets) in enumerate(watch.batches[1]):
        for group, rate in zip(optimizer.param_groups, (0.05, 0.0005), strict=True):
            group["lr"] = rate * (1 if step < per_epoch else 0.1)
        logits = network(images) @ weight.T + bias
        own = torch.tensor([THREE[1].index(int(label)) for label in targets])
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits, own))
        optimizer.step()
    for name, value in named.items():
        found = run.states[1][f"network.values.{name.replace('.', '-')}"]
        torch.testing.assert_close(found, value.detach(), rtol=1e-4, atol=1e-6)
    rows = run.states[1]["unaligned.weight"]
    torch.testing.assert_close(rows[2:], weight.detach(), rtol=1e-4, atol=1e-6)


def test_the_head_is_put_back_after_each_evaluation_9_7_2() -> None:
    run, watch, _ = trained()
    before, after = run.states[1], watch.starts[2]
    for part in ("weight", "bias"):
        aligned = torch.cat([before[f"heads.layers.{t}.{part}"] for t in range(2)])
        put_back = torch.cat([after[f"heads.layers.{t}.{part}"] for t in range(2)])
        assert torch.equal(put_back, before[f"unaligned.{part}"])
        assert not torch.equal(put_back, aligned)
    assert after["unaligned.weight"].numel() == 0
    # An evaluation that is asked again gives the same answers: it does not put the head back.
    logits = Trial(SLCA).evaluate(run.strategy, TinyStream(experiences=THREE))
    assert torch.equal(logits, run.outputs[-1])


def test_a_network_that_may_not_learn_gives_the_features_of_the_backbone_9_7_3() -> None:
    _, _, strategy = trained(lr_ratio=0.0)
    images, vit = torch.randn(3, 3, 16, 16), tiny_backbone()
    with torch.no_grad():
        assert torch.equal(strategy.model.features(images), vit(images))
    _, _, strategy = trained(lr_ratio=0.1)
    assert not torch.equal(strategy.model.features(images), vit(images))


def test_old_heads_stay_as_they_are_while_others_learn_9_7_4() -> None:
    run, *_ = trained()
    first = run.states[0]["heads.layers.0.weight"]
    for number in (1, 2):  # what the alignment begins with
        assert torch.equal(run.states[number]["unaligned.weight"][:2], first)
    second = run.states[1]["unaligned.weight"][2:4]
    assert torch.equal(run.states[2]["unaligned.weight"][2:4], second)


def test_classes_of_one_image_are_sampled_9_7_6() -> None:
    run, *_ = trained(stream=TinyStream(experiences=THREE, per_class=1), statistics="full")
    rows, labels = run.strategy.model.classes.sample(50, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(rows).all())
    assert labels.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert all(bool(torch.isfinite(each).all()) for each in run.outputs)


def test_one_pass_an_image_and_one_more_for_statistics() -> None:
    stream = TinyStream(experiences=THREE[:2])
    trial = Trial(SLCA, {"epochs": 1, "alignment": False})
    strategy = trial.build()
    for experience, images in zip(stream.benchmark.train_stream, stream.train_sets, strict=True):
        before = strategy.backbone.num_passes
        strategy.train(experience)
        assert strategy.backbone.num_passes - before == 2 * len(images)
    before = strategy.backbone.num_passes
    trial.evaluate(strategy, stream)
    assert strategy.backbone.num_passes - before == len(stream.test_labels())


@pytest.mark.parametrize("kind", [SLCA, CoFiMA])
def test_a_checkpoint_holds_what_differs_and_goes_on_bit_for_bit(kind: type[SLCA]) -> None:
    trial = Trial(kind, {"epochs": 1, "alignment_epochs": 1, "alignment_samples": 16})
    stream, straight, resumed = TinyStream(experiences=THREE), trial.build(), trial.build()
    experiences = list(stream.benchmark.train_stream)
    straight.train(experiences[:2])
    state = copied(straight.checkpoint_state())
    assert not any(name.startswith("network.values.") for name in state)
    whole = sum(value.nbytes for value in straight.model.network.values.values())
    assert state["network.difference"].nbytes < whole
    resumed.restore(state, experiences[:2])
    for strategy in (straight, resumed):
        strategy.train(experiences[2])
    found = resumed.learned_state()
    for name, value in straight.learned_state().items():
        assert torch.equal(found[name], value), name
    answers = [trial.evaluate(strategy, stream) for strategy in (straight, resumed)]
    assert torch.equal(*answers)


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = SLCAConfig.official()
    trained_with = config.epochs, config.milestone, config.lr, config.lr_ratio, config.batch_size
    assert trained_with == (20, 18, 0.01, 0.01, 128)
    assert (config.weight_decay, config.statistics, config.head_restore) == (5e-4, "full", True)
    aligned = config.alignment_epochs, config.alignment_lr, config.alignment_samples
    assert aligned == (5, 0.01, 256)
