"""Poly and MHR: the adapters' parameters are mixed, by weights of each experience.

    w_k = sigmoid(z_k) / sum_j sigmoid(z_j)           z, (S, K), learned of each experience
    f(x; sum_k w_k theta_k)

MHR cuts what an adapter reads and what it writes into S parts, each with weights of its own: the
input columns of its first factor and the output rows of its second. S = 1 is Poly.

References: Edoardo Ponti and others, "Combining Parameter-efficient Modules for Task-level
Generalisation" (Polytropon), EACL 2023; Lucas Caccia and others, "Multi-Head Adapter Routing for
Cross-Task Generalization" (MHR), NeurIPS 2023, arXiv:2211.03831.

Differs from the authors' code:
    experiences for tasks, which are found out at test time (`experience_router.py`); an experience
    has weights for the adapters that were there, and what was learned before stays as it is.
    The sigmoid itself in training, as their newer code, where the first drew a relaxed Bernoulli.
    What is not cut (biases of the middle, scales) is mixed by the mean of the parts' weights.
MHR-mu, which drops the weights after training, is `start=mean`.

Shapes: S splits, K adapters.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.experience_router import TINY, ExperienceRouter
from cl_adapters.peft.mixing import Output, mix_parameters

__all__ = ["PolyRouter"]


class PolyRouter(ExperienceRouter):
    """Weights of each experience that mix the adapters' parameters (Poly; with splits MHR).

    Args:
        embed_dim: D.
        splits: S, a divisor of D.

    Raises:
        InputError: If it does not divide D.
    """

    options = ("splits",)
    sums_to_one = True

    def __init__(self, embed_dim: int, *, splits: int = 1) -> None:
        if splits < 1 or embed_dim % splits:
            raise InputError(
                f"`router_splits` must divide the width of the stream, {embed_dim}, got {splits}"
            )
        super().__init__(embed_dim, splits)
        self.splits = splits
        self._cuts: Mapping[str, int] = {}

    def check_kind(self, make: Callable[[torch.Generator], nn.Module]) -> None:
        """Refuses adapters that differ in more than their parameters, or that cannot be cut."""
        one, other = (make(torch.Generator().manual_seed(seed)) for seed in (0, 1))
        buffers = dict(other.named_buffers())
        for name, value in one.named_buffers():
            if not torch.equal(value, buffers[name]):
                raise InputError(
                    "router 'poly' must have adapters that differ in their parameters alone, since "
                    f"it mixes these, got {type(one).__name__} with its own {name!r} each"
                )
        self._cuts = getattr(one, "cuts", {})
        if self.splits > 1 and not self._cuts:
            raise InputError(
                "`router_splits` must stay at 1 with adapters that do not say how they are cut, "
                f"got {self.splits} with {type(one).__name__}"
            )

    def fresh(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns logits near 0, (S, K)."""
        return torch.empty(self.splits, count).uniform_(-1e-3, 1e-3, generator=generator)

    def weigh(self, row: Tensor) -> Tensor:
        """Returns the weights that logits mean, (S, K).

        Example:
            >>> logits = torch.tensor([[0.0, 3.0]]).clamp_min(1).log()  # sigmoids 1 / 2 and 3 / 4
            >>> [round(value, 3) for value in PolyRouter(4).weigh(logits)[0].tolist()]
            [0.4, 0.6]
        """
        open_gates = row.sigmoid()
        return open_gates / (open_gates.sum(dim=1, keepdim=True) + TINY)

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns the newest experience's logits, of more than one adapter."""
        return super().newest_parameters() if self.rows.row.shape[1] > 1 else []

    def mix(self, adapters: Sequence[nn.Module], tokens: Tensor, portions: Tensor) -> Output:
        """Returns the output of an adapter with mixed parameters."""
        return mix_parameters(adapters, tokens, portions, self._cuts if self.splits > 1 else {})
