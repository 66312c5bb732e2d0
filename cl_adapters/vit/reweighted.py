"""A frozen network that runs with other weights than its own, which are learned.

The network itself stays as it is: it is called with the weights of one of these modules in place of
its own, so that one backbone serves both, and a cache of features sees which weights were used.

    ScaleShift    a gain and a shift for each channel behind every layer, merged into the layer
    OwnWeights    a copy of all weights, all of them trained; stored as what differs
    updated       low-rank updates merged into the projections to queries, keys and values

Reference: Dongze Lian, Daquan Zhou, Jiashi Feng, Xinchao Wang, "Scaling & Shifting Your Features: A
New Baseline for Efficient Model Tuning", NeurIPS 2022, arXiv:2210.08823.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.low_rank import LowRankUpdate
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.differences import difference, summed

__all__ = [
    "OwnWeights",
    "Reweighted",
    "ScaleShift",
    "as_differences",
    "features_under",
    "from_differences",
    "updated",
    "with_weights",
]

_DIFFERENCE: Final = "difference"


def features_under(
    backbone: AdaptedViT,
    weights: Mapping[str, Tensor],
    images: Tensor,
    adapters: AdapterSet | None = None,
) -> Tensor:
    """Returns a network's features under other weights than its own; it counts the passes.

    Args:
        backbone: The network, which stays as it is.
        weights: What stands in for its own, by their names in it.
        images: (B, C, S, S).
        adapters: What it runs with.

    Shape:
        Output: (B, D).
    """
    found: Tensor = functional_call(backbone, dict(weights), (images, adapters))
    return found


@torch.no_grad()
def with_weights(backbone: AdaptedViT, weights: Mapping[str, Tensor]) -> AdaptedViT:
    """Returns a copy of a network that has other weights as its own.

    Args:
        backbone: The network, which stays as it is.
        weights: As for `features_under`.
    """
    network = copy.deepcopy(backbone)
    for name, value in weights.items():
        layer, _, attribute = name.rpartition(".")
        weight = nn.Parameter(value.detach().clone(), requires_grad=False)
        network.get_submodule(layer).register_parameter(attribute, weight)
    return network


def updated(backbone: AdaptedViT, update: LowRankUpdate) -> dict[str, Tensor]:
    """Returns the weights of a network's projections with a low-rank update merged in.

    Args:
        backbone: The network.
        update: Of some of its blocks.
    """
    layers = {block: backbone.vit.blocks[block].attn.qkv for block in update.blocks}
    return {
        f"vit.blocks.{block}.attn.qkv.weight": layers[block].weight + added
        for block, added in update.weights().items()
    }


class Reweighted(nn.Module, ABC):
    """What gives a network its weights."""

    noise: torch.Generator | None = None  # nothing is drawn

    @abstractmethod
    def weights(self, backbone: AdaptedViT) -> dict[str, Tensor]:
        """Returns the weights that stand in for the network's, by their names in it."""

    def features(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the network's features under these weights; the network counts the passes.

        Shape:
            images: (B, C, S, S). Output: (B, D).
        """
        return features_under(backbone, self.weights(backbone), images)

    def merged(self, backbone: AdaptedViT) -> AdaptedViT:
        """Returns a copy of the network that has these weights as its own."""
        return with_weights(backbone, self.weights(backbone))


class OwnWeights(Reweighted):
    """A copy of all weights of a network: full fine-tuning.

    Args:
        backbone: Whose weights it starts with.
    """

    def __init__(self, backbone: AdaptedViT) -> None:
        super().__init__()
        named = dict(backbone.named_parameters())
        self._names = list(named)
        self.values = nn.ParameterDict(
            {_key(name): nn.Parameter(value.detach().clone()) for name, value in named.items()}
        )

    def weights(self, backbone: AdaptedViT) -> dict[str, Tensor]:  # noqa: ARG002
        """Returns the copy."""
        return {name: self.values[_key(name)] for name in self._names}

    def packed(self, backbone: AdaptedViT) -> Tensor:
        """Returns the copy as its difference to the network's own weights, exact: (P,) bytes."""
        values = _flat(self.values[_key(name)] for name in self._names)
        data = difference(values, self._base(backbone))
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy())

    def unpacked(self, backbone: AdaptedViT, packed: Tensor) -> dict[str, Tensor]:
        """Returns the state that `packed` was made from.

        Raises:
            InputError: If the network's own weights are others than they were then, or the bytes
                are not what `packed` returned.
        """
        flat = torch.from_numpy(summed(packed.cpu().numpy().tobytes(), self._base(backbone)))
        shapes = {f"values.{_key(name)}": self.values[_key(name)].shape for name in self._names}
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def _base(self, backbone: AdaptedViT) -> NDArray[np.float32]:
        named = dict(backbone.named_parameters())
        return _flat(named[name] for name in self._names)


