"""The fixed corners of a simplex, against the arithmetic of the paper."""

import pytest
import torch
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.simplex import SimplexHeads, SimplexLoss, simplex_corners


def head(features: int = 4, loss: SimplexLoss = "all", *classes: int) -> SimplexHeads:
    made = SimplexHeads(features, loss=loss)
    made.add_classes(classes, torch.Generator())
    return made


def test_three_corners_are_those_worked_out_by_hand() -> None:
    expected = torch.tensor([[0.9659, -0.2588], [-0.2588, 0.9659], [-0.7071, -0.7071]])
    torch.testing.assert_close(simplex_corners(3), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 9, 193])
def test_any_two_corners_are_equally_far_apart(count: int) -> None:
    corners = simplex_corners(count).double()
    expected = torch.full((count, count), -1 / (count - 1)).double().fill_diagonal_(1)
    torch.testing.assert_close(corners @ corners.T, expected, atol=1e-6, rtol=0)
    assert corners.sum(dim=0).abs().max() < 1e-5


def test_a_class_has_its_corner_whenever_it_comes() -> None:
    features = torch.randn(3, 4)
    corners = simplex_corners(5)
    late = head(4, "all", 3)
    late.eval()
    before = late(features)
    assert (before[:, :3] == UNSEEN_LOGIT).all()
    late.add_classes([1, 0], torch.Generator())
    late.add_classes([2], torch.Generator())
    torch.testing.assert_close(late(features), features @ corners.flip(0)[:4].T)
    torch.testing.assert_close(late(features)[:, 3], before[:, 3])
    assert not late.is_trained
    assert late.state_dict() == {}


@pytest.mark.parametrize(
    ("loss", "competing"), [("all", [0, 1, 2, 3, 4]), ("seen", [0, 2, 3]), ("current", [2, 3])]
)
def test_the_loss_counts_the_corners_that_were_asked_for(
    loss: SimplexLoss, competing: list[int]
) -> None:
    made = head(4, loss, 0)
    made.add_classes([3, 2], torch.Generator())
    features, targets = torch.randn(6, 4, requires_grad=True), torch.tensor([2, 3, 3, 2, 2, 3])
    logits = features @ simplex_corners(5).flip(0).T
    own = torch.tensor([competing.index(int(each)) for each in targets])
    expected = functional.cross_entropy(logits[:, competing], own)
    found = made.loss([0, 2, 3], made(features), targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features)[0], torch.autograd.grad(expected, features)[0]
    )


def test_classes_without_a_corner_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"over 4 features must have classes below 5.*, got class 5"
    ):
        head(4, "all", 0, 5)
