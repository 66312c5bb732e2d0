"""PEFT modules of many blocks, and of many experiences, as stacked tensors.

`AdapterStack` is one set that is trained: a PEFT module in every block. `AdapterBank` holds the T
sets that experiences left behind and applies, in one pass, to each image the set that its index
names: for bottlenecks by two batched matrix products a block, whatever T is; for other PEFT modules
by one call for each set that a batch asks for.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, L blocks, T sets.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slot
from cl_adapters.peft.bottleneck import ACTIVATIONS, Bottleneck

__all__ = ["AdapterBank", "AdapterStack"]

_NAMES: Final = ("down", "down_bias", "up", "up_bias")


class AdapterStack(nn.Module):
    """One PEFT module a block, stacked.

    Args:
        modules: The PEFT module of each block, all of one kind and size; their weights are copied.
        slot: The slot that they fill.

    Attributes:
        down, down_bias, up, up_bias: (L, R, D), (L, R), (L, D, R), (L, D) for bottlenecks; each
            parameter of other PEFT modules with the blocks in front.
        noise: Source of what a bottleneck drops, on the parameters' device; None takes torch's
            global one.

    Raises:
        InputError: If a PEFT module keeps anything beside parameters, or none.

    Example:
        >>> seeded = torch.Generator().manual_seed(0)
        >>> stack = AdapterStack([Bottleneck(8, 4, generator=seeded) for _ in range(2)], "mlp")
        >>> stack.adapters().at("mlp", 1)(torch.ones(3, 5, 8)).abs().sum().item()
        0.0
    """

    def __init__(self, modules: Sequence[nn.Module], slot: Slot) -> None:
        super().__init__()
        self.form = _Form(modules[0], slot)
        self.noise: torch.Generator | None = None
        weights = [dict(module.named_parameters()) for module in modules]
        for key, name in self.form.keys.items():
            rows = torch.stack([each[name].detach() for each in weights])
            self.register_parameter(key, nn.Parameter(rows))

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the stacked tensors, blocks first."""
        return tuple(getattr(self, key) for key in self.form.keys)

    def adapters(self) -> AdapterSet:
        """Returns the adapters in the form that a backbone runs with."""
        dropout = self.form.dropout if self.training else 0.0
        self.form.module.train(self.training)
        return self.form.filled(self.tensors(), _drop(dropout, self.noise))


