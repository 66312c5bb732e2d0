"""Classifiers by name: those that are trained by gradient descent, and those in closed form."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.batch_norm import BatchNormHeads
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.multi_dropout import DropoutHeads
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.heads.simplex import SimplexHeads

__all__ = [
    "CLOSED_HEADS",
    "HEADS",
    "PLAIN_HEADS",
    "TRAINED_HEADS",
    "ClosedHead",
    "build_closed_head",
    "build_trained_head",
    "check_head",
]

ClosedHead = PrototypeHead | LinearDiscriminant | RidgeHead

# Trained heads that any loss fits, and whose rows can be trained further on samples.
PLAIN_HEADS: Final = ("linear", "cosine", "kac", "batch_norm")
TRAINED_HEADS: Final = (*PLAIN_HEADS, "simplex", "multi_dropout")
CLOSED_HEADS: Final = ("prototype", "discriminant", "ridge")
_KINDS: Final[Mapping[str, type[ExperienceHeads]]] = {
    "batch_norm": BatchNormHeads,
    "multi_dropout": DropoutHeads,
}
# What each is, in a sentence.
HEADS: Final[Mapping[str, str]] = {
    "linear": "A linear layer an experience.",
    "cosine": "A linear layer an experience over features and weights of length 1.",
    "kac": "A linear layer an experience over radial functions of each feature.",
    "batch_norm": "A linear layer an experience over batch-normalised features.",
    "simplex": "Fixed corners of a regular simplex, to which the features are trained.",
    "multi_dropout": "A linear layer an experience, trained under several dropouts at once.",
    "prototype": "Cosine similarity to the mean feature of each class.",
    "discriminant": "Linear discriminant analysis: class means and one shared covariance.",
    "ridge": "Ridge regression from features to classes.",
}


def check_head(name: str, fitting: Collection[str], reason: str) -> str:
    """Returns the name of a classifier that fits.

    Args:
        name: What was asked for.
        fitting: The names that fit.
        reason: Why those of the other kind do not.

    Raises:
        InputError: If it does not fit, or there is none of the name.
    """
    if name in fitting:
        return name
    if name in HEADS:
        raise InputError(f"`head` must be one of {', '.join(fitting)}, got {name!r}: {reason}")
    raise unknown_name("head", name, list(fitting))


def build_trained_head(
    name: str,
    num_features: int,
    *,
    init_std: float | None = 0.001,
    scale: float = 10.0,
    learn_scale: bool = False,
    **own: Any,  # noqa: ANN401 - options of many classes
) -> ExperienceHeads:
    """Returns a classifier that is trained by gradient descent, without a class yet.

    Args:
        name: One of `TRAINED_HEADS`.
        num_features: F.
        init_std: Standard deviation of new weights, see `ExperienceHeads`.
        scale: Of a cosine head's cosines.
        learn_scale: Train the scale of a cosine head.
        **own: Further options of `BatchNormHeads`, `DropoutHeads` or `SimplexHeads`.

    Raises:
        InputError: If the name is not that of a trained head.
    """
    check_head(name, TRAINED_HEADS, "it is set in closed form")
    if name == "simplex":  # which has no weights to draw
        return SimplexHeads(num_features, **own)
    if name == "cosine":
        own = {"cosine_scale": scale, "learn_scale": learn_scale}
    elif name == "kac":
        own = {"is_radial": True}
    return _KINDS.get(name, ExperienceHeads)(num_features, init_std=init_std, **own)


def build_closed_head(name: str, num_features: int, *, scale: float = 10.0) -> ClosedHead:
    """Returns a classifier that is set in closed form, without a class yet.

    Args:
        name: `prototype`, `discriminant` or `ridge`.
        num_features: F.
        scale: Factor before a softmax, of those that have one.

    Raises:
        InputError: If the name is not that of a head in closed form.
    """
    check_head(name, CLOSED_HEADS, "it is trained by gradient descent")
    if name == "ridge":
        return RidgeHead(num_features, scale=scale)
    if name == "discriminant":
        return LinearDiscriminant(num_features, unit_length=True)
    return PrototypeHead(num_features, scale=scale)
