"""Classifiers by name: those that are trained by gradient descent, and those in closed form."""

from collections.abc import Collection, Mapping
from typing import Final

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.ridge import RidgeHead

__all__ = [
    "CLOSED_HEADS",
    "HEADS",
    "TRAINED_HEADS",
    "ClosedHead",
    "build_closed_head",
    "build_trained_head",
    "check_head",
]

ClosedHead = PrototypeHead | LinearDiscriminant | RidgeHead

TRAINED_HEADS: Final = ("linear", "cosine", "kac")
CLOSED_HEADS: Final = ("prototype", "discriminant", "ridge")
# What each is, in a sentence.
HEADS: Final[Mapping[str, str]] = {
    "linear": "A linear layer an experience.",
    "cosine": "A linear layer an experience over features and weights of length 1.",
    "kac": "A linear layer an experience over radial functions of each feature.",
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
) -> ExperienceHeads:
    """Returns a classifier that is trained by gradient descent, without a class yet.

    Args:
        name: `linear`, `cosine` or `kac`.
        num_features: F.
        init_std: Standard deviation of new weights, see `ExperienceHeads`.
        scale: Of a cosine head's cosines.
        learn_scale: Train the scale of a cosine head.

    Raises:
        InputError: If the name is not that of a trained head.
    """
    check_head(name, TRAINED_HEADS, "it is set in closed form")
    if name != "cosine":
        return ExperienceHeads(num_features, init_std=init_std, is_radial=name == "kac")
    return ExperienceHeads(
        num_features, init_std=init_std, cosine_scale=scale, learn_scale=learn_scale
    )


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
