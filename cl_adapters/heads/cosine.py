"""A linear layer on the unit sphere."""

from torch import Tensor, nn

__all__ = ["CosineLinear"]


class CosineLinear(nn.Linear):
    """A multiple of the cosines between features and rows of weights, without bias.

    Its weights are not set.

    Args:
        num_features: F.
        rows: C.
        scale: The multiple.
    """

    def __init__(self, num_features: int, rows: int, *, scale: float) -> None:
        super().__init__(num_features, rows, bias=False, device="meta")
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits.

        Shape:
            features: (B, F). Output: (B, C).
        """
        weight = nn.functional.normalize(self.weight, dim=1)
        return self.scale * nn.functional.linear(nn.functional.normalize(features, dim=1), weight)
