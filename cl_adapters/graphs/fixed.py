"""What a trained model computes for an image, without a branch that depends on the image.

Shapes: B batch, S image size, C classes, T adapter sets.
"""

import copy
from collections.abc import Sequence
from functools import singledispatch
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.strategies.avalanche_methods import BorrowingClassifier
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.ease import EASEModel
from cl_adapters.strategies.lae import LAEModel, ensemble
from cl_adapters.strategies.mos import MOSModel
from cl_adapters.strategies.tuna import TUNAModel
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
    """From pixels as they are decoded to probabilities; scales, normalises and chooses inside.

    Args:
        strategy: What was trained; its model is copied.
        pixels: Mean and standard deviation a channel, for pixels in [0, 1].
        labels: The columns that are wanted, in their order; all logits count in the softmax.

    Raises:
        InputError: If the strategy's inference is no fixed graph.
    """

    def __init__(
        self, strategy: AdapterStrategy, pixels: tuple[Triple, Triple], labels: Sequence[int]
    ) -> None:
        super().__init__()
        _refuse(strategy)
        # A classifier in closed form solves its system at its first question, not in the graph.
        strategy.answer(torch.zeros(1, *strategy.backbone.input_shape))
        model = copy.deepcopy(strategy.model).requires_grad_(requires_grad=False).cpu().eval()
        _settle_flags(model)
        self.pixels = pixels
        self.answer = fixed_graph(model).eval()
        self.register_buffer("labels", torch.tensor(labels))
        self.labels: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Returns the probability of each class.

        Shape:
            images: (B, 3, S, S) uint8. Output: (B, C) float32, rows sum to 1.
        """
        logits = as_output(self.answer(scaled(images, self.pixels))).logits
        return logits.float().softmax(dim=1)[:, self.labels]


def _settle_flags(model: nn.Module) -> None:
    """Makes facts, on which a graph may branch, of the flags that a model keeps as tensors."""
    for module in model.modules():
        for name, value in list(module.named_buffers(recurse=False)):
            if value.dtype == torch.bool and value.ndim == 0:
                delattr(module, name)
                setattr(module, name, bool(value))


def _refuse(strategy: AdapterStrategy) -> None:
    name = type(strategy).__name__
    if strategy.answers_change_it:
        raise InputError(
            f"a model must stay as it is when it answers to be a fixed graph, and {name}'s is "
            f"changed by each answer; `{strategy.option_that_changes}` says so"
        )
    if strategy.answers_by_batch:
        raise InputError(
            f"a model must answer an image by itself to be a fixed graph, and {name}'s answers "
            "depend on the other images of a batch, as its options say"
        )
    if strategy.query_features() is not None and not isinstance(strategy.model, HasFixedGraph):
        raise InputError(
            f"a model that asks for queries must have a `fixed_graph` to be one, and {name}'s "
            "has none"
        )


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
    return _Ensemble(model) if bool(model.votes_offline) else model


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
def _(model: EASEModel) -> nn.Module:
    return _AllSpaces(model) if model.prototypes.num_spaces else model


class _AllSpaces(nn.Module):
    """EASE: every image under every frozen set."""

    def __init__(self, model: EASEModel) -> None:
        super().__init__()
        self.model = model
        bank = model.frozen_adapters
        self.sets = [bank.choose(index) for index in range(len(bank))]

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.backbone.features_of(images, self.sets)
        by_image = features.reshape(len(self.sets), -1, features.shape[1]).transpose(0, 1)
        return self.model.prototypes.scores(by_image)


@fixed_graph.register
def _(model: TUNAModel) -> nn.Module:
    return _SurestSet(model) if model.num_sets else model


class _SurestSet(nn.Module):
    """TUNA: every image under every stored set and the universal one."""

    def __init__(self, model: TUNAModel) -> None:
        super().__init__()
        self.model = model
        bank = model.frozen_adapters
        self.sets = [bank.choose(index) for index in range(len(bank))]

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model.heads(self.model.backbone.features_of(images, self.sets))
        return self.model.score(logits.reshape(len(self.sets), -1, logits.shape[1]).transpose(0, 1))


@fixed_graph.register
def _(model: MOSModel) -> nn.Module:
    bank = model.frozen_adapters
    if len(bank) == 0:
        return model
    # Sets in one product for all images, each with its own, cost a pass a round.
    is_shorter = bank.template.is_bottleneck and len(bank) > 1 + _rounds(model)
    return _Unrolled(model) if is_shorter else _Exhaustive(model)


def _rounds(model: MOSModel) -> int:
    return model.config.rounds if model.config.retrieval else 1


class _Retrieving(nn.Module):
    """MOS without a question whether an image is done.

    An adapter that confirms itself is its own successor, so that all images can go all rounds.
    """

    def __init__(self, model: MOSModel) -> None:
        super().__init__()
        self.model = model
        self.bank = model.frozen_adapters
        self.rounds = _rounds(model)
        self.register_buffer("owners", model.owners())
        self.owners: Tensor

    def owner(self, logits: Tensor) -> Tensor:
        """Returns the set in charge of the likeliest class: (...) of logits (..., C)."""
        return self.owners[logits.argmax(dim=-1)]


class _Exhaustive(_Retrieving):
    """Every image under every set, and the retrieval among what they answer."""

    def forward(self, images: Tensor) -> Tensor:
        sets = [self.bank.choose(index) for index in range(len(self.bank))]
        features = self.model.backbone.features_of(images, sets)
        votes = self.model.task_predictor(features[: images.shape[0]])
        logits = self.model.logits(features)
        logits = logits.reshape(len(self.bank), -1, logits.shape[1]).transpose(0, 1)  # (B, T, C)
        asked, successors = self.owner(votes)[:, None], self.owner(logits)
        for _ in range(self.rounds - 1):
            asked = successors.gather(1, asked)
        found = logits.gather(1, asked[:, :, None].expand(-1, -1, logits.shape[2]))[:, 0]
        return self.model.score(found, votes)


class _Unrolled(_Retrieving):
    """A pass a round, in which each image has the set that it asks."""

    def forward(self, images: Tensor) -> Tensor:
        backbone = self.model.backbone
        tokens = backbone.tokens(images)
        first = backbone.features(backbone.run(tokens, adapters=self.bank.choose(0)))
        votes = self.model.task_predictor(first)
        logits = votes
        for _ in range(self.rounds):
            adapters = self.bank.choose(self.owner(logits))
            logits = self.model.logits(backbone.features(backbone.run(tokens, adapters=adapters)))
        return self.model.score(logits, votes)
