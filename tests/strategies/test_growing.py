"""MOS and LAE that decide which experiences get a set; detectors fire as they are told."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.registry import PARALLEL
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.records.event_kinds import Active, Drift, Growth, Scan
from cl_adapters.reports.growth import read_history
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.core.regimes import Regimes
from cl_adapters.strategies.lae import LAE, LAEConfig
from cl_adapters.strategies.mos import MOS, MOSConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import images_of
from tests.strategies.trained_sema import Scripted

FOUR = [[0, 1], [2, 3], [4, 5], [0, 1]]
FAST: dict[type, dict[str, Any]] = {
    MOS: {"batch_size": 8, "epochs": 1, "alignment_epochs": 1},
    LAE: {"batch_size": 8, "epochs": 2, "freeze_epochs": 1},
}


def build(kind: type[MOS] | type[LAE], vit: AdaptedViT, **options: Any) -> Any:
    return kind(
        backbone=vit,
        config=kind.config_class().override({**FAST[kind], **options}),
        fixed_views=True,
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def learned(strategy: Any, without: tuple[str, ...] = ()) -> Mapping[str, Tensor]:
    found = strategy.learned_state()
    return {name: value.clone() for name, value in found.items() if not name.startswith(without)}


def only_the_second_is_strange(scripted: type[Scripted]) -> None:
    # Experience 1 asks detector 0, which fires; then two detectors are asked an experience, and the
    # first of them always, the second never: the second regime recognises what comes.
    scripted.fires = lambda question: question % 2 == 0


def test_growing_always_or_never_by_the_controller_is_what_the_methods_do_without_it(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    del scripted  # whose detectors never fire
    stream = make_stream(FOUR[:3])
    cases: list[tuple[Any, dict[str, Any]]] = [
        (MOS, {"policy": "every_experience", "budget": {"adapters": 9}}),
        (LAE, {"policy": "per_block", "detector": "scripted"}),
    ]
    for kind, options in cases:
        plain, controlled = build(kind, tiny_vit), build(kind, tiny_vit, **options)
        assert plain.regimes is None
        assert controlled.regimes is not None
        for index, experience in enumerate(stream.train_stream):
            for each in (plain, controlled):
                each.train(experience)
            events = plain.pop_events(index)
            assert not [each for each in events if isinstance(each, Active | Growth | Scan)]
        expected, found = learned(plain), learned(controlled, without=("regimes", "experts"))
        assert list(expected) == list(found)
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
        images = images_of(stream.test_stream[0])[0]
        assert torch.equal(plain.answer(images).logits, controlled.answer(images).logits)


@pytest.mark.parametrize("kind", [MOS, LAE])
def test_an_experience_goes_to_a_new_regime_or_to_the_one_that_knows_it_and_events_say_so(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted], kind: Any
) -> None:
    strategy = build(kind, tiny_vit, policy="per_block", detector="scripted")
    events = []
    only_the_second_is_strange(scripted)
    for index, experience in enumerate(make_stream(FOUR).train_stream):
        strategy.train(experience)
        events += strategy.pop_events(index)
        if index == 1:
            scripted.asked.clear()
    assert strategy.regimes.of_experience.tolist() == [0, 1, 1, 1]
    history = read_history(events, 4)
    assert history.blocks == (0,)
    assert list(history.growths) == [(1, 0)]
    held = sum(value.numel() for value in strategy.regimes.detectors.of(0)[0].state_dict().values())
    sets = {MOS: lambda m: [m.current_adapters], LAE: lambda m: [m.online, m.offline]}[kind]
    held += sum(v.numel() for s in sets(strategy.model) for v in s.state_dict().values())
    two_groups = 2 * (tiny_vit.embed_dim + 3) if kind is LAE else 0
    assert history.growths[1, 0] == (2, held + two_groups)
    # The detector that was active before fired in experience 1 alone.
    assert history.active == {
        (0, 0): (0, False),
        (1, 0): (1, True),
        (2, 0): (1, False),
        (3, 0): (1, False),
    }
    scans = [(each.experience, each.fired, each.grown, each.adapter) for each in history.scans]
    assert scans == [(1, True, True, 0), (2, False, False, 1), (3, False, False, 1)]


def test_a_continued_set_is_merged_into_the_one_it_came_from_and_the_first_stays(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    del scripted  # whose detectors never fire
    strategy = build(MOS, tiny_vit, policy="per_block", detector="scripted", merge="none")
    keep, trained = Regimes.keep, []
    sets = [[value.clone() for value in strategy.model.current_adapters.tensors()]]

    def watched(*given: Any) -> None:
        trained.append([value.detach().clone() for value in given[2]])
        keep(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Regimes, "keep", watched)
        for number, experience in enumerate(make_stream(FOUR[:3]).train_stream, start=1):
            strategy.train(experience)
            share = 1 / number
            sets.append(
                [
                    (1 - share) * old + share * new
                    for old, new in zip(sets[-1], trained[-1], strict=True)
                ]
            )
            current = strategy.model.current_adapters.tensors()
            for value, expected in zip(current, sets[-1], strict=True):
                torch.testing.assert_close(value.detach(), expected)
    bank = strategy.model.frozen_adapters
    assert len(bank) == 2  # the first, and the one that went on
    assert strategy.regimes.set_of.tolist() == [1]
    for place, expected in ((0, sets[1]), (1, sets[3])):
        for value, other in zip(bank.at(place), expected, strict=True):
            torch.testing.assert_close(value, other)
    assert strategy.model.owners().tolist() == [1] * 6
    (*_, drift) = [each for each in strategy.pop_events(0) if isinstance(each, Drift)]
    assert drift.distances == [[0] * 3] * 3  # all three experiences have one set
    asked = strategy.answer(images_of(make_stream(FOUR).test_stream[1])[0]).extras["retrieval"]
    assert asked.visited[:, 0].tolist() == [0] * len(asked.visited)  # which experience 0 brought


def test_sets_of_regimes_by_plain_arithmetic() -> None:
    generator = torch.Generator().manual_seed(0)
    stack = AdapterStack.build(PARALLEL, embed_dim=8, blocks=2, size=4, generator=generator)
    bank, config = AdapterBank(stack), MOSConfig(policy="never")
    regimes = Regimes(config, 8, 0, stack)
    for regime, value in ((0, 1.0), (1, 2.0), (1, 6.0), (0, 4.0), (0, 9.0)):
        regimes.add_experience(regime)
        regimes.keep(bank, [torch.full_like(each, value) for each in stack.tensors()], None)
    # Regime 0: 1, then 1 / 2 of 1 + 4, then 2 / 3 of that and 1 / 3 of 9. Regime 1: half of 2 + 6.
    assert bank.tensors()[0][:, 0, 0, 0].tolist() == pytest.approx([1, 4, (2 * 2.5 + 9) / 3])
    assert regimes.set_of.tolist() == [2, 1]
    assert regimes.sets_of(torch.tensor([-1, 0, 1, 4])).tolist() == [-1, 2, 1, 2]
    assert regimes.brought_by(torch.tensor([[2, 1], [1, -1]])).tolist() == [[0, 1], [1, -1]]
    assert bank.mean(regimes.stored)[0][0, 0, 0].item() == pytest.approx((4 + 14 / 3) / 2)


def test_an_image_asks_the_experts_of_its_own_regime(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(LAE, tiny_vit, policy="per_block", detector="scripted", lr=0.02)
    stream, live = make_stream(FOUR), []
    only_the_second_is_strange(scripted)
    for index, experience in enumerate(stream.train_stream[:3]):
        strategy.train(experience)
        live.append(copy.deepcopy((strategy.model.online, strategy.model.offline)))
        if index == 1:
            scripted.asked.clear()
    images = torch.cat([images_of(each)[0] for each in stream.test_stream])
    found, model = strategy.answer(images), strategy.model
    regimes = model.regimes.of_images(tiny_vit(images))
    assert set(regimes.tolist()) == {0, 1}
    # Regime 0 had one experience, so that its online expert answers alone; regime 1 had two.
    for row, regime in enumerate(regimes.tolist()):
        experts = live[0][:1] if regime == 0 else live[2]
        scores = [model.heads(tiny_vit(images[row : row + 1], each)).softmax(1) for each in experts]
        best = torch.stack(scores).amax(dim=0)
        expected = (best / best.sum()).log()
        torch.testing.assert_close(found.logits[row : row + 1], expected, rtol=1e-4, atol=1e-4)
        alone = strategy.answer(images[row : row + 1]).logits
        torch.testing.assert_close(found.logits[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_the_regime_of_an_image_is_that_of_the_nearest_class_of_any_regime() -> None:
    regimes = Regimes(LAEConfig(policy="never"), 2, 0, torch.nn.Linear(1, 1), finds_images=True)
    noise = torch.tensor([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]])
    for regime, label, centre in ((0, 0, (0, 0)), (1, 0, (4, 0)), (0, 1, (8, 0)), (1, 1, (12, 0))):
        regimes.add_experience(regime)
        regimes.learn(noise + torch.tensor(centre), torch.full((4,), label))
    asked = torch.tensor([[0.4, 0.0], [4.1, 0.1], [7.0, 0.0], [11.0, 0.0], [3.0, 0.0]])
    assert regimes.of_images(asked).tolist() == [0, 1, 0, 1, 1]


def test_what_cannot_be_is_refused(tiny_vit: AdaptedViT, make_stream: Callable[..., Any]) -> None:
    for config in (MOSConfig.official(), MOSConfig(merge_in_evaluation=True)):
        for options in ({"policy": "per_block"}, {"budget": {"adapters": 2}}):
            with pytest.raises(InputError, match="`policy` must stay at every_experience"):
                config.override(options)
    with pytest.raises(InputError, match=r"`budget.parameters` must hold one set of adapters"):
        build(LAE, tiny_vit, policy="per_block", budget={"parameters": 10})
    few = build(MOS, tiny_vit, policy="per_block", detector="mahalanobis")
    with pytest.raises(InputError, match="at least 10 training images"):
        few.train(make_stream([[0, 1]], per_class=4).train_stream[0])


def test_a_spent_budget_stops_growth_and_the_last_regime_goes_on(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    options = {"policy": "every_experience", "budget": {"adapters": 2}}
    strategy = build(LAE, tiny_vit, **options)
    strategy.train(make_stream(FOUR).train_stream)
    assert strategy.regimes.of_experience.tolist() == [0, 1, 1, 1]


SOME = ["resumes_inside", "batches", "passes"]


@pytest.mark.parametrize(
    ("name", "options", "checks"),
    [
        ("lae", {"policy": "every_experience"}, SOME),
        pytest.param("lae", {"policy": "per_block"}, None, marks=pytest.mark.slow),
        *(
            pytest.param("mos", {"statistics": "diagonal", **options}, None, marks=pytest.mark.slow)
            for options in (
                {"policy": "never"},
                {"policy": "per_block", "detector": "mahalanobis"},
                {"policy": "whole_network", "task_predictor": "prototypes", "start": "nearest"},
                {"start": "knn"},
            )
        ),
        ("mos", {"policy": "per_block", "detector": "ks"}, ["resumes_inside"]),
    ],
)
def test_it_is_sound_under_every_policy(
    name: str, options: dict[str, str], checks: list[str] | None
) -> None:
    assert check_strategy(find_strategy(name), options=options, checks=checks) == []


@pytest.mark.parametrize("kind", [MOS, LAE])
def test_a_checkpoint_without_regimes_is_refused_in_a_sentence(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], kind: Any
) -> None:
    options = {"policy": "per_block", "detector": "mahalanobis"}
    strategy = build(kind, tiny_vit, **options)
    strategy.train(make_stream(FOUR[:1]).train_stream[0])
    state = learned(strategy, without=("regimes.of_experience", "regimes.group_regimes"))
    again = build(kind, tiny_vit, **options)
    with pytest.raises(InputError, match="checkpoint must fit strategy"):
        again.restore_to_answer(state, [(0, 1)])
