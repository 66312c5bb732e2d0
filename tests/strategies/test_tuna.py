"""TUNA against the fidelity checklist of the brief (12.7) and plain loops."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.schedule import cosine
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.tuna import TUNA, TUNAConfig
from cl_adapters.vit.checks import tiny_backbone
from tests.strategies.watched import NAMES, Watch, in_slots, plain_set, stacked

THREE = ((2, 0), (1, 3), (4, 5))
ADAPTERS = [f"current_adapters.{name}" for name in NAMES]


def trained(*, cache: FeatureCache | None = None, **options: Any) -> tuple[Any, Watch, TUNA]:
    fast = {"size": 4, "epochs": 2, "lr": 0.05, "alignment_epochs": 1}
    trial = Trial(TUNA, {**fast, **options})
    watch, strategy = Watch(), trial.build(cache=cache)
    strategy.plugins.append(watch)
    assert isinstance(strategy, TUNA)
    return trial.train(strategy, TinyStream(experiences=THREE)), watch, strategy


def test_the_set_that_is_surest_wins_12_7_1() -> None:
    entropies = []
    for cosines in ((0.9, 0.1), (0.6, 0.5)):
        shares = torch.tensor(cosines).mul(20).softmax(dim=0)
        entropies.append(torch.special.entr(shares).sum().item())
    assert entropies == pytest.approx([1.9e-6, 0.365], rel=0.05)
    strategy = Trial(TUNA, {"second": "last"}).build()
    model = strategy.model
    for _ in range(2):
        model.frozen_adapters.append(model.current_adapters.tensors())
    logits = 20 * torch.tensor([[[0.9, 0.1], [0.5, 0.6]], [[0.6, 0.5], [0.1, 0.9]]])
    found = model.score(logits).exp()
    first, second = logits.softmax(dim=2).unbind(dim=1)
    torch.testing.assert_close(found[0], (first[0] + second[0]) / 2)
    torch.testing.assert_close(found[1], second[1])


def test_training_equals_a_plain_loop_with_a_margin_and_sets_kept_apart() -> None:
    run, watch, _ = trained(dropout=0.0, margin=0.3, orthogonality=2.0)
    vit, start, classes = tiny_backbone(), watch.starts[2], THREE[2]
    for name in ADAPTERS:  # carried over, never reset
        assert torch.equal(start[name], run.states[1][name])
    blocks = plain_set(vit, [start[name] for name in ADAPTERS], 1.0)
    stored = run.states[1]["frozen_adapters.up"][:2]
    weight = start["heads.layers.2.weight"].clone().requires_grad_()
    values = [*(value for module in blocks for value in module.parameters()), weight]
    optimizer = torch.optim.SGD(values, lr=0.05, momentum=0.9, weight_decay=5e-4)
    per_epoch = len(watch.batches[2]) // 2
    for step, (images, targets) in enumerate(watch.batches[2]):
        optimizer.param_groups[0]["lr"] = 0.05 * cosine(step // per_epoch, 2)
        rows = functional.normalize(vit(images, in_slots(blocks)), dim=1)
        cosines = rows @ functional.normalize(weight, dim=1).T
        own = torch.tensor([classes.index(int(label)) for label in targets])
        cosines[torch.arange(len(own)), own] = cosines[torch.arange(len(own)), own] - 0.3
        loss = functional.cross_entropy(20 * cosines, own)
        for each in stored:
            for module, other in zip(blocks, each, strict=True):
                mine = functional.normalize(module.up, dim=1)
                apart = (mine @ functional.normalize(other, dim=1).T).mean().abs()
                loss = loss + 2.0 * math.exp(-3) * apart / len(blocks)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    for name, expected in zip(ADAPTERS, stacked(blocks), strict=True):
        torch.testing.assert_close(run.states[2][name], expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("second", ["universal", "last"])
def test_answers_equal_a_loop_over_images_and_sets_and_count_their_passes_12_7_5(
    second: str,
) -> None:
    run, _, strategy = trained(second=second)
    vit, state = tiny_backbone(), run.states[2]
    sets = [
        plain_set(vit, [state[f"frozen_adapters.{name}"][t] for name in NAMES], 1.0)
        for t in range(3)
    ]
    if second == "universal":
        merged = []
        for name in NAMES:
            values = state[f"frozen_adapters.{name}"][:3]
            sign = values.mean(dim=0).sign()
            kept = torch.where(values.sign() == sign, values.abs(), 0.0)
            merged.append(sign * kept.max(dim=0).values)
        sets.append(plain_set(vit, merged, 1.0))
    weights = torch.cat([state[f"heads.layers.{t}.weight"] for t in range(3)])
    classes = [label for each in THREE for label in each]
    images = torch.cat([each.tensors[0] for each in TinyStream(experiences=THREE).test_sets])
    with torch.no_grad():
        logits = [
            20
            * functional.normalize(vit(images, in_slots(each)), dim=1)
            @ functional.normalize(weights, dim=1).T
            for each in sets
        ]
    for row, found in enumerate(run.outputs[2].exp()):
        shares = [each[row].softmax(dim=0) for each in logits]
        entropies = [-(each * each.clamp_min(1e-30).log()).sum().item() for each in shares[:3]]
        surest = shares[entropies.index(min(entropies))]
        expected = torch.empty(6)
        expected[classes] = (surest + shares[-1]) / 2
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    model = strategy.model.eval()
    before = strategy.backbone.num_passes
    with torch.no_grad():
        model(images)
    assert strategy.backbone.num_passes - before == len(images) * (3 + (second == "universal"))


def test_in_experience_0_its_set_answers_alone() -> None:
    trial = Trial(TUNA, {"epochs": 1})
    strategy = trial.build()
    stream = TinyStream(experiences=THREE[:1])
    strategy.train(stream.benchmark.train_stream[0])
    # One pass to learn from an image, one for statistics.
    assert strategy.backbone.num_passes == 2 * len(stream.train_sets[0])
    before = strategy.backbone.num_passes
    found = trial.evaluate(strategy, stream)
    assert strategy.backbone.num_passes - before == len(stream.test_labels())
    images, model = stream.test_sets[0].tensors[0], strategy.model
    with torch.no_grad():
        logits = model.heads(model.backbone(images, model.frozen_adapters.choose(0)))
    torch.testing.assert_close(found, logits)


def test_official_asks_the_last_set_and_shared_options_are_the_authors_12_7_5() -> None:
    config = TUNAConfig.official()
    assert config.second == "last"
    assert not config.detach_stored
    assert not config.head_freeze
    assert (config.epochs, config.lr, config.batch_size, config.weight_decay) == (
        15,
        0.01,
        16,
        5e-4,
    )
    assert (config.chosen[1], config.peft_scale, config.dropout) == (16, 0.1, 0.1)
    assert (config.head_scale, config.margin, config.orthogonality) == (20, 0, 0)
    assert (config.statistics, config.variance_floor) == ("full", 1e-4)
    assert (config.alignment_epochs, config.alignment_lr, config.alignment_samples) == (
        30,
        0.005,
        None,
    )
    assert (config.mean_scaling, config.logit_temperature) == ("none", None)


def test_the_rate_of_the_alignment_swings_12_7_3() -> None:
    config = TUNAConfig.official()
    assert config.alignment_period is not None
    rates = [cosine(epoch, config.alignment_period) for epoch in range(config.alignment_epochs)]
    assert [rates[epoch] for epoch in (0, 5, 10, 15, 20)] == pytest.approx([1, 0, 1, 0, 1])


def test_stored_sets_stay_as_they_are_12_7_6() -> None:
    run, *_ = trained(orthogonality=2.0)
    for name in NAMES:
        key = f"frozen_adapters.{name}"
        first, second, third = (state[key] for state in run.states)
        assert torch.equal(second[:1], first)
        assert torch.equal(third[:2], second[:2])


def test_the_official_code_moves_stored_up_projections_and_nothing_else_of_them() -> None:
    run, _, strategy = trained(orthogonality=2.0, detach_stored=False, second="last")
    for name in NAMES:
        key = f"frozen_adapters.{name}"
        assert torch.equal(run.states[1][key][:1], run.states[0][key]) == (name != "up")
        assert torch.equal(run.states[2][key][:2], run.states[1][key]) == (name != "up")
    assert strategy.model.moved.numel() == 0
    # Without the term they get no gradient, and so no decay either.
    run, *_ = trained(detach_stored=False, second="last")
    assert torch.equal(run.states[2]["frozen_adapters.up"][:2], run.states[1]["frozen_adapters.up"])


def test_a_cache_never_answers_with_a_universal_set_of_before(tmp_path: Path) -> None:
    runs = [trained(cache=cache)[0] for cache in (None, FeatureCache(tmp_path))]
    for one, two in zip(runs[0].outputs, runs[1].outputs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # the suite over the defaults is run each time
@pytest.mark.parametrize(
    "options",
    [
        {"detach_stored": False, "orthogonality": 0.5, "second": "last", "head_freeze": False},
        {"peft": "lora", "mean_scaling": "tuna"},
    ],
)
def test_variants_are_sound(options: dict[str, object]) -> None:
    names = ["answers", "declares", "resumes", "resumes_inside", "small"]
    assert check_strategy(TUNA, options=options, checks=names) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"second": "first"}, "option `second`: .*'universal' or 'last'.*, got 'first'"),
        ({"peft": "lora", "orthogonality": 1}, "`orthogonality` must stay at 0.0 with peft 'lora'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TUNAConfig().override(options)


def test_scores_sum_to_one() -> None:
    run, *_ = trained()
    torch.testing.assert_close(run.outputs[2].exp().sum(dim=1), torch.ones(len(run.outputs[2])))
