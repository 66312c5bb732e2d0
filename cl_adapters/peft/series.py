"""Series adapters: a bottleneck behind a layer, which reads what the layer gave.

Reference: Neil Houlsby, Andrei Giurgiu, Stanislaw Jastrzebski, Bruna Morrone, Quentin de
Laroussilhe, Andrea Gesmundo, Mona Attariyan, Sylvain Gelly, "Parameter-Efficient Transfer Learning
for NLP", ICML 2019, arXiv:1902.00751, behind attention and MLP; in the form of Zhiqiang Hu, Lei
Wang, Yihuai Lan, Wanyu Xu, Ee-Peng Lim, Lidong Bing, Xing Xu, Soujanya Poria, Roy Ka-Wei Lee,
"LLM-Adapters: An Adapter Family for Parameter-Efficient Fine-Tuning of Large Language Models",
EMNLP 2023, arXiv:2304.01933. Behind the MLP alone it is the place of Jonas Pfeiffer et al.,
"AdapterFusion", EACL 2021, arXiv:2005.00247.

What differs from the code of LLM-Adapters: U starts at zero, its other choice (`start="official"`
draws both matrices from a normal of 0.02, its default); the middle is as wide as is asked for, 256
there; LayerScale, where a network has it, comes after the adapter.

Parameters a block, D width of the stream, R of the middle: 4 D R; 49,152 at D = 768 and R = 16,
half of that behind the MLP alone.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive, unknown_name
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.noise import draws
from cl_adapters.peft.noise import dropout as dropped

__all__ = ["Nonlinearity", "Series"]

Nonlinearity = Literal["tanh", "relu", "gelu", "none"]
_BETWEEN: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "none": lambda hidden: hidden,
}


class Series(nn.Module):
    """An update s U f(E Dropout(y)) of layers whose output y is D wide, without biases.

    For the slots `proj` and `fc2`, or one of them.

    Args:
        embed_dim: D, width of what the layers give.
        width: R, width of the middle; positive.
        places: The slots, each with matrices of its own.
        nonlinearity: f.
        scale: s.
        dropout: Share of y dropped in training, in [0, 1).
        start: U at zero, or `official`.
        generator: Source of the initial weights.

    Attributes:
        down, up: E and U, by slot.
        noise: Source of what is dropped; None takes torch's global one.

    Raises:
        InputError: If the width is not positive, f unknown, or the dropout outside its range.
    """

    def __init__(  # noqa: PLR0913 - options of the published code
        self,
        embed_dim: int,
        width: int,
        *,
        places: tuple[str, ...] = ("proj", "fc2"),
        nonlinearity: Nonlinearity = "tanh",
        scale: float = 1.0,
        dropout: float = 0.0,
        start: Literal["zero", "official"] = "zero",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        if nonlinearity not in _BETWEEN:
            raise unknown_name("nonlinearity", nonlinearity, _BETWEEN)
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1), got {dropout}")
        self.nonlinearity, self.scale, self.dropout = nonlinearity, scale, dropout
        self.noise: torch.Generator | None = None
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for slot in places:
            self.down[slot] = uniform_rows(width, embed_dim, generator)
            self.up[slot] = nn.Parameter(torch.zeros(embed_dim, width))
            if start == "official":
                for each in (self.down[slot], self.up[slot]):
                    nn.init.normal_(each, std=0.02, generator=generator)

    def forward(self, inputs: Tensor, output: Tensor, *, slot: str | None = None) -> Tensor:
        """Returns what is added to a layer's output.

        Args:
            inputs: Of the layer, not read.
            output: Of the layer, (B, N, D).
            slot: Which layer; None where there is one.
        """
        del inputs
        name = next(iter(self.down)) if slot is None else slot
        down, up = self.down[name], self.up[name]
        if self.dropout and draws(self, up):
            output = dropped(output, self.dropout, self.noise)
        hidden = _BETWEEN[self.nonlinearity](functional.linear(output, down))
        return functional.linear(hidden, up) * self.scale
