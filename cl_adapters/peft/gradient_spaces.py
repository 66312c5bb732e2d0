"""What the inputs of a layer span: DualGPM, which keeps either that or what is still free of it.

A gradient of a linear layer lies in the span of its inputs. A change that is orthogonal to the
inputs of earlier data leaves what the layer made of them as it was. DualGPM keeps an orthonormal
basis of the directions U that matter to earlier data, and once these are more than half of all, of
the free ones in their place, so that it never keeps more than half.

With M = E[u u'] of a layer's inputs and an energy threshold eps, both forms update U so that the
directions in use hold a share eps of the squared singular values of M: the fourth powers of the
data's, as published.

Reference: Yan-Shuo Liang, Wu-Jun Li, "Adaptive Plasticity Improvement for Continual Learning",
CVPR 2023, and "InfLoRA", CVPR 2024, arXiv:2404.00228.

Shapes: D width of the inputs, K directions.
"""

from typing import Final

import torch
from torch import Tensor

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError

__all__ = ["GradientSpace"]

# Singular values below this share of the largest are rounding: their directions are arbitrary.
_NOISE: Final = 1e-6


class GradientSpace(GrowingBuffers):
    """The directions that matter to earlier data at one layer, or those that are free.

    Args:
        num_features: D.

    Attributes:
        basis: (D, K), orthonormal columns.
        is_free: Whether `basis` spans what is free (the form `retain`), else what is in use
            (`remove`); starts as `remove` without a direction, and never goes back to it.

    Example:
        >>> space = GradientSpace(4)
        >>> moment = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        >>> space.update(moment, 0.95)
        >>> space.num_used
        2
        >>> space.project(moment).diagonal()
        tensor([0., 0., 2., 1.])
    """

    grows_by_learning = True

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(num_features, 0))
        self.register_buffer("is_free", torch.tensor(data=False))
        self.basis: Tensor
        self.is_free: Tensor

    @property
    def num_used(self) -> int:
        """How many directions matter to earlier data."""
        size, known = self.basis.shape
        return size - known if bool(self.is_free) else known

    def project(self, moment: Tensor) -> Tensor:
        """Returns the part of a matrix (D, K) in the free directions.

        `remove` gives M - U U' M, `retain` U U' M.
        """
        basis = self._beside(moment)
        inside = basis @ (basis.T @ moment)
        return inside if bool(self.is_free) else moment - inside

    def free_directions(self, moment: Tensor, count: int) -> Tensor:
        """Returns the strongest free directions of some inputs, as orthonormal rows.

        Where fewer are free than are asked for, the others are rows of zeros.

        Shape:
            moment: M, (D, D). Output: (count, D), float32.
        """
        vectors, values = _left(self.project(moment.double()))
        strength = float(torch.linalg.matrix_norm(moment.double(), 2))
        kept = vectors[:, :count] * (values[:count] > _NOISE * strength)
        rows = kept.T.to(moment.device, torch.float32)
        missing = count - len(rows)
        return torch.nn.functional.pad(rows, (0, 0, 0, missing))

    @torch.no_grad()
    def update(self, moment: Tensor, threshold: float, *, published: bool = False) -> None:
        """Takes in the inputs of an experience.

        Args:
            moment: M, (D, D).
            threshold: eps, share of the squared singular values to be in use; in (0, 1].
            published: Do with a first experience that uses half of the directions or more what the
                authors' code does: keep them as if they were free.

        Raises:
            InputError: If the threshold is out of its range, or more than half of the directions
                are in use under `published`, where the authors' code stops.
        """
        if not 0 < threshold <= 1:
            raise InputError(f"`threshold` must lie in (0, 1], got {threshold}")
        moment = moment.double()
        if not bool(moment.any()):
            return
        half = len(moment) / 2
        if self.basis.shape[1] == 0 and not bool(self.is_free):
            self._begin(moment, threshold)
            if published and self.basis.shape[1] >= half:
                self._keep_as_free(half)
        elif bool(self.is_free):
            self._retain_less(moment, threshold)
        else:
            self._remove_more(moment, threshold)
        if not bool(self.is_free) and self.basis.shape[1] > half:
            complement, _ = _left(self._beside(moment), full=True)
            self._set(complement[:, self.basis.shape[1] :])
            self.is_free.fill_(value=True)

    def _begin(self, moment: Tensor, threshold: float) -> None:
        vectors, values = _left(moment)
        shares = values.square().cumsum(dim=0) / values.square().sum()
        self._set(vectors[:, : max(1, int((shares < threshold).sum()))])

    def _keep_as_free(self, half: float) -> None:
        if self.basis.shape[1] > half:
            raise InputError(
                "directions in use after the first experience must be at most half of all under "
                f"`first_form` 'published', as the authors' code demands, got "
                f"{self.basis.shape[1]} of {len(self.basis)}"
            )
        self.is_free.fill_(value=True)

    def _remove_more(self, moment: Tensor, threshold: float) -> None:
        vectors, values = _left(self.project(moment))
        shares = values.square() / moment.square().sum()
        covered, more = 1 - float(shares.sum()), 0
        for share in shares.tolist():
            if covered >= threshold or share <= _NOISE**2:
                break
            covered, more = covered + share, more + 1
        self._set(torch.cat((self._beside(moment), vectors[:, :more]), dim=1))

    def _retain_less(self, moment: Tensor, threshold: float) -> None:
        vectors, values = _left(self.project(moment))
        shares = values.square() / moment.square().sum()
        rest, fewer = float(shares.sum()), 0
        for share in shares.tolist()[: self.basis.shape[1]]:
            if rest < 1 - threshold or share <= _NOISE**2:
                break
            rest, fewer = rest - share, fewer + 1
        taken, basis = vectors[:, :fewer], self._beside(moment)
        left, _ = _left(basis - taken @ (taken.T @ basis))
        self._set(left[:, : basis.shape[1] - fewer])

    def _beside(self, moment: Tensor) -> Tensor:
        # Moments are on the CPU, where double precision is quick, the basis where the network is.
        return self.basis.to(moment.device, moment.dtype)

    def _set(self, basis: Tensor) -> None:
        self.basis = basis.to(self.basis.device, self.basis.dtype)


def _left(matrix: Tensor, *, full: bool = False) -> tuple[Tensor, Tensor]:
    # On the CPU, where a decomposition gives the same bits on every machine's every run.
    vectors, values, _ = torch.linalg.svd(matrix.cpu(), full_matrices=full)
    return vectors.to(matrix.device), values.to(matrix.device)