class ScaleShift(Reweighted):
    """y -> gain y + shift, by channel, behind every layer of a network that is affine.

    These are the patch projection; in each block both norms, the projection to queries, keys and
    values, attention's own, and both layers of the MLP; the last norm. For a ViT-B 205,824 numbers.

    Args:
        backbone: The network.
        generator: Source of the initial values: gains N(1, 0.02^2), shifts N(0, 0.02^2).
    """

    def __init__(self, backbone: AdaptedViT, generator: torch.Generator) -> None:
        super().__init__()
        self.gains, self.shifts = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in _affine_layers(backbone):
            size = len(layer.weight)
            self.gains[_key(name)] = nn.Parameter(1 + 0.02 * torch.randn(size, generator=generator))
            self.shifts[_key(name)] = nn.Parameter(0.02 * torch.randn(size, generator=generator))

    def weights(self, backbone: AdaptedViT) -> dict[str, Tensor]:
        """Returns the layers with gain and shift merged in: W' = gain W, b' = gain b + shift."""
        found = {}
        for name, layer in _affine_layers(backbone):
            gain, shift = self.gains[_key(name)], self.shifts[_key(name)]
            weight = layer.weight
            found[f"{name}.weight"] = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
            found[f"{name}.bias"] = shift if layer.bias is None else gain * layer.bias + shift
        return found


def _affine_layers(backbone: AdaptedViT) -> Iterator[tuple[str, nn.Linear]]:
    """Yields name and layer of all that have a weight with a channel in front."""
    in_blocks = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    names = [
        "patch_embed.proj",
        *(f"blocks.{i}.{each}" for i in range(backbone.num_blocks) for each in in_blocks),
        "norm",
        "fc_norm",  # the last norm of a network that pools
    ]
    for name in names:
        layer = backbone.vit.get_submodule(name)
        if getattr(layer, "weight", None) is not None:
            yield f"vit.{name}", layer


def as_differences(
    model: nn.Module, backbone: AdaptedViT, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns a model's state with copies of all weights as their difference to the network's own.

    Args:
        model: Whose state it is, at the moment.
        backbone: The network.
        state: Tensors by name; those of copies stand under one name afterwards.
    """
    found = dict(state)
    for prefix, part in _copies(model):
        for name in part.state_dict():
            del found[f"{prefix}{name}"]
        found[f"{prefix}{_DIFFERENCE}"] = part.packed(backbone)
    return found


def from_differences(
    model: nn.Module, backbone: AdaptedViT, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns the state that `as_differences` was given; one without differences as it is.

    Raises:
        InputError: As of `OwnWeights.unpacked`.
    """
    found = dict(state)
    for prefix, part in _copies(model):
        packed = found.pop(f"{prefix}{_DIFFERENCE}", None)
        if packed is not None:
            own = part.unpacked(backbone, packed)
            found.update({f"{prefix}{name}": value for name, value in own.items()})
    return found


def _copies(model: nn.Module) -> Iterator[tuple[str, OwnWeights]]:
    for name, part in model.named_modules():
        if isinstance(part, OwnWeights):
            yield f"{name}." if name else "", part


def _flat(values: Iterable[Tensor]) -> NDArray[np.float32]:
    numbers: NDArray[np.float32]
    numbers = torch.cat([each.detach().float().cpu().flatten() for each in values]).numpy()
    return numbers


def _key(name: str) -> str:
    return name.replace(".", "-")  # no dot may stand in the name of a parameter
