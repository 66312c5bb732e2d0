"""Weight aligning against the arithmetic of the paper, and in the method it was made for."""

import pytest
import torch

from cl_adapters.heads.aligning import align_weights
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial


def grown(*experiences: list[int]) -> ExperienceHeads:
    heads = ExperienceHeads(4, init_std=1.0)
    for index, classes in enumerate(experiences):
        heads.add_classes(classes, torch.Generator().manual_seed(index))
    return heads


def lengths(heads: ExperienceHeads, classes: list[int]) -> torch.Tensor:
    return heads.joined(classes).weight.detach().norm(dim=1)


@torch.no_grad()
def test_the_worked_example() -> None:
    heads = ExperienceHeads(2)
    for classes in ([0, 1], [2, 3]):
        heads.add_classes(classes, torch.Generator())
    heads.layers[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    heads.layers[1].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, -4.0]]))
    heads.layers[1].bias.fill_(5)
    assert align_weights(heads, {2, 3}) == 0.5
    assert heads.layers[1].weight.tolist() == [[2, 0], [0, -2]]
    assert heads.layers[1].bias.tolist() == [5, 5]
    assert heads.layers[0].weight.tolist() == [[1, 0], [0, 3]]


def test_mean_lengths_agree_and_a_second_time_changes_nothing() -> None:
    heads = grown([4, 1], [0, 3, 2])
    features = torch.randn(50, 4)
    before = heads(features)[:, [0, 2, 3]].argmax(dim=1)
    assert align_weights(heads, {0, 2, 3}) != 1
    assert lengths(heads, [0, 2, 3]).mean() == pytest.approx(float(lengths(heads, [4, 1]).mean()))
    assert torch.equal(heads(features)[:, [0, 2, 3]].argmax(dim=1), before)
    assert align_weights(heads, {0, 2, 3}) == pytest.approx(1, abs=1e-6)


def test_without_old_or_new_classes_nothing_is_aligned() -> None:
    heads = grown([0, 1], [2])
    weight = lengths(heads, [0, 1, 2])
    assert align_weights(heads, {0, 1, 2}) == align_weights(heads, set()) == 1
    assert torch.equal(lengths(heads, [0, 1, 2]), weight)


@pytest.mark.parametrize(
    "name", [pytest.param("finetune", marks=pytest.mark.slow), "avalanche:Replay"]
)
def test_after_each_experience_but_the_first_rows_have_one_length(name: str) -> None:
    found = {}
    for asked in (True, False):
        trial = Trial(find_strategy(name), {"weight_aligning": asked})
        strategy = trial.build()
        trial.train(strategy, TinyStream())
        heads, new = strategy.model.heads, sorted(strategy.new_classes)
        old = sorted(set(heads.classes) - set(new))
        found[asked] = float(lengths(heads, new).mean() / lengths(heads, old).mean())
    assert found[True] == pytest.approx(1, abs=1e-5)
    assert abs(found[False] - 1) > 1e-3
