"""The loss between two passes: its value, what it is added to, and when no second pass is taken."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.mosa import MoSA
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.avalanche_types import AvalancheExperience
from cl_adapters.strategies.core.consistency import divergence

STREAM = TinyStream(experiences=((0, 1), (2, 3)), per_class=8)


def strategy_of(method: str, **options: object) -> Any:
    return Trial(find_strategy(method), {"peft": "mosa", "size": 4, **options}).build()


def first_experience() -> AvalancheExperience:
    return STREAM.benchmark.train_stream[0]  # type: ignore[no-any-return]


def test_the_divergence_is_that_of_plain_sums_over_the_classes_asked_for() -> None:
    rows = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found, expected = divergence(rows[0], rows[1], [0, 3]), 0.0
    for one, other in zip(rows[0].tolist(), rows[1].tolist(), strict=True):
        p, q = (
            [math.exp(row[c]) / (math.exp(row[0]) + math.exp(row[3])) for c in (0, 3)]
            for row in (one, other)
        )
        for a, b in zip(p, q, strict=True):
            expected += (a * math.log(a / b) + b * math.log(b / a)) / 2 / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # With the target of a divergence held still, the gradient at the other is q - p.
    found.backward()
    p, q = (each[:, [0, 3]].softmax(dim=1) for each in rows.detach())
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad[1][:, [0, 3]], (q - p) / 2 / 3)
    torch.testing.assert_close(rows.grad[0][:, [0, 3]], (p - q) / 2 / 3)
    assert not rows.grad[:, :, [1, 2, 4]].any()


class Watch:
    """Keeps each pass of a strategy in training, and the loss that gradients are taken of."""

    def __init__(self, strategy: Any) -> None:
        self.passes: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        strategy.model.register_forward_hook(self.keep)
        backward = strategy.backward

        def watched() -> None:
            self.losses.append(strategy.loss.detach())
            self.outputs.append(strategy.output.logits.detach())
            self.targets.append(strategy.mb_y)
            backward()

        strategy.backward = watched

    def keep(self, _: object, __: object, found: Any) -> None:
        self.passes.append(getattr(found, "logits", found).detach())


@pytest.mark.parametrize(("method", "classes"), [("finetune", [0, 1]), ("lae", [0, 1])])
def test_each_batch_has_two_passes_and_the_loss_of_both(method: str, classes: list[int]) -> None:
    strategy = strategy_of(method, consistency=20.0)
    for module in strategy.model.modules():
        if isinstance(module, MoSA):  # which else adds next to nothing
            module.up.data.normal_(std=5, generator=torch.Generator().manual_seed(0))
    watch = Watch(strategy)
    before = strategy.backbone.num_passes
    strategy.train(first_experience())
    epochs = strategy.config.epochs
    assert strategy.backbone.num_passes - before == 2 * epochs * 16
    one, other = watch.passes[-2:]
    loss, targets = watch.losses[-1], watch.targets[-1]
    of_one = torch.nn.functional.cross_entropy(one[:, classes], targets)
    of_both = 20 * divergence(one, other, classes)
    torch.testing.assert_close(loss.squeeze(), of_one + of_both, rtol=1e-4, atol=1e-6)
    assert of_both > 0.001
    assert torch.equal(watch.outputs[-1], one)


def test_old_classes_count_where_the_loss_counts_them() -> None:
    seen = {}
    for masked in (False, True):
        strategy = strategy_of("finetune", consistency=1.0, mask_old_classes=masked)
        for classes in ((0, 1), (2, 3)):
            strategy.register_classes(classes)
        seen[masked] = list(strategy.loss_classes)
    assert seen == {False: [0, 1, 2, 3], True: [2, 3]}


def test_what_is_frozen_takes_one_pass_and_no_weight_takes_one() -> None:
    strategy = strategy_of("lae", consistency=1.0, freeze_epochs=1, epochs=3)
    for experience, images in zip(STREAM.benchmark.train_stream, (2 * 3, 1 + 2 * 2), strict=True):
        watch = Watch(strategy)
        strategy.train(experience)
        rows = sum(len(each) for each in watch.passes)
        assert rows == images * 16
    plain = strategy_of("finetune")
    watch = Watch(plain)
    plain.train(first_experience())
    assert len(watch.passes) == len(watch.losses)


def test_modules_that_draw_nothing_are_refused() -> None:
    for options in ({"peft": "lora"}, {"peft": "adapter"}):
        with pytest.raises(InputError, match="`consistency` must stay 0 with a PEFT module that"):
            strategy_of("finetune", consistency=1.0, **options)
    for peft in ("dylora", "adaptformer", "mosa_hierarchical"):
        strategy_of("joint", consistency=1.0, peft=peft)
