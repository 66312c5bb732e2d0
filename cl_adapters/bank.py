"""Bottleneck adapters of many blocks, and of many experiences, as stacked tensors.

`AdapterStack` is one set that is trained: an adapter beside the MLP of every block. `AdapterBank`
holds the T sets that experiences left behind and applies, in one pass, to each image the set that
its index names: per block two batched matrix products, whatever T is.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, L blocks, T sets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.adapters import AdapterSet, Bottleneck
from cl_adapters.errors import InputError

__all__ = ["AdapterBank", "AdapterStack"]

_NAMES: Final = ("down", "down_bias", "up", "up_bias")


class AdapterStack(nn.Module):
    """One ReLU bottleneck adapter a block: s * (W_up dropout(relu(W_down x + b_down)) + b_up).

    Args:
        num_blocks: L.
        embed_dim: D.
        width: R.
        scale: Fixed factor s (0.1 in MOS).
        dropout: Share of the middle dropped in train mode (0.1 in MOS).
        generator: Source of the initial weights; the output starts at exactly zero.

    Attributes:
        down, down_bias, up, up_bias: (L, R, D), (L, R), (L, D, R), (L, D).
        noise: Source of what is dropped, on the parameters' device; None takes torch's global one.

    Example:
        >>> seeded = torch.Generator().manual_seed(0)
        >>> stack = AdapterStack(2, 8, 4, scale=0.1, dropout=0.1, generator=seeded)
        >>> stack.adapters().at("mlp", 1)(torch.ones(3, 5, 8)).abs().sum().item()
        0.0
    """

    def __init__(
        self,
        num_blocks: int,
        embed_dim: int,
        width: int,
        *,
        scale: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        fresh = [
            Bottleneck(embed_dim, width, activation="relu", dropout=dropout, generator=generator)
            for _ in range(num_blocks)
        ]
        for name in _NAMES:
            rows = [getattr(adapter, name).detach() for adapter in fresh]
            setattr(self, name, nn.Parameter(torch.stack(rows)))
        self.scale, self.dropout = scale, dropout
        self.noise: torch.Generator | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the four stacked tensors, blocks first."""
        return tuple(getattr(self, name) for name in _NAMES)

    def adapters(self) -> AdapterSet:
        """Returns the adapters in the form that a backbone runs with."""
        drop = _Dropout(self.dropout, self.noise) if self.training and self.dropout else None
        return _as_set([value.unbind(0) for value in self.tensors()], self.scale, drop)


class AdapterBank(nn.Module):
    """T finished adapter sets, in the order of their experiences; never trained.

    Args:
        num_blocks: L.
        embed_dim: D.
        width: R.
        scale: Fixed factor of every adapter.

    Attributes:
        down, down_bias, up, up_bias: (T, L, R, D), (T, L, R), (T, L, D, R), (T, L, D).
    """

    def __init__(self, num_blocks: int, embed_dim: int, width: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        shapes = ((width, embed_dim), (width,), (embed_dim, width), (embed_dim,))
        for name, shape in zip(_NAMES, shapes, strict=True):
            self.register_buffer(name, torch.zeros(0, num_blocks, *shape))

    def __len__(self) -> int:
        return len(self.tensors()[0])

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the four stacked tensors, sets first, blocks second."""
        return tuple(getattr(self, name) for name in _NAMES)

    @torch.no_grad()
    def append(self, tensors: Sequence[Tensor]) -> None:
        """Adds a copy of a set.

        Args:
            tensors: As `AdapterStack.tensors` gives them.
        """
        for name, value in zip(_NAMES, tensors, strict=True):
            setattr(self, name, torch.cat([getattr(self, name), value.detach()[None]]))

    def mean(self) -> list[Tensor]:
        """Returns the plain mean of all sets, blocks first."""
        return [value.mean(dim=0) for value in self.tensors()]

    def choose(
        self, index: Tensor | int, *, dropout: float = 0.0, noise: torch.Generator | None = None
    ) -> AdapterSet:
        """Returns adapters that give every image of a batch the set of its index.

        Args:
            index: (B,) of numbers below T, or one for all images.
            dropout: Share of the middle that is dropped.
            noise: Source of what is dropped.

        Raises:
            InputError: If there is no such set.
        """
        lowest, highest = (
            (index, index) if isinstance(index, int) else map(int, torch.aminmax(index))
        )
        if lowest < 0 or highest >= len(self):
            raise InputError(
                f"adapter index must lie below the number of stored sets, {len(self)}, "
                f"got {lowest if lowest < 0 else highest}"
            )
        drop = _Dropout(dropout, noise) if dropout else None
        if lowest == highest:  # one set for all: no copies, plain products
            return _as_set([value[lowest].unbind(0) for value in self.tensors()], self.scale, drop)
        rows = [value.transpose(0, 1) for value in self.tensors()]
        return _as_set([[block[index] for block in value] for value in rows], self.scale, drop)

    def distances(self) -> Tensor:
        """Returns the relative distance of every set from every other.

        Row i, column j holds ||A_j - A_i|| / ||A_i|| over all blocks and tensors; 0 where A_i is 0.

        Shape:
            Output: (T, T).
        """
        flat = torch.cat([value.flatten(1) for value in self.tensors()], dim=1).double()
        norms = flat.norm(dim=1, keepdim=True)
        apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.where(norms > 0, apart / norms.clamp_min(1e-300), 0.0)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name in _NAMES:
            like = state[f"{prefix}{name}"]
            setattr(self, name, torch.zeros_like(like, device=getattr(self, name).device))
        super()._load_from_state_dict(state, prefix, *rest)


@dataclass(frozen=True)
class _Dropout:
    share: float
    noise: torch.Generator | None

    def __call__(self, hidden: Tensor) -> Tensor:
        # torch's own takes no generator.
        kept = torch.empty_like(hidden).bernoulli_(1 - self.share, generator=self.noise)
        return hidden * kept / (1 - self.share)


class _Given(nn.Module):
    """A bottleneck with weights from elsewhere: one for all images, or one an image."""

    def __init__(self, tensors: Sequence[Tensor], scale: float, drop: _Dropout | None) -> None:
        super().__init__()
        self._tensors, self._scale, self._drop = tensors, scale, drop

    def forward(self, inputs: Tensor) -> Tensor:
        down, down_bias, up, up_bias = self._tensors
        if down.ndim == 2:
            hidden = functional.linear(inputs, down, down_bias)
        else:
            hidden = inputs @ down.transpose(1, 2) + down_bias[:, None]
        hidden = functional.relu(hidden)
        hidden = hidden if self._drop is None else self._drop(hidden)
        if up.ndim == 2:
            return functional.linear(hidden, up, up_bias) * self._scale
        return (hidden @ up.transpose(1, 2) + up_bias[:, None]) * self._scale


def _as_set(by_name: Sequence[Sequence[Tensor]], scale: float, drop: _Dropout | None) -> AdapterSet:
    blocks: Iterator[tuple[Tensor, ...]] = zip(*by_name, strict=True)
    return AdapterSet(
        {("mlp", block): _Given(tensors, scale, drop) for block, tensors in enumerate(blocks)}
    )
