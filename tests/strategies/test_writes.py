"""What methods learn and from what, where a small wrong change once passed unseen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch.nn import functional

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.finetune import Finetune, FinetuneConfig
from cl_adapters.strategies.joint import Joint, JointConfig
from cl_adapters.strategies.lae import LAE, LAEConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import THREE, TWO, build


def quiet() -> EvaluationPlugin:
    return EvaluationPlugin(loggers=[BaseLogger()])


def test_mos_aligns_the_row_of_every_class(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    rows = []
    for alignment in (True, False):
        strategy = build(tiny_vit, alignment=alignment)
        strategy.train(make_stream(TWO).train_stream)
        rows.append(torch.cat([layer.weight for layer in strategy.model.heads.layers]))
    moved = (rows[0] - rows[1]).abs().amax(dim=1)
    assert bool((moved > 1e-6).all()), moved


def test_mos_keeps_apart_from_classes_that_are_gone_and_from_no_other(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    first, second = make_stream([[0, 1, 2], [1, 3]]).train_stream
    strategy = build(tiny_vit)
    strategy.train(first)
    means = strategy.model.classes.class_means()
    strategy.train(second)
    assert torch.equal(strategy.old_means, means[[0, 2]])  # 1 is back, 3 is new


def test_mos_gives_no_class_to_come_a_say_where_their_number_is_known(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream(THREE)
    strategy = build(tiny_vit, num_classes=6, ensemble=False)
    images = torch.randn(5, 3, 32, 32)
    for number in (1, 2):
        strategy.train(benchmark.train_stream[number - 1])
        for training in (True, False):
            with torch.no_grad():
                logits = strategy.model.train(training)(images).logits
            assert bool((logits[:, 2 * number :] == UNSEEN_LOGIT).all())
            assert bool((logits[:, : 2 * number] != UNSEEN_LOGIT).all())


class Epochs(SupervisedPlugin):
    """Keeps both experts of LAE at each end of an epoch, with the steps until then."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def keep(self, strategy: Any) -> None:
        states = (
            {name: value.clone() for name, value in each.state_dict().items()}
            for each in (strategy.model.online, strategy.model.offline)
        )
        self.kept.append((strategy.phase, *states))

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.keep(strategy)

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.keep(strategy)


def test_lae_accumulates_in_epochs_that_train_the_head_alone_too(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    """In experience 2, where the experts differ; online stands still, so the average is known."""
    config = LAEConfig(epochs=2, freeze_epochs=1, batch_size=8, ema_decay=0.7)
    strategy = LAE(backbone=tiny_vit, config=config, evaluator=quiet())
    first, second, third = make_stream(THREE).train_stream
    strategy.train([first, second], eval_streams=[])
    epochs = Epochs()
    strategy.add_plugin(epochs)
    strategy.train(third, eval_streams=[])
    (phase, online, before), (_, still, after) = epochs.kept[:2]
    assert phase == "freeze"
    share = 0.7**3  # 24 images in batches of 8
    for name, value in before.items():
        assert torch.equal(online[name], still[name])
        assert not torch.equal(value, online[name])
        expected = share * value + (1 - share) * online[name]
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("mask", "classes"), [(False, [0, 1, 2, 3]), (True, [2, 3])])
def test_finetune_counts_old_classes_unless_they_are_masked(
    mask: bool, classes: list[int], tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = Finetune(
        backbone=tiny_vit, config=FinetuneConfig(epochs=1, mask_old_classes=mask), evaluator=quiet()
    )
    strategy.train(make_stream([[0, 1], [2, 3]]).train_stream, eval_streams=[])
    logits, targets = torch.randn(6, 4), torch.tensor([2, 3, 2, 3, 2, 3])
    by_hand = functional.cross_entropy(logits[:, classes], targets - classes[0])
    torch.testing.assert_close(strategy.batch_loss(logits, targets), by_hand)


def test_joint_counts_all_classes_that_were_seen(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = Joint(backbone=tiny_vit, config=JointConfig(epochs=1), evaluator=quiet())
    strategy.train(make_stream([[0, 1], [2, 3]]).train_stream, eval_streams=[])
    logits, targets = torch.randn(6, 4), torch.tensor([0, 3, 2, 1, 2, 3])
    by_hand = functional.cross_entropy(logits, targets)
    torch.testing.assert_close(strategy.batch_loss(logits, targets), by_hand)


def test_each_experience_draws_its_own_numbers(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = Finetune(backbone=tiny_vit, config=FinetuneConfig(epochs=1), evaluator=quiet())
    drawn = []
    for experience in make_stream(TWO).train_stream:
        strategy.train(experience, eval_streams=[])
        drawn.append(torch.rand(4, generator=strategy.generator("order")))
    assert not torch.equal(*drawn)
    again = Finetune(backbone=tiny_vit, config=FinetuneConfig(epochs=1), evaluator=quiet())
    again.train(make_stream(TWO).train_stream[0], eval_streams=[])
    assert torch.equal(torch.rand(4, generator=again.generator("order")), drawn[0])


def test_each_experience_of_a_run_seeds_the_global_states_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As augmentations and dropout draw from them; a run that is taken up seeds the same."""
    images = torch.rand(16, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    data = images, [0, 1, 2, 3] * 4
    seen: list[torch.Tensor] = []
    train = AdapterStrategy.train

    def watched(self: AdapterStrategy, *given: Any, **named: Any) -> Any:
        seen.append(torch.random.get_rng_state())
        return train(self, *given, **named)

    monkeypatch.setattr(AdapterStrategy, "train", watched)
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        values = {"strategy": "simplecil", "increment": 2, "backbone": "test_vit", "seed": seed}
        config = RunConfig.parse({**values, "weights": "random", "image_size": 32})
        runner.run(prepare(config, source=array_source("noise", data, data)), tmp_path / out)
    assert [torch.equal(seen[0], each) for each in seen] == [True, False, True, False, False, False]
