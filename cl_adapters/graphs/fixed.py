"""What a trained model computes for an image, without a branch that depends on the image.

Shapes: B batch, S image size, C columns = highest label seen + 1, T adapter sets.
"""

import copy
from functools import singledispatch
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.strategies.avalanche_methods import BorrowingClassifier
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.lae import LAEModel, ensemble
from cl_adapters.strategies.mos import MOSModel
from cl_adapters.vit.classifier import AdaptedClassifier
from cl_adapters.vit.pixels import Triple, scaled

__all__ = ["GraphModel", "HasFixedGraph", "fixed_graph"]


@runtime_checkable
class HasFixedGraph(Protocol):
    """A model that says itself how it answers as a fixed graph."""

    def fixed_graph(self) -> nn.Module:
        """Returns a module from images (B, 3, S, S) to logits, (B, C) or an `Output`.

        Raises:
            InputError: If there is none; says why in one sentence.
        """


class GraphModel(nn.Module):
    """From pixels as they are decoded to probabilities; scales and normalises inside.

    Args:
        model: What was trained; it is copied.
        pixels: Mean and standard deviation a channel, for pixels in [0, 1].

    Raises:
        InputError: If the model's inference is no fixed graph.
    """

    def __init__(self, model: nn.Module, pixels: tuple[Triple, Triple]) -> None:
        super().__init__()
        copied = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.pixels = pixels
        self.answer = fixed_graph(copied).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the probability of each class; 0 where a class was not seen.

        Shape:
            images: (B, 3, S, S) uint8. Output: (B, C) float32, rows sum to 1.
        """
        logits = as_output(self.answer(scaled(images, self.pixels))).logits
        return logits.float().softmax(dim=1)


@singledispatch
def fixed_graph(model: nn.Module) -> nn.Module:
    """Returns what a model computes in eval mode as a module without branches on its input.

    A model that is none as it stands says so itself (`HasFixedGraph`), or has its function here.

    Args:
        model: In eval mode; what is returned uses its parameters.

    Raises:
        InputError: If its inference is no fixed graph.
    """
    return model.fixed_graph() if isinstance(model, HasFixedGraph) else model


@fixed_graph.register
def _(model: BorrowingClassifier) -> nn.Module:
    # Its backbone is no submodule there, and a graph holds submodules.
    return AdaptedClassifier(model.backbone, model.adapters, model.heads)


@fixed_graph.register
def _(model: LAEModel) -> nn.Module:
    return _Ensemble(model) if bool(model.votes_offline) else _Online(model)


class _Online(nn.Module):
    """LAE in its first experience: the online modules alone."""

    def __init__(self, model: LAEModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.backbone.features_of(images, (self.model.online,))
        logits: Tensor = self.model.heads(features)
        return logits


class _Ensemble(nn.Module):
    """LAE's two experts."""

    def __init__(self, model: LAEModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        experts = (self.model.online, self.model.offline)
        logits = self.model.heads(self.model.backbone.features_of(images, experts))
        return ensemble(logits[: images.shape[0]], logits[images.shape[0] :])


@fixed_graph.register
def _(model: MOSModel) -> nn.Module:
    if model.config.merge_in_evaluation:
        raise InputError(
            "a model of MOS must answer without changing itself to be a fixed graph, got "
            "`merge_in_evaluation`, which merges its stored sets with each batch"
        )
    return _Exhaustive(model) if len(model.frozen_adapters) else model


class _Exhaustive(nn.Module):
    """MOS with every image under every frozen set, and the retrieval among what they answer.

    An adapter that confirms itself is its own successor, so that all images can go all rounds.
    """

    def __init__(self, model: MOSModel) -> None:
        super().__init__()
        self.model = model
        bank, config = model.frozen_adapters, model.config
        self.sets = [bank.choose(index) for index in range(len(bank))]
        self.moves = (config.rounds if config.retrieval else 1) - 1
        owners = model.class_to_task.experience_of.clamp_max(len(bank) - 1)
        self.register_buffer("owners", owners)
        self.owners: Tensor

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.backbone.features_of(images, self.sets)
        votes = self.model.task_predictor(features[: images.shape[0]])
        logits = self.model.logits(features).unflatten(0, (len(self.sets), -1)).transpose(0, 1)
        successors = self.owners[logits.argmax(dim=2)]  # (B, T)
        asked = self.owners[votes.argmax(dim=1)][:, None]  # (B, 1)
        for _ in range(self.moves):
            asked = successors.gather(1, asked)
        found = logits.gather(1, asked[:, :, None].expand(-1, -1, logits.shape[2]))[:, 0]
        return self.model.score(found, votes)
