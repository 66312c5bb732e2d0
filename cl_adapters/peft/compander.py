"""Weight compander: matrices whose large entries move slowly, and are bounded.

Reference: Rinor Cakaj, Jens Mehnert, Bin Yang, "Weight Compander: A Simple Weight
Reparameterization for Regularization", IJCNN 2023, arXiv:2306.16993. Published for networks that
are trained whole; no code was found, and the formula was not checked against the paper.

What is ours: that a PEFT module's matrices are what is companded, and a = b = 1.5, with which the
weights of a new module stay nearly what they are.

Parameters: those of the module, and 2 where a and b are learned.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_adapters.errors import InputError
from cl_adapters.peft.bottleneck import Bottleneck

__all__ = ["Companded", "companded", "companded_bottleneck", "expanded"]


def companded(value: Tensor, bound: Tensor | float, slope: Tensor | float) -> Tensor:
    """Returns w = a arctan(v / b), below a pi / 2; its slope is a / b at 0.

    Args:
        value: v.
        bound: a, positive.
        slope: b, positive.

    Example:
        >>> [round(each, 4) for each in companded(torch.tensor([0.1, 1, 10]), 1.5, 1.5).tolist()]
        [0.0999, 0.882, 2.1329]
    """
    return bound * torch.arctan(value / slope)


def expanded(weight: Tensor, bound: Tensor | float, slope: Tensor | float) -> Tensor:
    """Returns v = b tan(w / a), the inverse of `companded`."""
    return slope * torch.tan(weight / bound)


class Companded(nn.Module):
    """A PEFT module that computes with a arctan(v / b) in place of each of its matrices.

    For the slot of the module. What is zero stays zero.

    Args:
        module: It holds v, which is drawn as its own weights are.
        bound: a, positive.
        slope: b, positive.
        learns: Train a and b too, one of each for the whole module.

    Raises:
        InputError: If a or b is not positive.
    """

    def __init__(
        self, module: nn.Module, *, bound: float = 1.5, slope: float = 1.5, learns: bool = False
    ) -> None:
        super().__init__()
        for name, value in (("bound", bound), ("slope", slope)):
            if not value > 0:
                raise InputError(f"`{name}` must be positive, got {value}")
        self.module = module
        self.bound: Tensor | float = nn.Parameter(torch.tensor(bound)) if learns else bound
        self.slope: Tensor | float = nn.Parameter(torch.tensor(slope)) if learns else slope

    def weights(self) -> dict[str, Tensor]:
        """Returns the matrices that the module computes with, by name."""
        return {
            name: companded(value, self.bound, self.slope)
            for name, value in self.module.named_parameters()
            if value.ndim > 1
        }

    def forward(self, *inputs: Tensor, **slot: str) -> Tensor | tuple[Tensor, ...]:
        """Returns what the module makes of its input."""
        found: Tensor | tuple[Tensor, ...] = functional_call(
            self.module, self.weights(), inputs, slot
        )
        return found


def companded_bottleneck(embed_dim: int, width: int, *, generator: torch.Generator) -> Companded:
    """Returns the kind `parallel` with companded matrices.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        generator: Source of the initial weights.
    """
    return Companded(
        Bottleneck(embed_dim, width, activation="relu", scale=1.0, generator=generator)
    )
