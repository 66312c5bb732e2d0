"""Prompts: learned tokens and prefixes that are chosen image by image.

References: Zifeng Wang, Zizhao Zhang, Chen-Yu Lee, Han Zhang, Ruoxi Sun, Xiaoqi Ren, Guolong Su,
Vincent Perot, Jennifer Dy, Tomas Pfister, "Learning to Prompt for Continual Learning", CVPR 2022,
arXiv:2112.08654; the same and Sayna Ebrahimi, "DualPrompt", ECCV 2022, arXiv:2204.04799.

Shapes: B batch, M prompts, K chosen ones an image, L tokens of a prompt, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slots

__all__ = [
    "RANGES",
    "ChosenPrefix",
    "ChosenTokens",
    "Init",
    "Pairing",
    "PrefixPool",
    "Selection",
    "chosen_by",
    "cosines",
    "nearest",
    "paired",
    "pull",
    "voted",
]

Init = Literal["jax", "port"]
Pairing = Literal["key_value", "port"]
Selection = Literal["image", "batch"]
# Of uniform initial numbers: the JAX original's, and those of the port to PyTorch.
RANGES: Final[dict[Init, tuple[float, float]]] = {"jax": (0.0, 0.01), "port": (-1.0, 1.0)}


@dataclass(frozen=True, eq=False)
class ChosenTokens:
    """Tokens for the slot `tokens`: of each image its own, kept through all blocks.

    Attributes:
        rows: (B, L, D), or (L, D) for all images.
        place: Where they go, see `cl_adapters.peft.adapter_set`.
        position: Whose position vector they get.
    """

    rows: Tensor
    place: str = "front"
    position: str = "none"
    is_kept: bool = True

    def __call__(self) -> Tensor:
        """Returns the tokens."""
        return self.rows


@dataclass(frozen=True, eq=False)
class ChosenPrefix:
    """A prefix for the slot `prefix`: of each image its own, in one softmax with all positions.

    Attributes:
        keys, values: (B, L, D), or (L, D) for all images.
    """

    keys: Tensor
    values: Tensor
    renormalise: bool = False

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Returns the keys and the values."""
        return self.keys, self.values


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """Returns the cosine of each query and each key.

    Shape:
        queries: (B, D). keys: (M, D). Output: (B, M), float32.

    Example:
        >>> keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> [round(value, 4) for value in cosines(torch.tensor([[3.0, 4.0]]), keys)[0].tolist()]
        [0.6, 0.8, 0.9899]
    """
    rows = functional.normalize(queries.float(), dim=1)
    with torch.autocast(queries.device.type, enabled=False):  # half precision would tie
        return rows @ functional.normalize(keys.float(), dim=1).T


def nearest(similarity: Tensor, count: int) -> Tensor:
    """Returns the prompts whose keys are nearest, the nearest first, for each image by itself.

    Shape:
        similarity: (B, M). Output: (B, K).

    Raises:
        InputError: If there are fewer prompts.
    """
    if count > similarity.shape[1]:
        raise InputError(
            f"no more prompts may be chosen than there are, {similarity.shape[1]}, got {count}"
        )
    return similarity.topk(count, dim=1).indices


def voted(chosen: Tensor, pool: int) -> Tensor:
    """Returns for every image the prompts that most images of the batch have chosen.

    The answer for an image then depends on the other images: this is how L2P was published, and
    what a test batch of one class tells. Of equally many votes the smaller number comes first.

    Args:
        chosen: (B, K), the choice of each image by itself.
        pool: M.

    Shape:
        Output: (B, K), all rows alike.

    Example:
        >>> voted(torch.tensor([[0, 1], [0, 2], [0, 2], [1, 2]]), 3)[0].tolist()
        [0, 2]
    """
    votes = torch.bincount(chosen.flatten(), minlength=pool)
    most = torch.argsort(votes, descending=True, stable=True)[: chosen.shape[1]]
    return most.expand(len(chosen), -1)


