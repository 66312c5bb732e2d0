"""Classifier heads that grow by experience.

Columns are indexed by class label, so Avalanche's metrics read the outputs as they are. A class
that has not been seen yet gets `UNSEEN_LOGIT`, which no softmax and no argmax will choose.

Shapes: B batch, F features, C columns = highest label seen + 1.
"""

import math
from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from cl_adapters.earlier_names import earlier_method
from cl_adapters.errors import InputError
from cl_adapters.heads.cosine import CosineLinear
from cl_adapters.heads.radial import PLACES, RadialBasis, RadialLinear

__all__ = ["UNSEEN_LOGIT", "ExperienceHeads", "cross_entropy_over"]

UNSEEN_LOGIT: Final = -1000.0  # finite, so that a loss on unseen classes stays a number


class ExperienceHeads(nn.Module):
    """One linear layer per experience, concatenated for the logits (LAE's head).

    Args:
        num_features: F.
        init_std: Standard deviation of the initial weights; None draws them as a fresh linear layer
            has them, uniform in +-1 / sqrt(F) (SEMA). Biases start at 0.
        cosine_scale: Makes the logits this multiple of the cosines between features and weights,
            without biases; None for linear layers.
        learn_scale: Train the multiple, one for all experiences, from `cosine_scale` on.
        is_radial: Makes it KAC: zero weights over radial functions of the features, no biases.

    Raises:
        InputError: If `learn_scale` is asked for without `cosine_scale`, or `is_radial` with it.

    Example:
        >>> heads = ExperienceHeads(4)
        >>> heads.add_classes([2, 0], torch.Generator().manual_seed(0))
        >>> heads(torch.zeros(1, 4)).tolist()
        [[0.0, -1000.0, 0.0]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        init_std: float | None = 0.001,
        cosine_scale: float | None = None,
        learn_scale: bool = False,
        is_radial: bool = False,
    ) -> None:
        super().__init__()
        if learn_scale and cosine_scale is None:
            raise InputError("`learn_scale` must go with `cosine_scale`, got none")
        if is_radial and cosine_scale is not None:
            raise InputError(f"`is_radial` must go without `cosine_scale`, got {cosine_scale}")
        self.cosine_scale = cosine_scale
        self.num_features = num_features
        self.init_std = init_std
        self.layers = nn.ModuleList()
        self.classes: list[int] = []
        start = torch.tensor(float(cosine_scale or 1))
        self.scale = nn.Parameter(start) if learn_scale else None  # on unscaled layers
        self.basis = RadialBasis(num_features) if is_radial else None

    @property
    def has_biases(self) -> bool:
        """Whether a class has a bias beside its weights."""
        return self.cosine_scale is None and self.basis is None

    def _layer(self, rows: int) -> nn.Linear:
        # Made without torch's own initialisation, which would draw from the global random state.
        if self.basis is not None:
            return nn.Linear(self.num_features * PLACES, rows, bias=False, device="meta")
        if self.cosine_scale is None:
            return nn.Linear(self.num_features, rows, device="meta")
        scale = self.cosine_scale if self.scale is None else 1.0
        return CosineLinear(self.num_features, rows, scale=scale)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a layer for those of the classes that have none yet."""
        new = [label for label in classes if label not in self.classes]
        if not new:
            return
        layer = self._layer(len(new)).to_empty(device="cpu")
        if self.basis is not None:
            nn.init.zeros_(layer.weight)
        elif self.init_std is None:
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        else:
            nn.init.normal_(layer.weight, std=self.init_std, generator=generator)
        if self.has_biases:
            nn.init.zeros_(layer.bias)
        self.layers.append(layer)
        self.classes.extend(new)

    grow = earlier_method("grow", "add_classes")

    @property
    def is_trained(self) -> bool:
        """Whether gradient descent has something to change here."""
        return any(True for _ in self.parameters())

    def loss(self, classes: Sequence[int], logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss: the cross-entropy over some classes, see below.

        Heads with a loss of their own override it.

        Args:
            classes: Those that the method lets compete.
            logits: (B, C), what `forward` gave.
            targets: (B,), each in `classes`.
        """
        return cross_entropy_over(classes, logits, targets)

    def train_only(self, classes: Sequence[int]) -> None:
        """Lets the layers of some classes learn, and no others."""
        start = 0
        for layer in cast("list[nn.Linear]", list(self.layers)):
            own = self.classes[start : start + layer.out_features]
            layer.requires_grad_(requires_grad=not set(own).isdisjoint(classes))
            start += layer.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits.

        Shape:
            features: (B, F). Output: (B, C), float32.
        """
        columns = max(self.classes, default=-1) + 1
        if self.classes and self.classes == list(range(columns)):  # each column in its place
            return self._seen(features)
        logits = features.new_full((features.shape[0], columns), UNSEEN_LOGIT, dtype=torch.float32)
        if self.classes:
            logits[:, _index(self.classes, features.device)] = self._seen(features)
        return logits

    def _seen(self, features: Tensor) -> Tensor:
        if self.basis is not None:
            features = self.basis(features)
        logits = torch.cat([layer(features) for layer in self.layers], dim=1).float()
        return logits if self.scale is None else self.scale * logits

    @torch.no_grad()
    def joined(self, labels: Sequence[int]) -> nn.Linear:
        """Returns a copy of the rows of some labels as one layer, in their order."""
        rows = [self.classes.index(label) for label in labels]
        layers = cast("list[nn.Linear]", list(self.layers))
        weight = torch.cat([layer.weight for layer in layers])[rows]
        if self.basis is not None:
            copy: nn.Linear = RadialLinear(self.basis, len(rows))
        else:
            copy = self._layer(len(rows)).to_empty(device=weight.device)
        copy.weight.copy_(weight)
        if self.scale is not None and isinstance(copy, CosineLinear):
            copy.scale = float(self.scale)
        if self.has_biases:
            copy.bias.copy_(torch.cat([layer.bias for layer in layers])[rows])
        return copy

    @torch.no_grad()
    def assign(self, labels: Sequence[int], layer: nn.Linear) -> None:
        """Takes over the rows of a layer that `joined` returned."""
        layers = cast("list[nn.Linear]", list(self.layers))
        places = [(own, row) for own in layers for row in range(own.out_features)]
        for index, label in enumerate(labels):
            own, row = places[self.classes.index(label)]
            own.weight[row] = layer.weight[index]
            if self.has_biases:
                own.bias[row] = layer.bias[index]


def cross_entropy_over(
    classes: Sequence[int], logits: Tensor, targets: Tensor, *, margin: float = 0.0
) -> Tensor:
    """Returns the mean cross-entropy of a softmax over the given classes only.

    Equals the loss with every other logit at minus infinity: classes outside get no gradient.

    Args:
        classes: Those that count.
        logits: Of all classes.
        targets: The right ones.
        margin: Taken off each target's logit, by which it has to win; on scaled cosines it is
            CosFace's margin times the scale.

    Shape:
        logits: (B, C). targets: (B,), each in `classes`. Output: scalar.

    Example:
        >>> logits = torch.tensor([[9.0, 0.0, 0.0]])
        >>> round(cross_entropy_over([1, 2], logits, torch.tensor([2])).item(), 4)
        0.6931
    """
    chosen = _index(sorted(classes), logits.device)
    rows, own = logits[:, chosen], torch.searchsorted(chosen, targets)
    if margin:
        rows = rows - margin * nn.functional.one_hot(own, len(chosen))
    return nn.functional.cross_entropy(rows, own)


def _index(values: Sequence[int], device: torch.device) -> Tensor:
    # Made on the CPU and sent off: a tensor that is made on a GPU from a list is waited for.
    return torch.tensor(values).to(device, non_blocking=True)
