"""What a method answers: values for a batch and for an experience."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from cl_adapters.errors import InputError

__all__ = [
    "Output",
    "Phase",
    "as_output",
    "logits_from",
    "loss_from",
    "of_kind",
    "phases_from",
    "place_of",
]

Value = TypeVar("Value")


class Phase(NamedTuple):
    """Some epochs of training under one name, as timings call them."""

    name: str
    epochs: int


@dataclass(frozen=True)
class Output:
    """Logits, and what else a forward pass found.

    Attributes:
        logits: (B, C), a column for each label; their softmax is the predicted probability.
        extras: By name, for the loss and for diagnostics: `features` (B, D), `retrieval`, `votes`,
            `router`. Nothing that decides an answer stands here alone.
    """

    logits: Tensor
    extras: Mapping[str, Any] = field(default_factory=dict)


def as_output(value: Output | Tensor) -> Output:
    """Returns what a model's forward gave as an `Output`."""
    return value if isinstance(value, Output) else Output(value)


def logits_from(
    method: Callable[..., object], value: object, images: int, columns: int = 0
) -> Output:
    """Returns what a method gave as an `Output`; refuses what holds no logits (B, C).

    Args:
        method: Which; the sentence says where it stands.
        value: What it gave, logits alone or an `Output`.
        images: B.
        columns: Fewest columns C: one for each label that is learned, whatever its place among
            those seen so far.

    Raises:
        InputError: If it gave something else, rows for other than B images, or too few columns.
    """
    logits = value.logits if isinstance(value, Output) else value
    if not isinstance(logits, Tensor):
        found = _named(logits)
    elif logits.ndim != 2 or len(logits) != images:
        found = f"shape {tuple(logits.shape)}"
    elif logits.shape[1] < columns:
        raise InputError(
            f"{place_of(method)} must return logits with a column for each label, 0 to "
            f"{columns - 1}, got {logits.shape[1]} columns"
        )
    else:
        return value if isinstance(value, Output) else Output(logits)
    raise InputError(f"{place_of(method)} must return logits of shape ({images}, C), got {found}")


def loss_from(method: Callable[..., object], value: object, *, is_followed: bool = False) -> Tensor:
    """Returns what a method gave; refuses what is no loss, a scalar tensor.

    Args:
        method: Which; the sentence says where it stands.
        value: What it gave.
        is_followed: Whether gradients of it are taken.

    Raises:
        InputError: If it is something else, or no gradient can be taken of it.
    """
    if not isinstance(value, Tensor):
        found = _named(value)
    elif value.numel() != 1:
        found = f"shape {tuple(value.shape)}"
    elif is_followed and not value.requires_grad:
        found = "one that does not depend on what is trained"
    else:
        return value
    raise InputError(f"{place_of(method)} must return a loss, a scalar, got {found}")


def of_kind(method: Callable[..., object], value: object, kind: type[Value], what: str) -> Value:
    """Returns what a method gave; refuses what is of another kind.

    Args:
        method: Which; the sentence says where it stands.
        value: What it gave.
        kind: What it has to be.
        what: The same in words.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(value, kind):
        return value
    raise InputError(f"{place_of(method)} must return {what}, got {_named(value)}")


def phases_from(method: Callable[[], object]) -> Iterator[Phase]:
    """Yields the phases that a method gives; what stands between them there runs between.

    Raises:
        InputError: If it gives something else; says where the method stands.
    """
    given: Iterable[object] = of_kind(method, method(), Iterable, "phases, or yield them")  # type: ignore[type-abstract] # it is asked for
    for phase in given:
        yield of_kind(method, phase, Phase, "phases alone")


def _named(value: object) -> str:
    name = type(value).__name__
    article = "an" if name[:1].lower() in tuple("aeiou") else "a"
    return "nothing" if value is None else f"{article} {name}"


def place_of(method: Callable[..., object]) -> str:
    """Returns a method's name, and the file and line where it stands if these are known.

    Example:
        >>> place_of(len)
        'len'
    """
    code = getattr(inspect.unwrap(method), "__code__", None)
    name = getattr(method, "__qualname__", type(method).__name__)
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"
