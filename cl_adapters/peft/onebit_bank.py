"""Stored sets of PEFT modules at one bit a number.

Each parameter of a block keeps a bit an entry, whether it is above the mean, and two numbers: mean
and deviation. What is applied, averaged and compared is made of these alone. Buffers, and
parameters that would take no fewer bytes, stay as they are.

Reference: Shibo Jie, Haoqing Wang, Zhi-Hong Deng, "Revisiting the Parameter Efficiency of Adapters
from the Perspective of Precision Redundancy", ICCV 2023, arXiv:2307.16867. They train with the
rounded weights, as the PEFT module `onebit` does; here sets are rounded once they are finished.
So the two values of a matrix are not theirs, 0.67 deviations from its mean, but those that keep
mean and deviation: a set that is stored again, as one that is continued, does not shrink each time,
and `onebit`, which rounds once more, finds its own weights.

Shapes: T sets, L blocks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.onebit import pack, unpack_codes

__all__ = ["OneBitBank", "restored"]

_BITS, _MOMENTS = "_bits", "_moments"


def restored(packed: Tensor, moments: Tensor, count: int) -> Tensor:
    """Returns two values in place of bits, with a mean and a deviation.

    Shape:
        packed: (..., bytes) as `pack` gives them. moments: (..., 2). Output: (..., count).

    Example:
        >>> found = restored(*pack(torch.tensor([0.1, 0.3, -0.2, 0.6])), 4)
        >>> [round(value, 3) for value in found.tolist()]
        [-0.092, 0.492, -0.092, 0.492]
    """
    codes = unpack_codes(packed, count)
    above = codes.sum(dim=-1, keepdim=True).to(moments.dtype)
    mean, spread = moments[..., :1], moments[..., 1:] * math.sqrt((count - 1) / count)
    odds = (above / (count - above)).sqrt()  # 0 where all are equal, and no entry is above
    return torch.where(codes > 0, mean + spread / odds, mean - spread * odds)


class OneBitBank(AdapterBank):
    """T finished sets at one bit a number; never trained.

    A tensor `up` of a stack is kept as two:

        up_bits      (T, L, bytes) uint8, eight entries in a byte
        up_moments   (T, L, 2), mean and deviation of each block's

    Args:
        stack: What a set looks like.
    """

    def _packed_shape(self, key: str) -> torch.Size | None:
        """Returns the shape of a block's tensor; None where it is kept as it is."""
        if key not in self.template.parameters:
            return None
        value = self.template.module.get_parameter(self.template.parameters[key])
        in_bits = -(-value.numel() // 8) + 2 * value.itemsize
        is_shorter = value.is_floating_point() and in_bits < value.nbytes
        return value.shape if is_shorter else None

    def _kept(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        found = {}
        for key, value in super()._kept(tensors).items():
            if self._packed_shape(key) is None:
                found[key] = value
                continue
            blocks = [pack(each) for each in value]
            found[key + _BITS] = torch.stack([bits for bits, _ in blocks])
            found[key + _MOMENTS] = torch.stack([moments for _, moments in blocks])
        return found

    def tensors(self, sets: Sequence[int] | Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns the tensors of some sets, or of all, sets first: written into, nothing stays."""
        return tuple(self._unpacked(key, sets) for key in self.template.keys)

    def _unpacked(self, key: str, sets: Sequence[int] | Tensor | None) -> Tensor:
        def rows(name: str) -> Tensor:
            held: Tensor = getattr(self, name)
            return held if sets is None else held[sets]

        shape = self._packed_shape(key)
        if shape is None:
            return rows(key)
        found = restored(rows(key + _BITS), rows(key + _MOMENTS), shape.numel())
        return found.view(*found.shape[:-1], *shape)

    def at(self, index: int) -> list[Tensor]:
        """Returns the tensors of one set, blocks first: written into, nothing stays."""
        return [value[0] for value in self.tensors([index])]

    def _asked(self, index: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        if torch.compiler.is_compiling():  # how many sets are asked is not known yet
            return self.tensors(), index
        asked, places = torch.unique(index, return_inverse=True)
        return self.tensors(asked), places

    def surplus_numbers(self) -> int:
        """Returns how many numbers more the bits stand for than the bytes that hold them."""
        surplus = 0
        for key in self.template.keys:
            shape = self._packed_shape(key)
            if shape is not None:
                held: Tensor = getattr(self, key + _BITS)
                surplus += held.shape[0] * held.shape[1] * shape.numel() - held.numel()
        return surplus
