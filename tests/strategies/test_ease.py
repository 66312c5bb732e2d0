"""EASE against the fidelity checklist of the brief and plain loops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.records.event_kinds import Cache, Evaluation
from cl_adapters.records.events import read_events
from cl_adapters.records.tables import read_predictions
from cl_adapters.schedule import cosine
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.ease import EASE, EASEConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.killable import stripes

TWO = [[2, 0], [1, 3]]
NAMES = ("down", "down_bias", "up", "up_bias")


class Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps what each experience starts with, and its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[dict[str, Tensor]] = []
        self.batches: list[tuple[Tensor, Tensor]] = []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        state = strategy.model.state_dict().items()
        self.starts.append({name: value.clone() for name, value in state})
        self.batches.clear()

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> EASE:
    fast = {"batch_size": 8, "epochs": 2, "size": 4, "lr": 0.5, "peft_scale": 1.0}
    return EASE(
        backbone=vit,
        config=EASEConfig().override({**fast, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def images_of(experience: Any) -> tuple[Tensor, Tensor]:
    rows = [experience.dataset[index] for index in range(len(experience.dataset))]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


def plain_modules(vit: AdaptedViT, start: dict[str, Tensor]) -> list[Bottleneck]:
    blocks = []
    for block in range(vit.num_blocks):
        module = Bottleneck(
            vit.embed_dim, 4, activation="relu", scale=1.0, generator=torch.Generator()
        )
        for name in NAMES:
            getattr(module, name).data.copy_(start[f"current_adapters.{name}"][block])
        blocks.append(module)
    return blocks


def test_training_equals_a_plain_loop_from_a_fresh_set_and_head(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch, dropout=0.0)
    train = make_stream(TWO, per_class=6).train_stream
    strategy.train(train[0])
    first = [value.clone() for value in strategy.model.frozen_adapters.at(0)]
    strategy.train(train[1])
    start, classes = watch.starts[1], [1, 3]
    assert not start["current_adapters.up"].any()
    assert not torch.equal(start["current_adapters.down"], watch.starts[0]["current_adapters.down"])
    assert start["head.layers.0.weight"].shape[0] == len(classes)
    assert float(start["head.scale"]) == 1
    assert start["head.layers.0.weight"].abs().max() <= tiny_vit.embed_dim**-0.5
    blocks = plain_modules(tiny_vit, start)
    weight = start["head.layers.0.weight"].clone().requires_grad_()
    scale = start["head.scale"].clone().requires_grad_()
    parameters = [*(value for module in blocks for value in module.parameters()), weight, scale]
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=5e-4)
    adapters = AdapterSet({("mlp", block): module for block, module in enumerate(blocks)})
    assert len(watch.batches) == 4
    for step, (images, targets) in enumerate(watch.batches):
        optimizer.param_groups[0]["lr"] = 0.5 * cosine(step // 2, 2)
        rows = functional.normalize(tiny_vit(images, adapters), dim=1)
        logits = scale * rows @ functional.normalize(weight, dim=1).T
        own = torch.tensor([classes.index(int(label)) for label in targets])
        torch.autograd.backward(functional.cross_entropy(logits, own))
        optimizer.step()
        optimizer.zero_grad()
    for name, value in zip(NAMES, strategy.model.frozen_adapters.at(1), strict=True):
        expected = torch.stack([getattr(module, name).detach() for module in blocks])
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5)
    for before, after in zip(first, strategy.model.frozen_adapters.at(0), strict=True):
        assert torch.equal(before, after)  # old sets stay as they are


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_answers_equal_a_loop_over_sets_classes_and_images(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], beta: float
) -> None:
    strategy = build(tiny_vit, alpha=0.4, beta=beta)
    benchmark = make_stream(TWO, per_class=5)
    strategy.train(benchmark.train_stream)
    model = strategy.model.eval()
    shown = [images_of(each) for each in benchmark.train_stream]
    tested = torch.cat([images_of(each)[0] for each in benchmark.test_stream])
    sets = [model.frozen_adapters.choose(index) for index in range(2 + (beta > 0))]
    with torch.no_grad():
        plain = tiny_vit(tested)
        asked = [tiny_vit(tested, each) for each in sets]
        if beta:
            torch.testing.assert_close(asked[0], plain)
        spaces = [0, 1] if not beta else [1, 2]
        means: dict[tuple[int, int], Tensor] = {}
        for experience, (images, labels) in enumerate(shown):
            for label in TWO[experience]:
                for space in [*([0] if beta else []), *spaces[: experience + 1]]:
                    found = tiny_vit(images[labels == label], sets[space])
                    means[label, space] = found.mean(dim=0)
        for label in TWO[0]:
            at_home = [
                functional.cosine_similarity(means[label, spaces[0]], means[k, spaces[0]], dim=0)
                for k in TWO[1]
            ]
            shares = torch.stack(at_home).softmax(dim=0)
            mapped = [s * means[k, spaces[1]] for s, k in zip(shares, TWO[1], strict=True)]
            means[label, spaces[1]] = torch.stack(mapped).sum(dim=0)
        before = tiny_vit.num_passes
        found = model(tested) / 10
        assert tiny_vit.num_passes - before == len(sets) * len(tested)
    for label in range(4):
        own = spaces[int(label in TWO[1])]
        expected = torch.zeros(len(tested))
        for space in range(len(sets)):
            share = 1 if space == own else beta if beta and space == 0 else 0.4
            expected += share * functional.cosine_similarity(
                asked[space], means[label, space][None], dim=1
            )
        torch.testing.assert_close(found[:, label], expected, rtol=1e-3, atol=1e-4)


def test_passes_over_the_training_images_are_one_a_set(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, epochs=1)
    for experience, each in enumerate(make_stream(TWO, per_class=4).train_stream):
        before = tiny_vit.num_passes
        strategy.train(each)
        assert tiny_vit.num_passes - before == (1 + experience + 1) * 8  # trained once


def test_a_pair_of_image_and_set_is_computed_once_in_a_stream(tmp_path: Path) -> None:
    source = stripes(train=6, test=5)
    tiny = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
    values = {"strategy": "ease", "options": {"epochs": 1, "size": 4, "lr": 0.5}, **tiny}
    folders = []
    for name, cache in (("with", FeatureCache(tmp_path / "cache")), ("without", None)):
        prepared = prepare(RunConfig.parse(values), source=source, cache=cache)
        folders.append(runner.run(prepared, tmp_path / name))
    one, two = (read_predictions(folder) for folder in folders)
    assert one.equals(two)
    events = read_events(folders[0])
    experiences = int(one["experience"].max()) + 1
    for number in range(experiences):
        asked = 2 * 5 * (number + 1)  # images of all classes so far
        (kept,) = [e for e in events if isinstance(e, Cache) and e.experience == number]
        # Each old image under the new set, each new one under all.
        old = 2 * 5 * number
        assert kept.computed == old + (asked - old) * (number + 1)
        assert kept.read + kept.computed == asked * (number + 1)
        (cost,) = [e for e in events if isinstance(e, Evaluation) and e.experience == number]
        assert cost.passes == number + 1  # an image, whoever computed them


def test_the_trained_head_leaves_no_trace(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    benchmark = make_stream(TWO, per_class=4)
    strategy.train(benchmark.train_stream)
    images = images_of(benchmark.test_stream[0])[0]
    with torch.no_grad():
        before = strategy.model.eval()(images)
        for value in [
            *strategy.model.head.parameters(),
            *strategy.model.current_adapters.tensors(),
        ]:
            value.fill_(torch.nan)
        assert torch.equal(strategy.model(images), before)


def test_an_experience_of_one_class_trains_nothing_and_is_answered(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream([[1], [0, 2]], per_class=4)
    strategy = build(tiny_vit)
    strategy.train(benchmark.train_stream[0])
    images = images_of(benchmark.test_stream[0])[0]
    with torch.no_grad():
        adapted = tiny_vit(images, strategy.model.frozen_adapters.choose(0))
        torch.testing.assert_close(adapted, tiny_vit(images))
    strategy.train(benchmark.train_stream[1])
    assert strategy.model.frozen_adapters.at(1)[2].any()  # the next one is trained
    with torch.no_grad():
        assert set(strategy.model.eval()(images).argmax(dim=1).tolist()) <= {0, 1, 2}


def test_fewer_images_than_classes_and_returning_classes_are_learned() -> None:
    stream = TinyStream(experiences=((2, 0), (1, 2), (3, 4)), per_class=1)
    trial = Trial(EASE)
    run = trial.train(trial.build(), stream)
    assert all(bool(torch.isfinite(each).all()) for each in run.outputs)
    assert run.strategy.model.prototypes.own_spaces().tolist() == [0, 1, 1, 2, 2]


@pytest.mark.slow  # the suite over the defaults is run each time
@pytest.mark.parametrize(
    "options", [{"peft": "prefix"}, {"beta": 1.0, "reweight": False}, {"mapped": False}]
)
def test_variants_are_sound(options: dict[str, object]) -> None:
    names = ["answers", "declares", "resumes", "resumes_inside", "small", "seeds"]
    assert check_strategy(EASE, options=options, checks=names) == []


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = EASEConfig.official()
    assert config == EASEConfig(peft_scale=0.1)
    assert config.chosen[1] == 64
    trained = config.epochs, config.lr, config.batch_size, config.weight_decay
    assert trained == (20, 0.025, 48, 5e-4)
    assert (config.dropout, config.alpha, config.beta, config.reweight) == (0.1, 0.1, 0, True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": -1}, "option `alpha`: .* 0, got -1"),
        ({"mapped": False, "reweight": False}, "`mapped` must be true .* got false"),
        ({"peft": "lora", "beta": 1}, "`beta` must stay at 0.0 with peft 'lora', .* got 1.0"),
        (
            {"peft": "lora", "dropout": 0.2},
            "`dropout` must stay at 0.1 with peft 'lora', .* got 0.2",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        EASEConfig().override(options)
