"""SSIAT against the fidelity checklist of the brief (11.7) and plain loops."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.drift import kernel_shift
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.ssiat import SSIAT, SSIATConfig
from cl_adapters.vit.checks import tiny_backbone
from tests.strategies.watched import NAMES, Watch, images_of, in_slots, plain_set, stacked

TWO = ((2, 0), (1, 3))
ADAPTERS = [f"current_adapters.{name}" for name in NAMES]


def trained(*, stream: TinyStream | None = None, **options: Any) -> tuple[Any, Watch, Any]:
    fast = {"size": 4, "epochs": 2, "lr": 0.05, "alignment_epochs": 1}
    trial = Trial(SSIAT, {**fast, **options})
    watch, strategy = Watch(), trial.build()
    strategy.plugins.append(watch)
    return trial.train(strategy, stream or TinyStream(experiences=TWO)), watch, strategy


def test_training_equals_a_plain_loop_from_where_the_set_was_11_7_5() -> None:
    run, watch, _ = trained(dropout=0.0, later_epochs=3, margin=0.3)
    vit, start = tiny_backbone(), watch.starts[1]
    for name in ADAPTERS:  # the set after one experience is the start of the next
        assert torch.equal(start[name], run.states[0][name])
    blocks = plain_set(vit, [start[name] for name in ADAPTERS], 1.0)
    weight = start["heads.layers.1.weight"].clone().requires_grad_()
    values = [*(value for module in blocks for value in module.parameters()), weight]
    optimizer = torch.optim.SGD(values, lr=0.05, momentum=0.9, weight_decay=5e-4)
    per_epoch = len(watch.batches[1]) // 3
    for step, (images, targets) in enumerate(watch.batches[1]):
        rate = 0.05 * (1 + math.cos(math.pi * (step // per_epoch) / 3)) / 2
        optimizer.param_groups[0]["lr"] = rate
        rows = functional.normalize(vit(images, in_slots(blocks)), dim=1)
        cosines = rows @ functional.normalize(weight, dim=1).T
        own = torch.tensor([TWO[1].index(int(label)) for label in targets])
        logits = 20 * (cosines - 0.3 * functional.one_hot(own, 2))
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits, own))
        optimizer.step()
    for name, expected in zip(ADAPTERS, stacked(blocks), strict=True):
        torch.testing.assert_close(run.states[1][name], expected, rtol=1e-3, atol=1e-4)
    assert len(watch.rates[0]) == 2


def test_old_means_drift_as_the_images_at_hand_do_and_covariances_stay() -> None:
    stream = TinyStream(experiences=TWO)
    run, _, strategy = trained(stream=stream, sigma=2.0)
    vit, images = tiny_backbone(), images_of(stream, 1)[0]
    before, after = run.states
    with torch.no_grad():
        seen = [
            vit(images, in_slots(plain_set(vit, [state[name] for name in ADAPTERS], 1.0)))
            for state in (before, after)
        ]
    old = before["classes.means"]
    expected = old + kernel_shift(seen[0], seen[1], old, 2.0)
    assert not torch.allclose(expected, old, atol=1e-3)
    torch.testing.assert_close(after["classes.means"][:2], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(after["classes.spreads"][:2], before["classes.spreads"])
    rows = seen[1][images_of(stream, 1)[1] == 1]
    torch.testing.assert_close(after["classes.means"][2], rows.mean(dim=0), rtol=1e-4, atol=1e-4)
    assert strategy.before is None


def test_without_drift_old_means_stay() -> None:
    run, *_ = trained(drift=False)
    assert torch.equal(run.states[1]["classes.means"][:2], run.states[0]["classes.means"])


@pytest.mark.parametrize("pairing", ["image", "official"])
def test_the_official_code_pairs_an_image_with_any_other(pairing: str) -> None:
    stream = TinyStream(experiences=TWO)
    strategy = Trial(SSIAT, {"epochs": 1, "pairing": pairing, "alignment": False}).build()
    strategy.train(stream.benchmark.train_stream)
    seen: list[Tensor] = []

    def looking(images: Tensor) -> Tensor:
        seen.append(images.flatten(1))
        return torch.zeros(len(images), strategy.backbone.embed_dim)

    strategy.current_features = looking
    strategy.train(stream.benchmark.train_stream[1])
    shown = images_of(stream, 1)[0].flatten(1)
    # Before and after training; the last one is for statistics, and serves both with pairs of one.
    passes = torch.cat(seen).split(len(shown))
    assert len(passes) == (2 if pairing == "image" else 3)
    for rows in passes:
        torch.testing.assert_close(rows.sort(dim=0).values, shown.sort(dim=0).values)
    in_order = [torch.equal(rows, shown) for rows in passes]
    if pairing == "image":
        assert in_order == [True, True]
    else:
        assert in_order == [False, True, False]
        assert not torch.equal(passes[0], passes[2])


def test_alignment_changes_all_heads_and_no_adapter_11_7_4() -> None:
    (run, *_), (plain, *_) = trained(), trained(alignment=False)
    for name in ADAPTERS:
        assert torch.equal(run.states[1][name], plain.states[1][name])
    for layer in range(2):
        name = f"heads.layers.{layer}.weight"
        assert not torch.equal(run.states[1][name], plain.states[1][name])
    # Not trained beyond its experience, but for the alignment, which stays.
    assert torch.equal(
        plain.states[1]["heads.layers.0.weight"], plain.states[0]["heads.layers.0.weight"]
    )
    third = TinyStream(experiences=(*TWO, (4, 5)))
    run, watch, _ = trained(stream=third)
    name = "heads.layers.0.weight"
    assert torch.equal(watch.starts[2][name], run.states[1][name])


@pytest.mark.parametrize(("pairing", "extra"), [("image", 2), ("official", 3)])
def test_passes_over_an_experience(pairing: str, extra: int) -> None:
    stream = TinyStream(experiences=TWO)
    trial = Trial(SSIAT, {"epochs": 1, "size": 4, "alignment": False, "pairing": pairing})
    strategy, images = trial.build(), len(stream.train_sets[1])
    for number, experience in enumerate(stream.benchmark.train_stream):
        before = strategy.backbone.num_passes
        strategy.train(experience)
        passes = strategy.backbone.num_passes - before
        assert passes == images * (1 + (extra if number else 1))
    before = strategy.backbone.num_passes
    trial.evaluate(strategy, stream)
    assert strategy.backbone.num_passes - before == len(stream.test_labels())


@pytest.mark.slow  # the suite over the defaults is run each time
@pytest.mark.parametrize(
    "options", [{"pairing": "official", "head_freeze": False}, {"peft": "lora"}]
)
def test_variants_are_sound(options: dict[str, object]) -> None:
    names = ["answers", "declares", "resumes_inside", "small"]
    assert check_strategy(SSIAT, options=options, checks=names) == []


def test_official_is_what_the_authors_ship() -> None:
    config = SSIATConfig.official()
    trained_with = config.epochs, config.later_epochs, config.lr, config.batch_size
    assert trained_with == (20, 10, 0.01, 48)
    assert (config.weight_decay, config.peft_scale, config.dropout) == (5e-4, 0.1, 0.1)
    assert (config.chosen[1], config.head_scale, config.sigma) == (64, 20, 4)
    assert (config.pairing, config.statistics, config.variance_floor) == ("official", "full", 1e-3)
    assert (config.head_freeze, config.margin) == (False, 0)
    aligned = config.alignment_epochs, config.alignment_lr, config.alignment_samples
    assert aligned == (5, 0.01, 256)
    assert (config.mean_scaling, config.logit_temperature, config.head_restore) == (
        "slca",
        None,
        False,
    )


def test_a_kernel_without_width_is_refused() -> None:
    with pytest.raises(InputError, match="option `sigma`: .* greater than 0, got 0"):
        SSIATConfig().override({"sigma": 0})
