"""ScaLearn: outputs of the adapters are scaled by numbers of each experience, and summed.

    S(x) = sum_k omega_k * f_k(x)

omega_k, (D,), is learned of each experience and block, and not normalised. In other forms it is one
number for all D (uniform), or the same in all blocks (++ in the paper, `shared` here), or both.

Reference: Markus Frohmann and others, "ScaLearn: Simple and Highly Parameter-Efficient Task
Transfer by Learning to Scale", Findings of ACL 2024, arXiv:2310.01217.

After the authors' code: omega ~ N(2 / K, 0.001^2), so that the sum begins at twice the mean, and a
dropout of 0.3 on omega itself. Differs from it: experiences for tasks, which are found out at test
time (`experience_router.py`); omega is trained together with a new adapter where one grows, at the
method's rate; of adapters that add to keys and to values, both are scaled alike.

Shapes: D width of the stream, K adapters, A = D, or 1 if uniform.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl_adapters.peft.experience_router import ExperienceRouter
from cl_adapters.peft.mixing import Output, scale_outputs
from cl_adapters.peft.noise import draws, dropout

__all__ = [
    "ScaLearnRouter",
    "SharedScaLearnRouter",
    "UniformScaLearnRouter",
    "UniformSharedScaLearnRouter",
]


class ScaLearnRouter(ExperienceRouter):
    """Scales of each experience, a number for each entry, adapter and block (ScaLearn).

    Args:
        embed_dim: D.
    """

    is_uniform: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.3  # share of omega that is dropped in training

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim, 1 if self.is_uniform else embed_dim, draws=True)

    def fresh(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns scales around 2 / K, (A, K)."""
        drawn = torch.empty(len(self.rows.row), count).normal_(generator=generator)
        return 2 / count + 0.001 * drawn

    def weigh(self, row: Tensor) -> Tensor:
        """Returns scales, of which training drops some, (A, K)."""
        rows = self.rows
        return dropout(row, self.dropout, rows.noise) if draws(rows, row) else row

    def mix(self, adapters: Sequence[nn.Module], tokens: Tensor, portions: Tensor) -> Output:
        """Returns the scaled outputs' sum."""
        return scale_outputs([each(tokens) for each in adapters], portions)


class UniformScaLearnRouter(ScaLearnRouter):
    """Scales of each experience, a number for each adapter and block (ScaLearnUniform)."""

    is_uniform = True


class SharedScaLearnRouter(ScaLearnRouter):
    """Scales of each experience, a number for each entry and adapter (ScaLearn++)."""

    shares_blocks = True


class UniformSharedScaLearnRouter(ScaLearnRouter):
    """Scales of each experience, a number for each adapter (ScaLearnUniform++)."""

    is_uniform = True
    shares_blocks = True
