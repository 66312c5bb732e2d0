"""Ridge regression from features to classes, in closed form, one batch after another.

With the rows of H the features and Y their classes as 0 and 1,

    G <- G + H' H,    C <- C + H' Y,    W = (G + lambda I)^-1 C

so that the classifier after any split into batches and experiences is the one over all data at
once. Sums are in float64, the system is solved by Cholesky.

Shapes: B batch, N samples, M features, C columns = highest label seen + 1.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from cl_adapters.earlier_names import earlier_method
from cl_adapters.errors import InputError, check_memory
from cl_adapters.heads.least_squares import LeastSquaresHead

__all__ = ["STRENGTHS", "RidgeHead", "choose_strength"]

STRENGTHS: Final = tuple(10.0**power for power in range(-8, 9))


class RidgeHead(LeastSquaresHead):
    """A linear classifier by ridge regression.

    Args:
        num_features: M; the state holds M x M numbers of 8 bytes.
        scale: Factor on the scores before a softmax turns them into a confidence.
        normalise_columns: Score by cosines between features and each class's weights, another
            classifier than the regression.

    Raises:
        InputError: If the machine has not the memory.

    Example:
        >>> head = RidgeHead(2, scale=1.0)
        >>> head.add_classes([0, 1])
        >>> head.add(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> head.solve(1.0)
        >>> head(torch.tensor([[1.0, 1.0]])).tolist()
        [[0.5, 0.4000000059604645]]
    """

    def __init__(
        self, num_features: int, *, scale: float = 10.0, normalise_columns: bool = False
    ) -> None:
        check_memory(f"ridge regression on {num_features:,} features", 8 * num_features**2)
        super().__init__(num_features, scale=scale, normalise_columns=normalise_columns)
        self.register_buffer("gram", torch.zeros(num_features, num_features, dtype=torch.float64))
        self.gram: Tensor

    grow = earlier_method("grow", "add_classes")

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor) -> None:
        """Adds samples; `solve` lets them count.

        Shape:
            features: (B, M). targets: (B,), labels below C.
        """
        super().add(features, targets)
        rows = features.double()
        self.gram += rows.T @ rows

    def solve_from(self, strength: float) -> float:
        """Solves with the first of `strength`, ten times that and so on that is large enough.

        A strength chosen on a part of the samples may be lost in the rounding of all of them.

        Args:
            strength: lambda, above 0.

        Returns:
            The strength that was taken.

        Raises:
            InputError: If none makes the system positive definite.
        """
        while True:
            try:
                self.solve(strength)
            except InputError:
                if not 0 < strength <= float(self.gram.trace()):  # it is not for want of strength
                    raise
                strength *= 10
            else:
                return strength

    @torch.no_grad()
    def solve(self, strength: float) -> None:
        """Sets the classifier from all samples so far.

        Args:
            strength: lambda, above 0.

        Raises:
            InputError: If the system is not positive definite: the strength is too small.
        """
        shifted = self.gram + strength * torch.eye(len(self.gram)).to(self.gram)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if bool(failed):
            raise InputError(f"ridge strength must make the system definite, got {strength:g}")
        self.weight = torch.cholesky_solve(self.cross, factor).T.float().contiguous()


def choose_strength(
    features: Tensor,
    targets: Tensor,
    generator: torch.Generator,
    *,
    strengths: Sequence[float] = STRENGTHS,
    share: float = 0.2,
) -> float | None:
    """Returns the strength with the least squared error on held-out samples.

    The regression on N samples is solved with N x N numbers where these are fewer than M x M.

    Args:
        features: The samples.
        targets: Their labels.
        generator: Source of the split.
        strengths: What to choose from.
        share: Share of the samples that is held out.

    Returns:
        The strength, or None if there are too few samples to hold any out.

    Shape:
        features: (N, M). targets: (N,).
    """
    held = int(share * len(targets))
    if held == 0:
        return None
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    classes = torch.unique(targets)
    truth = (targets[:, None] == classes).double()
    rows, held_out = features.double()[order[held:]], features.double()[order[:held]]
    known, wanted = truth[order[held:]], truth[order[:held]]
    is_short = len(rows) < rows.shape[1]
    system = rows @ rows.T if is_short else rows.T @ rows
    right, left = (known, held_out @ rows.T) if is_short else (rows.T @ known, held_out)
    values, directions = torch.linalg.eigh(system)  # once, for all strengths
    left, right = left @ directions, directions.T @ right
    errors: dict[float, float] = {}
    for strength in strengths:
        damped = values + strength
        if float(damped.min()) > 0:  # else the system is not definite, for rounding
            errors[strength] = float(((left / damped @ right - wanted) ** 2).mean())
    return min(errors, key=lambda each: errors[each]) if errors else None
