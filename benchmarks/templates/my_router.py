"""MyRouter: an image takes most of the adapter whose images it is nearest to.

What the router looks at, in three sentences.

Reference: authors, title, venue, year.

    score_k    -|m - mu_k|^2 / (2 s^2)
    w_k        softmax over the K scores

with m the mean token that enters a slot, mu_k its mean over adapter k's images, and s^2 the pooled
variance around these.

Shapes: B batch, D width of the stream, K adapters.
"""

import torch
from torch import Tensor, nn

from cl_adapters.peft.router import ScoreRouter

__all__ = ["MyRouter"]


class Images(nn.Module):
    """Count, mean and summed squares around it of what an adapter was told."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        # Buffers, so that they are part of a checkpoint and move with the slot.
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("squares", torch.zeros(()))
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor

    def add(self, mean_tokens: Tensor) -> None:
        """Adds images, (B, D)."""
        rows = mean_tokens.float()
        mean, shares = rows.mean(dim=0), len(rows) / (self.count + len(rows))
        self.squares += (rows - mean).square().sum()
        self.squares += self.count * shares * (mean - self.mean).square().sum()
        self.mean += shares * (mean - self.mean)
        self.count += len(rows)


class MyRouter(ScoreRouter):
    """Compares the mean token that enters a slot with each adapter's mean."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        # Whatever a router keeps are modules, which become part of the slot.
        self.images = nn.ModuleList()

    def add_adapter(self, generator: torch.Generator) -> None:
        """Makes room for an adapter; what has weights would draw them from the generator.

        Weights that are trained with the adapter are returned by `newest_parameters`, and counted
        by `cost`.
        """
        del generator
        self.images.append(Images(self.embed_dim))

    def asks(self) -> bool:
        """Says that it wants to be told which images are of which adapter."""
        return True

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images, (B, D), to those of an adapter."""
        self.images[adapter].add(mean_tokens)  # type: ignore[operator] # a module of ours

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns the score of each adapter, (B, K)."""
        del count
        counts, squares, means = (
            torch.stack([each.get_buffer(name) for each in self.images])
            for name in ("count", "squares", "mean")
        )
        variance = (squares.sum() / (counts.sum() * self.embed_dim).clamp_min(1)).clamp_min(1e-12)
        distances = (mean_tokens.float()[:, None] - means).square().sum(dim=2)  # (B, K)
        # An adapter that was told of nothing takes what no other can have.
        return (-distances / (2 * variance)).masked_fill(counts == 0, -1e9)
