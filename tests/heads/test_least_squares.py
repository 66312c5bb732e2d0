"""What ridge regression and truncated least squares share: columns by class, and names in states."""

import pytest
import torch

from cl_adapters.heads.least_squares import LeastSquaresHead
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.heads.truncated import TruncatedHead

# As versions before wrote them into checkpoints.
NAMES = {
    "ridge": ["cross", "gram", "is_seen", "weight"],
    "truncated": [
        "cross", "directions.basis", "directions.count", "directions.values", "is_seen", "weight",
    ],
}  # fmt: skip


def head_of(kind: str) -> RidgeHead | TruncatedHead:
    return RidgeHead(3, scale=2.0) if kind == "ridge" else TruncatedHead(3, rank=3, scale=2.0)


@pytest.mark.parametrize("kind", NAMES)
def test_a_checkpoint_of_earlier_names_and_sizes_is_read(kind: str) -> None:
    head = head_of(kind)
    head.add_classes([4, 1])
    assert sorted(head.state_dict()) == NAMES[kind]
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    earlier = {
        "gram": torch.eye(3).double(),
        "directions.basis": torch.eye(3)[:, :2],
        "directions.values": torch.ones(2).double(),
        "directions.count": torch.tensor(2),
        "cross": torch.eye(3)[:, :2].double(),
        "weight": weight,
        "is_seen": torch.tensor([True, True]),
    }
    head.load_state_dict({name: earlier[name] for name in NAMES[kind]})
    assert head(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("kind", NAMES)
def test_columns_are_sums_by_class_whatever_was_announced_when(kind: str) -> None:
    head = head_of(kind)
    head.add_classes([])
    assert head(torch.ones(1, 3)).shape == (1, 0)
    head.add_classes([2])
    head.add(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2]))
    head.add_classes([0, 4])
    head.add_classes([1])
    head.add(torch.tensor([[1.0, 0.0, 1.0], [0.0, 5.0, 0.0]]), torch.tensor([2, 4]))
    assert isinstance(head, LeastSquaresHead)
    assert head.cross.T.tolist() == [[0] * 3, [0] * 3, [2, 2, 4], [0] * 3, [0, 5, 0]]
    head.solve(1.0)
    answers = head(torch.ones(1, 3))[0]
    assert (answers == UNSEEN_LOGIT).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("kind", NAMES)
def test_scores_are_not_rounded_to_bfloat16(kind: str) -> None:
    head = head_of(kind)
    head.add_classes([0])
    head.add(torch.eye(3), torch.tensor([0, 0, 0]))
    head.weight = torch.tensor([[1.0, 1e-3, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(torch.ones(1, 3))
    assert found.item() == pytest.approx(2 * 1.001, rel=1e-6)
