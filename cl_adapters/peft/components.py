"""Components of prompts that are weighed by attention: CODA-Prompt's.

Reference: James Seale Smith, Leonid Karlinsky, Vyshnavi Gutta, Paola Cascante-Bonilla, Donghyun
Kim, Assaf Arbelle, Rameswar Panda, Rogerio Feris, Zsolt Kira, "CODA-Prompt: COntinual Decomposed
Attention-based Prompting for Rehearsal-Free Continual Learning", CVPR 2023, arXiv:2211.13218.

Shapes: B batch, G blocks, M components, N new ones, L tokens (keys and values together), D width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError

__all__ = ["ComponentPool", "Start", "apart", "attention_weights", "new_rows"]

Start = Literal["classical", "qr"]
_TINY = 1e-8  # squared length of a row that names no direction


def attention_weights(queries: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
    """Returns the cosine of each attended query q * a_m with its key k_m: no softmax, any sign.

    Shape:
        queries: (B, D). attention, keys: (M, D). Output: (B, M), float32.

    Example:
        >>> queries, keys = torch.tensor([[1.0, 2.0]]), torch.eye(2)
        >>> weights = attention_weights(queries, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), keys)
        >>> [round(value, 4) for value in weights[0].tolist()]
        [1.0, 0.8944]
    """
    with torch.autocast(queries.device.type, enabled=False):
        rows = functional.normalize(queries.float(), dim=1)
        dots = rows @ (attention * functional.normalize(keys, dim=1)).T
        lengths = rows.square() @ attention.square().T
    return dots / lengths.clamp_min(torch.finfo(lengths.dtype).tiny).sqrt()


def apart(rows: Tensor) -> Tensor:
    """Returns the penalty on rows that are not orthonormal: mean squared entry of M M' - I.

    Shape:
        rows: (M, D). Output: scalar.

    Example:
        >>> apart(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item()
        0.75
    """
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean()


def new_rows(earlier: Tensor, count: int, start: Start, generator: torch.Generator) -> Tensor:
    """Returns new rows of length 1 that begin apart from the earlier ones.

    Args:
        earlier: (M, D).
        count: N.
        start: `classical` takes off what a draw has along each earlier row, every product taken of
            the draw itself, as the authors do: orthogonal to rows that are so among themselves.
            `qr` is orthogonal to all earlier rows and the new ones. Rows for which there is no
            direction left, D being used up, are as they are drawn.
        generator: Source of randomness, on the CPU.

    Shape:
        Output: (N, D), float32.
    """
    known = earlier.detach().double().cpu()
    drawn = torch.randn(count, known.shape[1], generator=generator, dtype=torch.float64)
    if start == "qr":
        left = max(0, min(count, known.shape[1] - len(known)))
        basis = torch.linalg.qr(torch.cat([known, drawn[:left]]).T).Q.T
        drawn[:left] = basis[len(known) : len(known) + left]
    else:
        for index in range(count):
            others = torch.cat([known, drawn[:index]])
            squares = others.square().sum(dim=1)
            others = others[squares > _TINY] / squares[squares > _TINY].sqrt()[:, None]
            rest = drawn[index] - (others @ drawn[index]) @ others
            if rest.square().sum() > _TINY * drawn[index].square().sum():
                drawn[index] = rest
    return functional.normalize(drawn, dim=1).float()


class ComponentPool(nn.Module):
    """Components for some blocks, which grow experience by experience.

    Args:
        blocks: G.
        length: L.
        embed_dim: D.
        start: How new components begin.

    Attributes:
        keys, attention, prompts: A parameter an experience each, (G, N, D), (G, N, D) and
            (G, N, L * D).
    """

    def __init__(self, blocks: int, length: int, embed_dim: int, start: Start) -> None:
        super().__init__()
        self.start = start
        self._widths = {"keys": embed_dim, "attention": embed_dim, "prompts": length * embed_dim}
        self._blocks, self._length = blocks, length
        self.keys, self.attention, self.prompts = (nn.ParameterList() for _ in range(3))

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, count: int, generator: torch.Generator) -> None:
        """Adds components, which alone are trained from now on."""
        self.requires_grad_(requires_grad=False)
        is_first = not len(self)
        for name, width in self._widths.items():
            known = torch.zeros(self._blocks, 0, width) if is_first else self.joined(name)
            rows = [new_rows(each, count, self.start, generator) for each in known]
            getattr(self, name).append(nn.Parameter(torch.stack(rows).to(known.device)))

    def make_room(self, counts: list[int]) -> None:
        """Makes room for what a checkpoint holds: so many components of each experience."""
        for count in counts[len(self) :]:
            for name, width in self._widths.items():
                getattr(self, name).append(nn.Parameter(torch.zeros(self._blocks, count, width)))

    def joined(self, name: str) -> Tensor:
        """Returns `keys`, `attention` or `prompts` of all experiences: (G, M, ...)."""
        return torch.cat(list(getattr(self, name)), dim=1)

    def mixed(self, queries: Tensor) -> Tensor:
        """Returns a prompt for each image and block: (B, G, L, D) of queries (B, D)."""
        if not len(self):
            raise InputError("components must be there before they are mixed, got none")
        found = []
        for keys, attention, prompts in zip(*map(self.joined, self._widths), strict=True):
            weights = attention_weights(queries, attention, keys)
            found.append((weights @ prompts).unflatten(1, (self._length, -1)))
        return torch.stack(found, dim=1)

    def penalty(self) -> Tensor:
        """Returns the sum of `apart` over blocks, keys, attention and prompts."""
        rows = [each for name in self._widths for each in self.joined(name)]
        return torch.stack(list(map(apart, rows))).sum()
