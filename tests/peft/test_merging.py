"""Merging of whole sets, against loops over entries and the brief's numbers (9.4, 12.2, 12.7)."""

import pytest
import torch

from cl_adapters.peft.merging import fisher_average, orthogonality_term, universal_set


def test_the_worked_universal_set_12_7_1() -> None:
    rows = torch.tensor([[0.4, -0.3, 0.1, -0.2], [0.2, 0.5, -0.3, -0.1], [-0.1, 0.1, -0.2, 0.0]])
    assert universal_set([rows])[0].tolist() == pytest.approx([0.4, 0.5, -0.3, -0.2])


def test_a_universal_set_equals_a_loop_over_entries() -> None:
    draws = torch.Generator().manual_seed(0)
    values, counts = torch.randn(4, 3, 5, generator=draws), torch.arange(4)
    found, last = universal_set([values, counts])
    for row in range(3):
        for column in range(5):
            entries = values[:, row, column].tolist()
            sign = 1 if sum(entries) > 0 else -1
            expected = sign * max(abs(each) for each in entries if each * sign > 0)
            assert found[row, column].item() == pytest.approx(expected)
    assert last.item() == 3  # whole numbers are those of the last set


def test_the_universal_set_of_one_is_that_set_12_7_4() -> None:
    values = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(universal_set([values])[0], values[0])


def test_the_term_that_keeps_sets_apart_is_the_mean_entry_of_all_products_12_7_2() -> None:
    draws = torch.Generator().manual_seed(0)
    up, stored = (torch.randn(*shape, 6, 4, generator=draws) for shape in ((3,), (2, 3)))
    expected = 0.0
    for one in stored:
        blocks = []
        for own, other in zip(up, one, strict=True):
            products = [torch.dot(a / a.norm(), b / b.norm()).item() for a in own for b in other]
            blocks.append(abs(sum(products) / len(products)))
        expected += sum(blocks) / len(blocks)
    assert orthogonality_term(up, stored).item() == pytest.approx(expected, abs=1e-7)


def test_the_worked_average_of_cofima_9_4() -> None:
    old, new = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])
    found = fisher_average(old, new, torch.tensor([1e-4, 0.0]), torch.tensor([1e-5, 0.0]), 0.4)
    # (0.6e-4 * 1 + 0.4e-5 * 2) / 0.64e-4; where both know nothing the plain average.
    assert found.tolist() == pytest.approx([1.0625, 1.4])
