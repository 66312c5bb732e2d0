"""The T sets of PEFT modules that experiences left behind, as stacked tensors.

`AdapterBank` applies, in one pass, to each image the set that its index names: for bottlenecks by
two batched matrix products a block, whatever T is; for other PEFT modules by one call for each set
that a batch asks for.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, L blocks, T sets.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import repeat

import torch
from torch import Tensor

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.peft.template import Drop

__all__ = ["AdapterBank", "AdapterStack"]


class AdapterBank(GrowingBuffers):
    """T finished sets, in the order of their experiences; never trained.

    Args:
        stack: What a set looks like.

    Attributes:
        down, down_bias, up, up_bias: Those of a stack, with the sets in front of the blocks.
    """

    grows_by_learning = True

    def __init__(self, stack: AdapterStack) -> None:
        super().__init__()
        self.template = copy.deepcopy(stack.template)  # of its own: this one stays in eval mode
        self.template.module.eval()
        for key, value in self._kept(stack.tensors()).items():
            self.register_buffer(key, torch.zeros(0, *value.shape, dtype=value.dtype))

    def __len__(self) -> int:
        return len(next(self.buffers(recurse=False)))

    def _kept(self, tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Returns what is kept of a set, by the names of buffers."""
        return dict(zip(self.template.keys, (value.detach() for value in tensors), strict=True))

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the stacked tensors, sets first, blocks second."""
        return tuple(map(getattr, repeat(self), self.template.keys))

    @torch.no_grad()
    def append(self, tensors: Sequence[Tensor]) -> None:
        """Adds a copy of a set.

        Args:
            tensors: As `AdapterStack.tensors` gives them.
        """
        for key, value in self._kept(tensors).items():
            setattr(self, key, torch.cat([getattr(self, key), value[None]]))

    @torch.no_grad()
    def cut(self, count: int) -> None:
        """Forgets all sets but the first `count`."""
        for key, value in [*self.named_buffers(recurse=False)]:
            setattr(self, key, value[:count].clone())

    def at(self, index: int) -> list[Tensor]:
        """Returns the tensors of one set, blocks first: what is written into them stays."""
        return [value[index] for value in self.tensors()]

    def _asked(self, index: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Returns the tensors of sets, sets first, and the place of each image's among them."""
        return self.tensors(), index

    @torch.no_grad()
    def replace(self, index: int, tensors: Sequence[Tensor]) -> None:
        """Puts a copy of a set in another's place; whoever holds that one keeps it as it is.

        Args:
            index: Of the other, counted from 0.
            tensors: As `AdapterStack.tensors` gives them.
        """
        for key, value in self._kept(tensors).items():
            held = getattr(self, key).clone()
            held[index] = value
            setattr(self, key, held)

    def mean(self, sets: Sequence[int] | None = None) -> list[Tensor]:
        """Returns the plain mean of sets, blocks first; of whole numbers those of the last.

        Args:
            sets: Which, at least one; None for all.
        """
        held = self.tensors() if sets is None else [value[list(sets)] for value in self.tensors()]
        return [value.mean(dim=0) if value.is_floating_point() else value[-1] for value in held]

    def choose(
        self, index: Tensor | int, *, dropout: float = 0.0, noise: torch.Generator | None = None
    ) -> AdapterSet:
        """Returns adapters that give every image of a batch the set of its index.

        An image gets the same numbers, bit for bit, whatever sets the others of its batch get.

        Args:
            index: (B,) of numbers below T, or one for all images.
            dropout: Share of a bottleneck's middle that is dropped.
            noise: Source of what is dropped.

        Raises:
            InputError: If there is no such set.
        """
        drop = Drop(dropout, noise)
        self._check(index, len(self))
        if isinstance(index, int):  # no copies, plain products
            return self.template.filled(self._set(index), drop)
        if self.template.is_bottleneck:
            tensors, places = self._asked(index)
            by_block = [[block[places] for block in value.unbind(1)] for value in tensors]
            return self.template.filled([*zip(*by_block, strict=True)], drop)
        asked = torch.unique(index).tolist()
        rows = [(index == each).nonzero()[:, 0] for each in asked]
        return self.template.per_sample([self._set(each) for each in asked], rows)

    def _check(self, index: Tensor | int, count: int) -> None:
        if torch.compiler.is_compiling():  # a graph that is being made holds no numbers yet
            return
        lowest, highest = (
            (index, index) if isinstance(index, int) else map(int, torch.aminmax(index))
        )
        if lowest < 0 or highest >= count:
            raise InputError(
                f"adapter index must lie below the number of stored sets, {count}, "
                f"got {lowest if lowest < 0 else highest}"
            )

    def _set(self, index: int) -> list[tuple[Tensor, ...]]:
        # By block. A call must not change a stored set: where a module has buffers it gets copies.
        pairs = zip(self.template.keys, self.at(index), strict=True)
        rows = [value.clone() if key in self.template.buffers else value for key, value in pairs]
        return [*zip(*rows, strict=True)]

    def distances(self) -> Tensor:
        """Returns the relative distance of every set from every other.

        Row i, column j holds ||A_j - A_i|| / ||A_i|| over the parameters of all blocks; 0 where
        A_i is 0.

        Shape:
            Output: (T, T).
        """
        learned = self.tensors()[: len(self.template.parameters)]
        flat = torch.cat([value.flatten(1) for value in learned], dim=1).double()
        norms = flat.norm(dim=1, keepdim=True)
        # Products of what is left around the mean: sets that hardly differ lose no digits there,
        # and hundreds of sets take milliseconds.
        around = flat - flat.mean(dim=0)
        products = around @ around.T
        squares = products.diagonal()[:, None] + products.diagonal() - 2 * products
        apart = squares.clamp_min(0).sqrt().fill_diagonal_(0)
        return torch.where(norms > 0, apart / norms.clamp_min(1e-300), 0.0)
