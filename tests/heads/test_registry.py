"""Heads by name."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.registry import (
    CLOSED_HEADS,
    TRAINED_HEADS,
    build_closed_head,
    build_trained_head,
    check_head,
)
from cl_adapters.heads.ridge import RidgeHead


def test_every_name_builds_a_head_that_grows_and_answers() -> None:
    features, targets = torch.randn(9, 4), torch.arange(9) % 3
    for name in TRAINED_HEADS:
        head = build_trained_head(name, 4, scale=7.0)
        head.add_classes([0, 1, 2], torch.Generator().manual_seed(0))
        assert head.eval()(features).shape == (9, 3)
        assert head.cosine_scale == (7.0 if name == "cosine" else None)
        assert (head.basis is not None) == (name == "kac")
    kinds = dict(zip(CLOSED_HEADS, (PrototypeHead, LinearDiscriminant, RidgeHead), strict=True))
    for name, kind in kinds.items():
        closed = build_closed_head(name, 4, scale=7.0)
        assert type(closed) is kind
        closed.add_classes([0, 1, 2])
        closed.add(features, targets)
        assert closed(features).shape == (9, 3)
        assert getattr(closed, "scale", 7.0) == 7.0
    assert build_closed_head("discriminant", 4).unit_length  # type: ignore[union-attr]


def test_a_head_that_does_not_fit_is_refused_with_its_reason() -> None:
    with pytest.raises(
        InputError, match=r"one of linear, cosine, kac, .*, got 'ridge': it is set in closed"
    ):
        build_trained_head("ridge", 4)
    with pytest.raises(InputError, match=r"one of prototype, .*, got 'cosine': it is trained by"):
        build_closed_head("cosine", 4)
    with pytest.raises(InputError, match="unknown head 'lineal'; did you mean 'linear'"):
        check_head("lineal", TRAINED_HEADS, "")
    assert check_head("ridge", CLOSED_HEADS, "") == "ridge"


@pytest.mark.parametrize("name", CLOSED_HEADS)
def test_closed_heads_answer_in_full_precision_under_autocast(name: str) -> None:
    """Scores of bfloat16 tie, and the order of the classes would decide."""
    source = torch.Generator().manual_seed(0)
    head = build_closed_head(name, 16, scale=10.0)
    head.add_classes(range(40))
    labels = torch.arange(400) % 40
    features = torch.randn(400, 16, generator=source) + 0.2 * labels[:, None]
    head.add(features, labels)
    if isinstance(head, RidgeHead):
        head.solve(1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
    assert (found == head(features)).all()
