"""Avalanche's own strategies on our model: what holds for each, and what each is worth."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from torch import Tensor
from torch.utils.data import DataLoader

from cl_adapters.benchmarks.streams.experiences import experience_dataset, join_streams
from cl_adapters.errors import InputError
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.strategies import STRATEGIES, find_strategy
from cl_adapters.strategies.avalanche_methods import AvalancheMethod, avalanche_names
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier
from tests.marks import by_default

EXPERIENCES = [[3, 0], [1, 4], [2, 5, 6]]
RESUMING = ("AGEM", "Cumulative", "GEM", "LwF", "Naive", "Replay")
Streams = Callable[..., Any]


@pytest.fixture
def make_stream(make_stream: Streams) -> Streams:
    """The streams of all tests with task labels, which LwF asks for, as our own streams have."""

    def labelled(stream: Any) -> list[Any]:
        views = {"train": lambda image: image, "eval": lambda image: image}
        datasets = (each.dataset for each in stream)
        return [experience_dataset(each, list(each.targets), views, "train") for each in datasets]

    def build(*args: Any, **kwargs: Any) -> Any:
        plain = make_stream(*args, **kwargs)
        return join_streams(labelled(plain.train_stream), labelled(plain.test_stream))

    return build


def build(name: str, vit: AdaptedViT, seed: int = 0, **options: Any) -> AdapterStrategy:
    strategy = find_strategy(name if name in STRATEGIES else f"avalanche:{name}")
    config = strategy.config_class().override({"batch_size": 8, "epochs": 1, **options})
    evaluator = EvaluationPlugin(loggers=[BaseLogger()])
    return strategy(backbone=vit, config=config, seed=seed, evaluator=evaluator)


def learn(strategy: AdapterStrategy, stream: Any) -> dict[str, Tensor]:
    for experience in stream:
        strategy.train(experience, eval_streams=[])
    return {key: value.clone() for key, value in strategy.learned_state().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def states() -> tuple[Any, ...]:
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return random.getstate(), numpy, torch.random.get_rng_state().tolist()


# --- what holds for each ---------------------------------------------------------------------


NAMES = [name.removeprefix("avalanche:") for name in avalanche_names()]


@pytest.mark.parametrize("name", by_default(NAMES, ["Naive", "Replay", "EWC", "LwF", "GDumb"]))
def test_it_is_a_strategy_like_ours(name: str, tiny_vit: AdaptedViT, make_stream: Streams) -> None:
    """Frozen backbone, classes seen only, one seed one result whatever ran before."""
    backbone = {key: value.clone() for key, value in tiny_vit.state_dict().items()}
    benchmark = make_stream(EXPERIENCES, per_class=4)
    seed_all(11)
    strategy, before = build(name, tiny_vit, seed=3), states()
    seen: set[int] = set()
    for experience, classes in zip(benchmark.train_stream, EXPERIENCES, strict=True):
        strategy.train(experience, eval_streams=[])
        seen |= set(classes)
        with torch.no_grad():
            outputs = strategy.model.eval()(torch.randn(32, 3, 32, 32, generator=torch.Generator()))
        assert set(outputs.argmax(dim=1).tolist()) <= seen
        assert torch.isfinite(outputs).all()
    assert states() == before, "the global random states are given back"
    state = strategy.learned_state()
    assert {key.split(".")[0] for key in state} == {"adapters", "heads"}
    assert all(torch.equal(backbone[key], value) for key, value in tiny_vit.state_dict().items())
    assert not any(value.requires_grad for value in tiny_vit.parameters())
    seed_all(12)
    assert same(state, learn(build(name, tiny_vit, seed=3), benchmark.train_stream))


def test_those_that_are_asked_for_are_there() -> None:
    wanted = {"Naive", "Replay", "EWC", "LwF", "SynapticIntelligence", "AGEM", "Cumulative"}
    assert {f"avalanche:{name}" for name in wanted} <= set(avalanche_names())


@pytest.mark.parametrize("name", by_default(["Replay", "EWC", "LwF", "AGEM"], ["LwF"]))
def test_seeds_differ_and_bfloat16_works(
    name: str, tiny_vit: AdaptedViT, make_stream: Streams
) -> None:
    stream = make_stream([[0, 1], [2, 3]], per_class=4).train_stream
    strategy = find_strategy(f"avalanche:{name}")
    config = strategy.config_class().override({"batch_size": 4, "epochs": 1})
    logger = EvaluationPlugin(loggers=[BaseLogger()])
    half = strategy(backbone=tiny_vit, config=config, precision="bf16", evaluator=logger)
    state = learn(half, stream)
    assert {value.dtype for value in state.values()} == {torch.float32}
    whole = learn(build(name, tiny_vit, batch_size=4), stream)
    assert not same(state, whole)
    assert not same(whole, learn(build(name, tiny_vit, seed=1, batch_size=4), stream))


# --- against independent oracles -------------------------------------------------------------


def test_naive_is_a_plain_torch_loop(tiny_vit: AdaptedViT, make_stream: Streams) -> None:
    benchmark = make_stream(EXPERIENCES, per_class=5)
    strategy = build("Naive", tiny_vit, seed=5, epochs=2)
    state = learn(strategy, benchmark.train_stream)
    twin = build("Naive", tiny_vit, seed=5)  # of which only the sources of randomness are used
    config = twin.config
    heads = ExperienceHeads(tiny_vit.embed_dim)
    model = AdaptedClassifier(tiny_vit, config.build_adapters(tiny_vit, seed=5), heads)
    for experience, classes in zip(benchmark.train_stream, EXPERIENCES, strict=True):
        order = twin.generator("order")
        twin.classes_by_experience.append(tuple(sorted(classes)))
        heads.add_classes(sorted(classes), twin.generator("weights"))
        trained = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=config.lr, fused=True)  # which rounds otherwise
        loader = DataLoader(experience.dataset, batch_size=8, shuffle=True, generator=order)
        for images, labels, *_ in [batch for _ in range(2) for batch in loader]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    plain = {key: value for key, value in model.state_dict().items() if "backbone" not in key}
    assert plain.keys() == state.keys()
    assert all(torch.allclose(plain[key], state[key], atol=1e-6) for key in plain)


@pytest.mark.parametrize(
    ("name", "options", "yardstick"),
    [
        ("Naive", {}, "finetune"),
        ("Cumulative", {}, "joint"),
        ("Replay", {"mem_size": 0}, "finetune"),
        ("EWC", {"ewc_lambda": 0}, "finetune"),
        ("LwF", {"alpha": 0}, "finetune"),
        ("SynapticIntelligence", {"si_lambda": 0}, "finetune"),
        ("MAS", {"lambda_reg": 0}, "finetune"),
    ],
)
def test_with_nothing_to_add_it_is_our_yardstick(
    name: str,
    options: dict[str, Any],
    yardstick: str,
    tiny_vit: AdaptedViT,
    make_stream: Streams,
) -> None:
    stream = make_stream([[0, 1], [2, 1]], per_class=4).train_stream
    ours = learn(build(yardstick, tiny_vit), stream)
    theirs = learn(build(name, tiny_vit, **options), stream)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


def test_replay_with_room_for_all_shows_all_old_images_again(
    tiny_vit: AdaptedViT, make_stream: Streams
) -> None:
    class Labels(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **_: Any) -> None:
            self.seen: list[int] = []

        def before_forward(self, strategy: Any, **_: Any) -> None:
            self.seen += strategy.mb_y.tolist()

    benchmark = make_stream([[0, 1], [2, 3], [4, 5]], per_class=8)
    strategy, labels = build("Replay", tiny_vit, mem_size=1000, epochs=5), Labels()
    strategy.plugins.insert(0, labels)
    learn(strategy, benchmark.train_stream)
    assert set(labels.seen) == {0, 1, 2, 3, 4, 5}
    (plugin,) = (each for each in strategy.plugins if isinstance(each, ReplayPlugin))
    assert sorted(plugin.storage_policy.buffer.targets) == sorted(list(range(6)) * 8)
    naive = build("Naive", tiny_vit, epochs=5)
    learn(naive, benchmark.train_stream)
    images, targets = zip(*((x, y) for x, y, *_ in benchmark.test_stream[0].dataset), strict=True)
    right = [
        float((each.model.eval()(torch.stack(images)).argmax(1) == torch.tensor(targets)).float().mean())
        for each in (strategy, naive)
    ]  # fmt: skip
    assert right[0] > 0.5 > right[1]


def test_ewc_keeps_importances_of_what_is_learned_only(
    tiny_vit: AdaptedViT, make_stream: Streams
) -> None:
    stream = make_stream([[0, 1], [2, 3]], per_class=8).train_stream
    strategy = build("EWC", tiny_vit, ewc_lambda=1e6)
    strategy.train(stream[0], eval_streams=[])
    before = {key: value.clone() for key, value in strategy.learned_state().items()}
    (plugin,) = (each for each in strategy.plugins if isinstance(each, EWCPlugin))
    assert set(plugin.importances[0]) == set(before)
    # By hand: the mean over batches of the squared gradients, at the end of experience 0.
    squares = {key: torch.zeros_like(value) for key, value in before.items()}
    batches = list(DataLoader(stream[0].dataset, batch_size=8))
    model = strategy.model.eval()
    for images, labels, *_ in batches:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        for key, value in model.named_parameters():
            squares[key] += value.grad**2 / len(batches)
    for key, value in squares.items():
        assert torch.allclose(plugin.importances[0][key].data, value, rtol=1e-3, atol=1e-9)
    strategy.train(stream[1], eval_streams=[])
    free = build("EWC", tiny_vit, ewc_lambda=0.0)
    learn(free, stream)
    moved = [
        sum(float((each.learned_state()[key] - before[key]).abs().sum()) for key in before)
        for each in (strategy, free)
    ]
    assert moved[0] < moved[1] / 2


# --- resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESUMING)
def test_restoring_equals_the_straight_run(
    name: str, tiny_vit: AdaptedViT, make_stream: Streams
) -> None:
    if name not in NAMES:
        pytest.skip("GEM needs the package quadprog")
    stream = make_stream(EXPERIENCES, per_class=4).train_stream
    options = {"mem_size": 7} if name == "Replay" else {}
    options |= {"patterns_per_exp": 5} if name in {"AGEM", "GEM"} else {}
    straight = build(name, tiny_vit, **options)
    half = learn(straight, stream[:2])
    whole = learn(straight, stream[2:])
    fresh = build(name, tiny_vit, **options)
    seed_all(3)
    before = states()
    fresh.restore(half, list(stream[:2]))
    assert states() == before
    assert same(learn(fresh, stream[2:]), whole)


def test_what_cannot_be_restored_says_so(tiny_vit: AdaptedViT, make_stream: Streams) -> None:
    stream = make_stream([[0, 1], [2, 3]], per_class=2).train_stream
    for name in avalanche_names():
        strategy = build(name.removeprefix("avalanche:"), tiny_vit)
        assert strategy.resumes == (name.removeprefix("avalanche:") in RESUMING), name
    strategy = build("EWC", tiny_vit)
    state = learn(strategy, stream[:1])
    with pytest.raises(InputError, match="avalanche:EWC must be trained from the first experience"):
        build("EWC", tiny_vit).restore(state, stream[:1])


# --- options and names -----------------------------------------------------------------------


def test_constructor_arguments_are_options_with_defaults() -> None:
    def options(name: str) -> dict[str, Any]:
        config = find_strategy(f"avalanche:{name}").config_class()
        return config.constructor_arguments()  # type: ignore[attr-defined, no-any-return]

    assert options("Naive") == {}
    assert options("Replay") == {"mem_size": 200}
    assert options("EWC") == {
        "decay_factor": None, "ewc_lambda": 1.0, "keep_importance_data": False, "mode": "separate",
    }  # fmt: skip
    assert options("LwF") == {"alpha": 1.0, "temperature": 2.0}
    fields = find_strategy("avalanche:Replay").config_class.model_fields
    assert {"peft", "size", "blocks", "lr", "batch_size", "epochs"} < set(fields)
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Replay", {"mem_sice": 3}, "unknown option 'mem_sice'; did you mean 'mem_size'"),
        ("Replay", {"mem_size": "many"}, "option `mem_size`: .*integer.*, got 'many'"),
        ("Replay", {"mem_size": -1}, "option `mem_size`: .*greater than or equal to 0, got -1"),
        ("EWC", {"ewc_lambda": "inf"}, "option `ewc_lambda`: .*finite"),
        ("EWC", {"mode": "off"}, "options of avalanche:EWC .* got: Mode must be"),
        ("EWC", {"mode": "online"}, "options of avalanche:EWC .* got: .*decay_factor"),
        ("Naive", {"mem_size": 3}, "unknown option 'mem_size'"),
    ],
)
def test_bad_options_are_refused(
    name: str, options: dict[str, Any], message: str, tiny_vit: AdaptedViT
) -> None:
    with pytest.raises(InputError, match=message):
        build(name, tiny_vit, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("naive", "unknown strategy 'avalanche:naive'; did you mean 'avalanche:Naive'"),
        ("Replai", "did you mean 'avalanche:Replay'"),
        ("", "unknown strategy 'avalanche:'"),
        ("PackNet", "must fit one model with one growing head, but it needs a `post_prune_epochs`"),
        ("PNNStrategy", "but it needs a progressive neural network"),
        ("ICaRL", "but it needs a `feature_extractor`"),
        ("JointTraining", "but it trains once on a whole stream; `joint` and"),
        ("LearningToPrompt", "but it has a `criterion` of its own"),
        ("BiC", "but its argument `lr` is not what the option of that name is"),
    ],
)
def test_names_that_make_no_sense_are_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_strategy(f"avalanche:{name}")


def test_a_plugin_list_of_the_caller_stays_as_it_is(tiny_vit: AdaptedViT) -> None:
    plugins: list[Any] = []
    strategy = find_strategy("avalanche:Replay")
    made = strategy(
        backbone=tiny_vit, plugins=plugins, evaluator=EvaluationPlugin(loggers=[BaseLogger()])
    )
    assert plugins == []
    assert isinstance(made, AvalancheMethod)
