"""A loss that pulls two passes of one batch together, for PEFT modules that draw in training.

Reference: MoSA (`cl_adapters/peft/mosa.py`): two passes draw different experts, and half the sum of
both Kullback-Leibler divergences between their answers is added to the loss of the first.
"""

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.noise import drawing
from cl_adapters.strategies.core.config import StrategyOptions

__all__ = ["Consistency", "ConsistencyConfig", "divergence"]


class ConsistencyConfig(StrategyOptions):
    """How much two passes of one batch are pulled together."""

    consistency: float = Field(
        default=0.0,
        ge=0,
        description="weight of the divergence between two passes of a batch, for modules that draw "
        "such as mosa (theirs: 1); 0 takes one pass",
    )


def divergence(one: Tensor, other: Tensor, classes: Sequence[int]) -> Tensor:
    """Returns half the sum of KL(p || q) and KL(q || p), the mean over images, a scalar.

    p and q are softmaxes over some classes. Of each divergence the first one is held still.

    Shape:
        one, other: (B, C) logits.

    Example:
        >>> from torch import tensor
        >>> one, other = tensor([[2.0, 0.0]]).log_softmax(1), tensor([[0.0, 2.0]]).log_softmax(1)
        >>> round(divergence(one, other, [0, 1]).item(), 4)  # (0.8808 - 0.1192) * 2
        1.5232
    """
    first, second = (each[:, list(classes)].log_softmax(dim=1) for each in (one, other))
    pairs = (first, second.detach()), (second, first.detach())
    found = [functional.kl_div(*each, reduction="batchmean", log_target=True) for each in pairs]
    return (found[0] + found[1]) / 2


class Consistency(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Takes a second pass of each batch, and adds its divergence from the first to the loss.

    It is over the classes that the strategy's loss is over: its `loss_classes`, else those of the
    current experience. Where what draws is frozen, both passes would be one, and the second is not
    taken.

    Args:
        weight: Of the divergence.
        model: The strategy's.

    Raises:
        InputError: If no module of the model draws.
    """

    def __init__(self, weight: float, model: nn.Module) -> None:
        super().__init__()
        sets = [each for each in model.modules() if isinstance(each, AdapterSet)]
        self._weight = weight
        self._drawing = [each for adapters in sets for each in drawing(adapters) if _draws(each)]
        if not self._drawing:
            raise InputError(
                "option `consistency` must stay 0 with a PEFT module that draws nothing in "
                f"training, since both passes are one then, got {weight:g}"
            )

    def before_backward(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Adds the divergence of a second pass."""
        if not any(each.training for each in self._drawing):
            return
        first, output = strategy.mb_output, strategy.output
        second = strategy.forward()
        strategy.output = output
        classes = getattr(strategy, "loss_classes", strategy.current_classes)
        strategy.loss += self._weight * divergence(first, second, classes)


def _draws(module: Any) -> bool:  # noqa: ANN401 - any module with `noise`
    # What only drops draws nothing where it drops nothing.
    return getattr(module, "dropout", None) != 0 or getattr(module, "experts", 1) > 1
