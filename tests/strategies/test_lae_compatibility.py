"""LAE whose simplex head is held to what the offline modules see."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.heads import simplex
from cl_adapters.heads.simplex import simplex_corners
from cl_adapters.strategies.checks.suite import STRATEGY_CHECKS, check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.lae import LAE, LAEConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.test_lae import build


class Losses(SupervisedPlugin):
    """Notes images, labels, and the features that both modules give before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[float, Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def before_backward(self, strategy: Any, **_: Any) -> None:
        new, old = (
            strategy.backbone.features_of(strategy.mb_x, (modules,))
            for modules in (strategy.model.online, strategy.model.offline)
        )
        self.steps.append((float(strategy.loss), new, old, strategy.mb_y.clone()))


def test_from_the_second_experience_on_the_loss_is_theirs(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    losses = Losses()
    strategy = build(
        tiny_vit, losses, head="simplex", compatibility=0.9, epochs=1, freeze_epochs=0, lr=0.01
    )
    corners = simplex_corners(tiny_vit.embed_dim + 1).flip(0)
    for number, experience in enumerate(make_stream([[0, 1], [2, 3]]).train_stream):
        losses.steps.clear()
        strategy.train(experience)
        for loss, new, old, labels in losses.steps:
            plain = torch.nn.functional.cross_entropy(new @ corners.T, labels)
            cosines = 10 * torch.cosine_similarity(old[:, None], new[None], dim=2)
            others = cosines.where(labels[:, None] != labels, torch.zeros(()))
            apart = (others.exp().sum(dim=1).log() - cosines.diag()).mean()
            expected = 0.1 * plain + 0.9 * apart if number else plain
            assert loss == pytest.approx(float(expected), abs=1e-4)
    assert (losses.steps[-1][1] - losses.steps[-1][2]).abs().max() > 1e-3, "they differ by then"


def test_the_offline_modules_learn_by_averaging_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    options = {"head": "simplex", "compatibility": 0.5, "epochs": 1, "freeze_epochs": 0}
    strategy = build(tiny_vit, **options, ema_decay=1.0)
    stream = make_stream([[0, 1], [2, 3]]).train_stream
    strategy.train(stream[0])
    kept = [value.clone() for value in strategy.model.online.parameters()]
    strategy.train(stream[1])
    assert all(map(torch.equal, kept, strategy.model.offline.parameters()))
    assert not all(map(torch.equal, kept, strategy.model.online.parameters()))


def test_another_head_is_refused() -> None:
    with pytest.raises(InputError, match="`compatibility` must stay at 0 with head 'linear', .*9"):
        LAEConfig().override({"compatibility": 0.9})
    with pytest.raises(InputError, match="`compatibility`.* less than 1, got 1"):
        LAEConfig().override({"head": "simplex", "compatibility": 1})


@pytest.mark.slow
def test_it_is_sound() -> None:
    options = {"head": "simplex", "compatibility": 0.9}
    # A class under another label has another corner, which is not as near to what the frozen network
    # sees of it. In the few steps of a trial features reach no corner, and the guesses, right by
    # chance alone, follow from where the corners lie. The test below moves these with the labels.
    checks = [name for name in STRATEGY_CHECKS if name != "relabelled"]
    assert check_strategy(LAE, options=options, checks=checks) == []


@pytest.mark.slow
def test_labels_decide_nothing_but_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(LAE, {"head": "simplex", "compatibility": 0.9})
    labels = range(7)
    names = {label: 2 * label + 1 for label in labels}

    def renamed() -> Tensor:
        run = trial.train(trial.build(), TinyStream(names=names), only_last=True)
        return run.outputs[-1][:, list(names.values())]

    def with_labels(count: int) -> Tensor:
        # Label 2 l + 1 has the corner that l had; other labels share what is left.
        places = {name: label for label, name in names.items()}
        others = iter(label for label in range(count) if label not in labels)
        rows = [places[each] if each in places else next(others) for each in range(count)]
        return simplex_corners(count).flip(0)[rows].flip(0)

    plain = trial.straight.outputs[-1]
    assert (renamed().argmax(dim=1) != plain.argmax(dim=1)).any()
    monkeypatch.setattr(simplex, "simplex_corners", with_labels)
    torch.testing.assert_close(renamed(), plain, rtol=1e-4, atol=1e-4)
