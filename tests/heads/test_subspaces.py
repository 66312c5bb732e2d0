"""Means in subspaces against plain loops, and the worked numbers of the paper's formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.subspaces import SubspacePrototypes


def one(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_the_worked_numbers_of_the_mapping() -> None:
    head = SubspacePrototypes(2)
    head.add_classes([0])
    head.add(0, one([1, 0]), torch.tensor([0]))
    head.add_classes([1, 2])
    head.add(0, one([1, 0], [0, 1]), torch.tensor([1, 2]))
    head.add(1, one([2, 0], [0, 4]), torch.tensor([1, 2]))
    found = head.means()[1, 0].tolist()
    assert found == pytest.approx([1.462, 1.076], abs=5e-4)
    weight = math.e / (math.e + 1)
    assert found == pytest.approx([2 * weight, 4 * (1 - weight)])


def test_the_worked_numbers_of_the_scores() -> None:
    # Class 0 of the first experience, class 1 of the second, its means in both subspaces.
    head = SubspacePrototypes(2, alpha=0.1, scale=1.0)
    head.add_classes([0])
    head.add_classes([1])
    head.add(0, one([1, 0], [0, 1]), torch.tensor([0, 1]))
    head.add(1, one([1, 0]), torch.tensor([1]))
    head._means = head.means().clone()
    head._means[1, 0] = torch.tensor([0.0, 1.0])
    scores = head(torch.stack([one([1.0, 0.0]), one([0.6, 0.8])]))
    assert scores[0].tolist() == pytest.approx([1.08, 0.60])


def filled(alpha: float = 0.1) -> tuple[SubspacePrototypes, dict[tuple[int, int], Tensor]]:
    """Three experiences of two classes each, three samples a class and subspace."""
    head = SubspacePrototypes(5, alpha=alpha, scale=2.0)
    generator, means = torch.Generator().manual_seed(0), {}
    for task in range(3):
        classes = [2 * task, 2 * task + 1]
        head.add_classes(classes)
        for subspace in range(task + 1):
            for label in classes:
                rows = torch.randn(3, 5, generator=generator)
                head.add(subspace, rows, torch.full((3,), label))
                means[label, subspace] = rows.double().mean(dim=0)
    return head, means


@pytest.mark.parametrize("alpha", [0.0, 0.1, 3.0])
def test_scores_are_those_of_plain_loops(alpha: float) -> None:
    head, means = filled(alpha)
    real = dict(means)
    for label in range(6):
        own = label // 2
        for subspace in range(own + 1, 3):
            others = [k for k in range(6) if (k, own) in real and (k, subspace) in real]
            near = torch.stack(
                [
                    functional.cosine_similarity(real[label, own], real[k, own], dim=0)
                    for k in others
                ]
            )
            weights = near.exp() / near.exp().sum()
            means[label, subspace] = sum(
                w * real[k, subspace] for w, k in zip(weights, others, strict=True)
            )
    features = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    scores = head(features)
    for image in range(7):
        for label in range(6):
            cosines = [
                functional.cosine_similarity(features[j, image].double(), means[label, j], dim=0)
                for j in range(3)
            ]
            own = label // 2
            rest = sum(cosines[j] for j in range(3) if j != own) / 2
            expected = 2 * (cosines[own] + alpha * rest)
            assert scores[image, label].item() == pytest.approx(expected.item(), abs=1e-5)


def test_only_directions_count_for_the_weights_and_sizes_for_the_means() -> None:
    head, _ = filled()
    before = head.means().clone()
    head.sums[0] *= 3  # all means in the first subspace are three times as long
    head._means = None
    torch.testing.assert_close(head.means()[2, 0], before[2, 0])
    head.sums[2] *= 3
    head._means = None
    torch.testing.assert_close(head.means()[2, 0], 3 * before[2, 0])


def test_one_subspace_is_class_means_by_cosine() -> None:
    rows, targets = torch.randn(12, 4), torch.arange(12) % 3
    head, means = SubspacePrototypes(4, scale=1.0), PrototypeHead(4, scale=1.0)
    for each in (head, means):
        each.add_classes(range(3))
    head.add(0, rows, targets)
    means.add(rows, targets)
    torch.testing.assert_close(head(rows[None]), means(rows))


def test_a_subspace_that_is_being_learned_and_a_class_without_samples_change_nothing() -> None:
    head, _ = filled()
    features = torch.randn(3, 4, 5)
    before = head(features)
    head.add_classes([7])
    after = head(features)
    assert torch.equal(after[:, :6], before)
    assert (after[:, 6:] == UNSEEN_LOGIT).all()
    assert SubspacePrototypes(5)(torch.zeros(0, 2, 5)).shape == (2, 0)
