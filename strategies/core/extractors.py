"""Parts of a network, from images on, that stay as they are for a while."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ["PROBES", "AdapterFeatureExtractor", "FeatureExtractor", "extractor_digest"]

PROBES: Final = 2  # images that a digest is taken of


def _ignore(_: int) -> None:
    pass


@dataclass(frozen=True)
class FeatureExtractor:
    """A part of a network, from images on, that stays as it is for a while.

    Attributes:
        compute: From images (B, 3, S, S) to features (B, ...), on the network's device.
        namespace: Digest of all that decides about the features, the name of their place in a
            cache; empty if they are not to be kept on disk.
        device: Where features from disk are wanted; None leaves them on the CPU.
        row_bytes: Size of an image's features on disk.
        answered: Told how many images got their features without computing.
    """

    compute: Callable[[Tensor], Tensor]
    namespace: str = ""
    device: torch.device | None = None
    row_bytes: int = 0
    answered: Callable[[int], None] = _ignore


@dataclass(frozen=True)
class AdapterFeatureExtractor:
    """A frozen network under one of several adapter sets, of which each image asks for one.

    Attributes:
        compute: From images (B, 3, S, S) and the set of each (B,) to features (B, ...).
        namespace: As that of a `FeatureExtractor`.
        sets: Digest of each set.
        device: Where features from disk are wanted.
        answered: As that of a `FeatureExtractor`.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    namespace: str
    sets: Sequence[str]
    device: torch.device
    answered: Callable[[int], None] = _ignore


def extractor_digest(
    compute: Callable[[Tensor], Tensor], weights: Iterable[Tensor], shape: Sequence[int]
) -> tuple[str, int]:
    """Returns a digest of a frozen part, of its weights and what it makes of `PROBES` images.

    The images stand for what weights do not say: the number of heads, the precision, the machine's
    arithmetic. The second number is the size of an image's features in bytes.

    Args:
        compute: The part.
        weights: All that it computes with.
        shape: Shape (C, S, S) of an image.
    """
    found = hashlib.sha256()
    for value in weights:
        found.update(str(tuple(value.shape)).encode())
        found.update(_bytes(value))
    probes = torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = compute(probes)
    found.update(_bytes(rows))
    return found.hexdigest(), rows[0].nbytes


def _bytes(value: Tensor) -> memoryview:
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return plain.numpy().data