class AdapterBank(nn.Module):
    """T finished sets, in the order of their experiences; never trained.

    Args:
        stack: What a set looks like.

    Attributes:
        down, down_bias, up, up_bias: Those of a stack, with the sets in front of the blocks.
    """

    def __init__(self, stack: AdapterStack) -> None:
        super().__init__()
        self.form = copy.deepcopy(stack.form)  # of its own: this one stays in eval mode
        self.form.module.eval()
        for key, value in zip(self.form.keys, stack.tensors(), strict=True):
            self.register_buffer(key, torch.zeros(0, *value.shape))

    def __len__(self) -> int:
        return len(self.tensors()[0])

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the stacked tensors, sets first, blocks second."""
        return tuple(getattr(self, key) for key in self.form.keys)

    @torch.no_grad()
    def append(self, tensors: Sequence[Tensor]) -> None:
        """Adds a copy of a set.

        Args:
            tensors: As `AdapterStack.tensors` gives them.
        """
        for key, value in zip(self.form.keys, tensors, strict=True):
            setattr(self, key, torch.cat([getattr(self, key), value.detach()[None]]))

    def mean(self) -> list[Tensor]:
        """Returns the plain mean of all sets, blocks first."""
        return [value.mean(dim=0) for value in self.tensors()]

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
        lowest, highest = (
            (index, index) if isinstance(index, int) else map(int, torch.aminmax(index))
        )
        if lowest < 0 or highest >= len(self):
            raise InputError(
                f"adapter index must lie below the number of stored sets, {len(self)}, "
                f"got {lowest if lowest < 0 else highest}"
            )
        drop = _drop(dropout, noise)
        if isinstance(index, int):  # no copies, plain products
            return self.form.filled([value[index] for value in self.tensors()], drop)
        if self.form.is_bottleneck:
            by_block = [value.transpose(0, 1) for value in self.tensors()]
            return self.form.filled([[block[index] for block in value] for value in by_block], drop)
        asked = torch.unique(index).tolist()
        sets = [self.form.filled([value[each] for value in self.tensors()], None) for each in asked]
        return self.form.mixed(sets, [(index == each).nonzero()[:, 0] for each in asked])

    def distances(self) -> Tensor:
        """Returns the relative distance of every set from every other.

        Row i, column j holds ||A_j - A_i|| / ||A_i|| over all blocks and tensors; 0 where A_i is 0.

        Shape:
            Output: (T, T).
        """
        flat = torch.cat([value.flatten(1) for value in self.tensors()], dim=1).double()
        norms = flat.norm(dim=1, keepdim=True)
        # Products of what is left around the mean: sets that hardly differ lose no digits there,
        # and hundreds of sets take milliseconds.
        around = flat - flat.mean(dim=0)
        products = around @ around.T
        squares = products.diagonal()[:, None] + products.diagonal() - 2 * products
        apart = squares.clamp_min(0).sqrt().fill_diagonal_(0)
        return torch.where(norms > 0, apart / norms.clamp_min(1e-300), 0.0)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for key in self.form.keys:
            like = state[f"{prefix}{key}"]
            setattr(self, key, torch.zeros_like(like, device=getattr(self, key).device))
        super()._load_from_state_dict(state, prefix, *rest)


@dataclass(frozen=True)
class _Dropout:
    share: float
    noise: torch.Generator | None

    def __call__(self, hidden: Tensor) -> Tensor:
        # torch's own takes no generator.
        kept = torch.empty_like(hidden).bernoulli_(1 - self.share, generator=self.noise)
        return hidden * kept / (1 - self.share)


def _drop(share: float, noise: torch.Generator | None) -> _Dropout | None:
    return _Dropout(share, noise) if share else None


class _Form:
    """What the PEFT modules of all blocks and sets have in common: everything but their weights.

    Attributes:
        module: One of them; its own weights are never used.
        slot: The slot that it fills.
        keys: Names of its parameters, by the names under which a stack holds them.
    """

    def __init__(self, module: nn.Module, slot: Slot) -> None:
        self.module, self.slot = copy.deepcopy(module).requires_grad_(requires_grad=False), slot
        self.keys = {_key(name): name for name, _ in module.named_parameters()}
        surplus = [*module.state_dict().keys() - self.keys.values()]
        if surplus or not self.keys:
            raise InputError(
                "a PEFT module whose sets are stored must keep what it learns in parameters alone, "
                "got " + (f"the buffer {min(surplus)!r}" if surplus else "no parameter")
            )

    @property
    def is_bottleneck(self) -> bool:
        return type(self.module) is Bottleneck

    @property
    def dropout(self) -> float:
        return self.module.dropout if isinstance(self.module, Bottleneck) else 0.0

    def filled(
        self, by_name: Sequence[Sequence[Tensor] | Tensor], drop: _Dropout | None
    ) -> AdapterSet:
        """Returns the PEFT modules with weights: for each parameter those of all blocks."""
        modules: dict[tuple[Slot, int], nn.Module] = {}
        self.module.to(by_name[0][0].device)
        for block, tensors in enumerate(zip(*by_name, strict=True)):
            if isinstance(self.module, Bottleneck) and self.is_bottleneck:
                modules[self.slot, block] = _Given(self.module, tensors, drop)
            else:
                weights = dict(zip(self.keys.values(), tensors, strict=True))
                modules[self.slot, block] = _Called(self.module, weights)
        return AdapterSet(modules)

    def mixed(self, sets: Sequence[AdapterSet], rows: Sequence[Tensor]) -> AdapterSet:
        """Returns PEFT modules that give some rows of a batch to each of some sets."""
        return AdapterSet({key: _Mixed([each.at(*key) for each in sets], rows) for key in sets[0]})


def _key(name: str) -> str:
    # Apart from the bottleneck's, so that a stranger's name meets none of a module's own.
    return name if name in _NAMES else f"peft-{name.replace('.', '-')}"


class _Given(nn.Module):
    """A bottleneck with weights from elsewhere: one for all images, or one an image."""

    def __init__(self, like: Bottleneck, tensors: Sequence[Tensor], drop: _Dropout | None) -> None:
        super().__init__()
        self._tensors, self._drop = tensors, drop
        self._activation = ACTIVATIONS[like.activation]
        self._scale = like.scale  # a number of the CPU where it is not learned

    def forward(self, inputs: Tensor) -> Tensor:
        down, down_bias, up, up_bias, *learned = self._tensors
        is_one = down.ndim == 2
        if is_one:
            hidden = functional.linear(inputs, down, down_bias)
        else:
            hidden = inputs @ down.transpose(1, 2) + down_bias[:, None]
        hidden = self._activation(hidden)
        hidden = hidden if self._drop is None else self._drop(hidden)
        scale = learned[0].reshape(-1, 1, 1) if learned else self._scale
        if is_one:
            return functional.linear(hidden, up, up_bias) * scale
        return (hidden @ up.transpose(1, 2) + up_bias[:, None]) * scale


class _Called(nn.Module):
    """Any other PEFT module with weights from elsewhere."""

    def __init__(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._call = (module, weights)  # in a tuple: no submodule

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = functional_call(*self._call, inputs)
        return result


class _Mixed(nn.Module):
    """PEFT modules that share the images of a batch."""

    def __init__(self, modules: Sequence[nn.Module | None], rows: Sequence[Tensor]) -> None:
        super().__init__()
        self._modules_and_rows = [
            (module, each) for module, each in zip(modules, rows, strict=True) if module is not None
        ]
        self._order = torch.cat(list(rows)).argsort()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        parts = []
        for module, rows in self._modules_and_rows:
            found = module(*(each[rows] for each in inputs))
            several = found if isinstance(found, tuple) else (found,)
            # A prefix takes no images, so its output has no dimension for them.
            parts.append(several if inputs else [x.expand(len(rows), *x.shape) for x in several])
        whole = tuple(torch.cat(each)[self._order] for each in zip(*parts, strict=True))
        return whole if len(whole) > 1 else whole[0]
