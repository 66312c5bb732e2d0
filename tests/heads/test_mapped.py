"""Class means that are mapped to later networks, against plain sums."""

import torch
from torch.nn import functional

from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.mapped import MappedPrototypes


def test_means_move_from_where_they_were_measured_and_a_class_that_returns_is_mapped_first() -> (
    None
):
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 3, generator=draws)
    head = MappedPrototypes(3, scale=2.0)
    head.add_classes([2, 0])
    head.move_to(torch.zeros(1, 3))
    head.add(rows[:3], torch.tensor([0, 2, 2]), network=0)
    one, two = torch.randn(2, 3, generator=draws)
    head.add_classes([1])
    head.move_to(torch.stack([one, torch.zeros(3)]))
    head.add(rows[3:5], torch.tensor([1, 2]), network=1)  # 2 returns
    second = head.means().float()
    expected = [rows[0] + one, rows[3], (rows[1] + rows[2] + 2 * one + rows[4]) / 3]
    torch.testing.assert_close(second, torch.stack(expected))
    # The next map starts from the means as they were measured, not from where they had been moved.
    head.move_to(torch.stack([two, one, torch.zeros(3)]))
    expected = [rows[0] + two, rows[3] + one, expected[2] + one]
    torch.testing.assert_close(head.means().float(), torch.stack(expected))
    cosines = [functional.cosine_similarity(rows, each[None], dim=1) for each in expected]
    torch.testing.assert_close(head(rows), 2 * torch.stack(cosines, dim=1))


def test_classes_that_were_not_measured_are_never_the_answer() -> None:
    head = MappedPrototypes(2)
    head.add_classes([2])
    head.move_to(torch.zeros(1, 2))
    head.add(torch.tensor([[1.0, 0.0]]), torch.tensor([2]), network=0)
    logits = head(torch.tensor([[-1.0, 0.0]]))
    assert logits[0, :2].tolist() == [UNSEEN_LOGIT] * 2
    assert logits.argmax().item() == 2


def test_a_state_brings_its_shifts() -> None:
    head, other = MappedPrototypes(2), MappedPrototypes(2)
    for each in (head, other):
        each.add_classes([0])
    head.move_to(torch.zeros(1, 2))
    head.add(torch.ones(1, 2), torch.tensor([0]), network=0)
    head.move_to(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    other.load_state_dict(head.state_dict())
    assert other.means().tolist() == [[2.0, 3.0]]
