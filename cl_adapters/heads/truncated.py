"""Least squares from features to classes on the strongest directions, one batch after another.

With the rows of H all samples so far and Y their classes as 0 and 1, the strongest k directions of
H' = U diag(s) V' are kept in place of the Gram matrix H' H, which has M x M numbers, and weaker
ones are dropped instead of damped. For a batch of rows B:

    U <- 1.5 U - 0.5 U U' U               orthonormal again: U is kept in float32
    P = U' B',  Q R = B' - U P            what is new in the batch, by QR
    U' diag(s') V'' = [[diag s, P], [0, R]]   by SVD;  U <- [U, Q] U',  s <- s', the first k
    C <- C + B' Y
    W = U diag(1 / (s^2 + lambda)) U' C

If nothing is dropped, W is the least squares solution of smallest norm over all samples at once.

Reference: Liangzu Peng, Juan Elenter, Joshua Agterberg, Alejandro Ribeiro, René Vidal, "LoRanPAC:
Low-rank Random Features and Pre-trained Models for Bridging Theory and Practice in Continual
Learning", ICLR 2025, arXiv:2410.00645.

Shapes: B batch, N samples, M features, K directions, C columns = highest label seen + 1.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import check_memory
from cl_adapters.heads.least_squares import LeastSquaresHead

__all__ = ["Directions", "TruncatedHead"]

# Of the strongest direction; below it are the roundings of a basis in float32.
_LEAST: Final = 1e-6


class Directions(GrowingBuffers):
    """The strongest directions of samples, and how strong each is.

    Args:
        num_features: M.
        rank: Most directions that are kept.
        share: Of the samples so far, and of M: no more directions than this many of either.

    Attributes:
        basis: U, (M, K), its columns orthonormal.
        values: s, (K,), falling.
        count: N.

    Raises:
        InputError: If the machine has not the memory.
    """

    grows_by_learning = True

    def __init__(self, num_features: int, *, rank: int, share: float) -> None:
        super().__init__()
        kept = min(rank, round(share * num_features))
        check_memory(f"{kept:,} directions of {num_features:,} features", 4 * kept * num_features)
        self.rank, self.share = rank, share
        self.register_buffer("basis", torch.zeros(num_features, 0))
        self.register_buffer("values", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.basis: Tensor
        self.values: Tensor
        self.count: Tensor

    @torch.no_grad()
    def add(self, columns: Tensor) -> None:
        """Adds samples, (M, B) float64."""
        self.count += columns.shape[1]
        basis = _orthonormal(self.basis.double())
        known = basis.T @ columns
        rest = columns - basis @ known
        rest -= basis @ (basis.T @ rest)  # once more, for what rounding left
        new, upper = torch.linalg.qr(rest)
        left, values, _ = torch.linalg.svd(_stacked(self.values, known, upper))
        most = min(self.rank, *(round(self.share * each) for each in (len(basis), int(self.count))))
        most = max(1, min(most, int((values > _LEAST * values[0]).sum())))
        self.basis = (torch.cat((basis, new), dim=1) @ left[:, :most]).float()
        self.values = values[:most]

    def inverse_of(self, cross: Tensor, strength: float) -> Tensor:
        """Returns U diag(1 / (s^2 + lambda)) U' C.

        Shape:
            cross: (M, C) float64. Output: (M, C) float64.
        """
        basis, damped = self.basis.double(), self.values.square() + strength
        inverse = torch.where(damped > 0, 1 / damped, 0.0)  # samples of zeros alone say nothing
        return basis @ (inverse[:, None] * (basis.T @ cross))


class TruncatedHead(LeastSquaresHead):
    """A linear classifier by least squares on the strongest directions.

    Args:
        num_features: M.
        rank: Most directions that are kept; the state holds M x K numbers of 4 bytes.
        share: Of the samples so far, and of M: no more directions than this many of either.
        scale: Factor on the scores before a softmax turns them into a confidence.

    Example:
        >>> head = TruncatedHead(2, rank=2, share=1.0, scale=1.0)
        >>> head.add_classes([0, 1])
        >>> head.add(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> head.solve(1.0)
        >>> [round(each, 4) for each in head(torch.tensor([[1.0, 1.0]]))[0].tolist()]
        [0.5, 0.4]
    """

    def __init__(
        self, num_features: int, *, rank: int, share: float = 0.75, scale: float = 10.0
    ) -> None:
        super().__init__(num_features, scale=scale)
        self.directions = Directions(num_features, rank=rank, share=share)

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor) -> None:
        """Adds samples; `solve` lets them count.

        Shape:
            features: (B, M), of a size that an SVD of (K + B) x (K + B) numbers can take.
            targets: (B,), labels below C.
        """
        super().add(features, targets)
        self.directions.add(features.double().T)

    @torch.no_grad()
    def solve(self, strength: float) -> None:
        """Sets the classifier from all samples so far.

        Args:
            strength: lambda, not below 0.
        """
        self.weight = self.directions.inverse_of(self.cross, strength).T.float().contiguous()


def _orthonormal(basis: Tensor) -> Tensor:
    """Returns the nearest orthonormal columns to some that are nearly so, by one step of Newton."""
    return basis @ (1.5 * torch.eye(basis.shape[1]).to(basis) - 0.5 * basis.T @ basis)


def _stacked(values: Tensor, known: Tensor, upper: Tensor) -> Tensor:
    """Returns [[diag s, P], [0, R]], (K + R, K + B)."""
    above = torch.cat((torch.diag(values), known), dim=1)
    below = functional.pad(upper, (len(values), 0))
    return torch.cat((above, below))
