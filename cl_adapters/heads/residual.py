"""What HiDe-Prompt puts between frozen features and the classifier that guesses the experience."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualMLP"]


class ResidualMLP(nn.Module):
    """A network of two layers whose output is added to the features: LN(W2 gelu(W1 f) + f).

    Args:
        num_features: F; the middle is twice as wide.
        generator: Source of the initial weights, normal with deviation 0.02; biases are zero.

    Shape:
        Input: (B, F). Output: (B, F), normalised.

    Example:
        >>> ResidualMLP(4, torch.Generator().manual_seed(0))(torch.ones(2, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, num_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.up = _linear(num_features, 2 * num_features, generator)
        self.down = _linear(2 * num_features, num_features, generator)
        self.norm = nn.LayerNorm(num_features)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features as the classifier reads them."""
        found: Tensor = self.norm(self.down(functional.gelu(self.up(features))) + features)
        return found


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # Made without torch's own initialisation, which would draw from the global random state.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.02, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