def chosen_by(similarity: Tensor, count: int, selection: Selection) -> Tensor:
    """Returns the prompts of each image: `nearest` by image, `voted` by batch.

    Shape:
        similarity: (B, M). Output: (B, K).
    """
    chosen = nearest(similarity, count)
    return chosen if selection == "image" else voted(chosen, similarity.shape[1])


def pull(similarity: Tensor, chosen: Tensor) -> Tensor:
    """Returns how near the keys of the chosen prompts lie to the queries, on average a batch.

    Shape:
        similarity: (B, M), cosines. chosen: (B, K). Output: scalar, from -K to K.
    """
    return similarity.gather(1, chosen).sum(dim=1).mean()


def paired(prompts: Tensor, pairing: Pairing) -> Tensor:
    """Returns which of the prompts each image has as keys and which as values.

    Args:
        prompts: (B, 2, L, D), keys and values of the prompt of each image.
        pairing: `port` does what the port of DualPrompt to PyTorch does, and codes made from it: it
            reads (2, B) as (B, 2), so that images get keys as values, and each other's prompts.

    Shape:
        Output: (B, 2, L, D).
    """
    if pairing == "key_value":
        return prompts
    return prompts.transpose(0, 1).reshape(prompts.shape)


class PrefixPool(nn.Module):
    """Prefixes for some blocks, which grow by one entry at a time.

    Args:
        blocks: The blocks.
        length: L, positions of an entry in a block.
        embed_dim: D.
        init: Range of the initial numbers.

    Attributes:
        entries: Parameters (blocks, 2, L, D): keys and values.
    """

    def __init__(self, blocks: Sequence[int], length: int, embed_dim: int, init: Init) -> None:
        super().__init__()
        self.blocks, self.init = tuple(blocks), init
        self._shape = (len(self.blocks), 2, length, embed_dim)
        self.entries = nn.ParameterList()

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, generator: torch.Generator) -> None:
        """Adds an entry, drawn from a generator on the CPU."""
        low, high = RANGES[self.init]
        entry = torch.empty(self._shape).uniform_(low, high, generator=generator)
        self.entries.append(nn.Parameter(entry))

    @torch.no_grad()
    def copy_from_last(self, entry: int) -> None:
        """Starts an entry as the one before it; the first stays as it is."""
        if entry > 0:
            self.entries[entry].copy_(self.entries[entry - 1])

    def train_only(self, entry: int) -> None:
        """Lets one entry be trained and leaves the others as they are."""
        for number, value in enumerate(self.entries):
            value.requires_grad_(requires_grad=number == entry)

    def mixed(self, entry: int, share: float) -> Tensor:
        """Returns an entry with a share of the mean of those before it: (blocks, 2, L, D).

        Gradients reach the entry alone; the first has none before it.
        """
        own: Tensor = self.entries[entry]
        if entry == 0:
            return own
        earlier = torch.stack(list(self.entries[:entry])).mean(dim=0).detach()
        mixed: Tensor = (1 - share) * own + share * earlier
        return mixed

    def chosen(self, entries: Tensor, latest: Tensor | None = None) -> Tensor:
        """Returns the entries of images: (B, blocks, 2, L, D) of (B,).

        Args:
            entries: Which of each image.
            latest: What stands in for the last entry, (blocks, 2, L, D); None: it itself.
        """
        rows: list[Tensor] = list(self.entries)
        return torch.stack(rows if latest is None else [*rows[:-1], latest])[entries]

    def places(
        self, prompts: Tensor, pairing: Pairing = "key_value"
    ) -> Iterator[tuple[tuple[Slots, int], Callable[..., Any]]]:
        """Yields what fills the slots of the blocks, for an `AdapterSet`.

        Args:
            prompts: (B, blocks, 2, L, D), or (blocks, 2, L, D) for all images.
            pairing: See `paired`; for prompts by image alone.
        """
        for row, block in enumerate(self.blocks):
            both = prompts[..., row, :, :, :]
            keys, values = (paired(both, pairing) if both.ndim == 4 else both).unbind(-3)
            yield ("prefix", block), ChosenPrefix(keys, values)
