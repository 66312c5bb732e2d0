"""CoFiMA against the brief (9.4) and plain loops over entries, batches and heads."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.cofima import CoFiMA, CoFiMAConfig
from cl_adapters.vit.checks import tiny_backbone

THREE = ((2, 0), (1, 3), (4, 5))
FAST = {
    "epochs": 2,
    "lr": 0.05,
    "alignment_epochs": 1,
    "alignment_samples": 16,
    "fisher_limit": 1e-3,
}


class Recorded(CoFiMA):
    """Keeps what it averages, and what its alignment leaves behind."""

    trained: list[dict[str, Tensor]]
    before: list[dict[str, Tensor]]

    def _averaged(self, fisher: dict[str, Tensor]) -> dict[str, Tensor]:
        self.trained.append({k: v.clone() for k, v in self.model.tensors().items()})
        self.before.append(self.old)
        return super()._averaged(fisher)


def trained(**options: Any) -> tuple[Any, Recorded]:
    trial = Trial(Recorded, {**FAST, **options})
    strategy = trial.build()
    assert isinstance(strategy, Recorded)
    strategy.trained, strategy.before = [], []
    return trial.train(strategy, TinyStream(experiences=THREE)), strategy


def fisher_by_loops(
    values: dict[str, Tensor], stream: TinyStream, experience: int
) -> dict[str, Tensor]:
    """Mean of squared gradients over the batches that the strategy draws."""
    network = copy.deepcopy(tiny_backbone())
    named = dict(network.named_parameters())
    for name, value in named.items():
        value.data.copy_(values[name.replace(".", "-")])
        value.requires_grad_()
    head = {key: values[key].clone().requires_grad_() for key in ("head_weight", "head_bias")}
    rows = [label for each in THREE[: experience + 1] for label in each]
    images, labels = stream.train_sets[experience].tensors
    strategy = Trial(CoFiMA, FAST).build()
    strategy.classes_by_experience = [tuple(each) for each in THREE[: experience + 1]]
    draws = strategy.generator("fisher")
    data = stream.benchmark.train_stream[experience].dataset
    del images, labels
    sums = {key: torch.zeros_like(value) for key, value in values.items()}
    batches = list(strategy.features.shuffled_images(data, draws, 8))
    for shown, targets in batches:
        logits = network(shown) @ head["head_weight"].T + head["head_bias"]
        own = torch.tensor([rows.index(int(label)) for label in targets])
        every = [*named.values(), *head.values()]
        found = torch.autograd.grad(functional.cross_entropy(logits, own), every)
        keys = [*(name.replace(".", "-") for name in named), *head]
        for key, gradient in zip(keys, found, strict=True):
            sums[key] += gradient**2
    return {key: (value / len(batches)).clamp_max(1e-3) for key, value in sums.items()}


def mixed(old: Tensor, new: Tensor, old_fisher: Tensor, new_fisher: Tensor) -> Tensor:
    top = 0.6 * old_fisher.double() * old + 0.4 * new_fisher.double() * new
    below = 0.6 * old_fisher.double() + 0.4 * new_fisher.double()
    plain = 0.6 * old + 0.4 * new
    return torch.where(below > 0, top / below, plain.double()).float()


@pytest.mark.parametrize("new_head", ["kept", "scaled"])
def test_networks_are_averaged_entry_by_entry_with_what_mattered_to_each(new_head: str) -> None:
    stream = TinyStream(experiences=THREE)
    run, strategy = trained(new_head=new_head)
    old, new = strategy.before[1], strategy.trained[1]
    known, own = (
        fisher_by_loops(strategy.trained[0], stream, 1),
        fisher_by_loops(new, stream, 2),
    )
    state = run.states[2]
    for key, value in own.items():
        torch.testing.assert_close(state[f"fisher.{key}"], value, rtol=1e-3, atol=1e-7)
    for key, value in new.items():
        count = len(old[key])
        expected = mixed(old[key], value[:count], known[key], own[key][:count])
        if key.startswith("head_"):
            rest = value[count:] * (own[key][count:] if new_head == "scaled" else 1)
            averaged = strategy_averaged(strategy, new, old, known, own)[key]
            torch.testing.assert_close(averaged[:count], expected, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(averaged[count:], rest, rtol=1e-3, atol=1e-6)
        else:
            found = state[f"network.values.{key}"]
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def strategy_averaged(
    strategy: Recorded, new: Any, old: Any, known: Any, own: Any
) -> dict[str, Tensor]:
    """What the strategy makes of the same numbers; its heads are aligned afterwards."""
    model = strategy.model
    model.take(new)
    strategy.old = old
    model.fisher.keep(known)
    return strategy._averaged(own)


def test_the_old_network_has_its_heads_as_they_were_aligned() -> None:
    run, strategy = trained()
    aligned = torch.cat([run.states[1][f"heads.layers.{t}.weight"] for t in range(2)])
    assert torch.equal(strategy.before[1]["head_weight"], aligned)
    # What is put back before the next experience are the heads before averaging.
    for number in (0, 1):
        kept = run.states[number + 1]["unaligned.weight"]
        assert torch.equal(kept, strategy.trained[number]["head_weight"])
    assert strategy.old == {}


def test_frozen_heads_have_left_over_gradients_in_the_official_code() -> None:
    run, _ = trained(old_heads="stale", new_head="scaled")
    one, two = run.states[1], run.states[2]
    left = one["left_over.head_weight"]  # of the last step of the alignment after experience 1
    expected = (left**2).clamp_max(1e-3)
    assert bool(left.any())
    torch.testing.assert_close(two["fisher.head_weight"][:4], expected)
    assert not torch.allclose(two["fisher.head_weight"][4:], torch.zeros(2, 32))
    computed = trained()[0].states[2]["fisher.head_weight"][:4]
    assert not torch.allclose(computed, expected, rtol=0.1)


def test_shares_at_the_ends_keep_one_network() -> None:
    _, strategy = trained(share=0.0)
    old, new = strategy.before[1], strategy.trained[1]
    found = strategy_averaged(
        strategy, new, old, {k: v + 1 for k, v in old.items()}, {k: v * 0 for k, v in new.items()}
    )
    torch.testing.assert_close(found["vit-norm-weight"], old["vit-norm-weight"])


@pytest.mark.slow  # the suite over the defaults is run each time
def test_the_official_defects_are_sound_too() -> None:
    options = {"new_head": "scaled", "old_heads": "stale"}
    names = ["answers", "declares", "resumes", "resumes_inside", "small"]
    assert check_strategy(CoFiMA, options=options, checks=names) == []


def test_one_pass_an_image_and_two_more_for_information_and_statistics() -> None:
    stream, strategy = TinyStream(experiences=THREE[:2]), Trial(CoFiMA, {"epochs": 1}).build()
    for experience, images in zip(stream.benchmark.train_stream, stream.train_sets, strict=True):
        before = strategy.backbone.num_passes
        strategy.train(experience)
        assert strategy.backbone.num_passes - before == 3 * len(images)


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = CoFiMAConfig.official()
    assert (config.batch_size, config.alignment_epochs, config.share) == (64, 3, 0.4)
    assert (config.fisher_limit, config.new_head, config.old_heads) == (1e-4, "scaled", "stale")
    assert (config.epochs, config.milestone, config.lr_ratio) == (20, 18, 0.01)


def test_a_model_that_only_answers_keeps_no_network_of_before() -> None:
    run, _ = trained()
    strategy = Trial(CoFiMA, FAST).build()
    strategy.restore_to_answer(run.strategy.learned_state(), THREE)
    assert strategy.old == {}
