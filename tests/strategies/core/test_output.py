"""A model may answer with an `Output` or with logits alone."""

from typing import Any

import torch
from torch import Tensor

from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.output import Output, as_output
from cl_adapters.strategies.finetune import Finetune, FinetuneConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier


class Telling(AdaptedClassifier):
    """The same classifier, which says what it saw."""

    def forward(self, images: Tensor) -> Any:
        return Output(super().forward(images), {"brightness": images.mean(dim=(1, 2, 3))})


class Tells(Finetune):
    """Finetune whose model gives an `Output`."""

    @classmethod
    def build_model(
        cls, backbone: AdaptedViT, config: FinetuneConfig, seed: int
    ) -> AdaptedClassifier:
        plain = super().build_model(backbone, config, seed)
        return Telling(plain.backbone, plain.adapters, plain.heads)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        assert self.output is not None
        assert torch.equal(self.output.extras["brightness"], self.mb_x.mean(dim=(1, 2, 3)))
        return super().batch_loss(logits, targets)


def test_logits_alone_are_as_good_as_an_output() -> None:
    stream = TinyStream()
    plain, telling = (
        trial.train(trial.build(), stream) for trial in (Trial(Finetune), Trial(Tells))
    )
    for one, other in zip(plain.outputs, telling.outputs, strict=True):
        assert torch.equal(one, other)
    assert all(
        torch.equal(value, telling.states[-1][name]) for name, value in plain.states[-1].items()
    )
    assert plain.strategy.output is not None
    assert plain.strategy.output.extras == {}


def test_a_tensor_becomes_logits_and_an_output_stays_itself() -> None:
    logits = torch.randn(2, 3)
    output = Output(logits, {"votes": 1})
    assert as_output(output) is output
    assert as_output(logits).logits is logits
    assert dict(as_output(logits).extras) == {}
