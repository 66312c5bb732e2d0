"""The ridge head and its strength against plain formulas."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.heads.ridge import STRENGTHS, RidgeHead, choose_strength


def data(count: int = 40, width: int = 6, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    targets = torch.randint(classes, (count,), generator=generator)
    features = torch.randn(count, width, generator=generator)
    features[torch.arange(count), targets] += 2
    return features, targets


def test_batches_and_new_classes_give_the_regression_over_all_at_once() -> None:
    features, targets = data()
    head = RidgeHead(6, scale=1.0)
    for part in (targets == 2, targets != 2):
        head.add_classes(targets[part].unique().tolist())
        for rows in torch.split(part.nonzero()[:, 0], 7):
            head.add(features[rows], targets[rows])
    head.solve(0.5)
    plain, truth = features.double(), torch.nn.functional.one_hot(targets).double()
    weight = torch.linalg.lstsq(
        torch.cat([plain, 0.5**0.5 * torch.eye(6).double()]),
        torch.cat([truth, torch.zeros(6, 3).double()]),
    ).solution
    assert torch.allclose(head(features).double(), plain @ weight, atol=1e-5)


def test_a_class_without_a_sample_is_never_chosen() -> None:
    head = RidgeHead(2)
    head.add_classes([0, 2])
    head.add(torch.eye(2), torch.tensor([0, 2]))
    head.solve(1.0)
    assert head(torch.tensor([[-9.0, -9.0]])).argmax().item() != 1


def test_a_system_that_is_not_definite_is_refused() -> None:
    head = RidgeHead(2)
    head.add_classes([0])
    with pytest.raises(InputError, match="must make the system definite, got 0"):
        head.solve(0.0)


def test_a_strength_that_rounding_swallows_is_raised_tenfold_until_it_counts() -> None:
    features, targets = data(count=20, width=50)  # fewer samples than features: rank 20 of 50
    head = RidgeHead(50, scale=1.0)
    head.add_classes([0, 1, 2])
    head.add(1e4 * features, targets)
    with pytest.raises(InputError, match="must make the system definite"):
        head.solve(1e-8)
    taken = head.solve_from(1e-8)
    assert taken > 1e-8
    assert round(math.log10(taken / 1e-8), 6).is_integer()
    with pytest.raises(InputError, match="must make the system definite"):
        head.solve(taken / 10)
    assert torch.equal(head(1e4 * features).argmax(dim=1), targets)
    assert head.solve_from(1.0) == 1.0


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_what_no_strength_mends_is_refused(value: float) -> None:
    head = RidgeHead(2)
    head.add_classes([0])
    if value:
        head.gram.fill_(value)
    with pytest.raises(InputError, match="must make the system definite"):
        head.solve_from(0.1 if value else 0.0)


@pytest.mark.parametrize(("count", "width"), [(60, 10), (60, 200)])
def test_the_strength_has_the_least_error_on_held_out_samples(count: int, width: int) -> None:
    features, targets = data(count, width)
    seeded = torch.Generator().manual_seed(3)
    found = choose_strength(features, targets, seeded)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    held = count // 5
    truth = torch.nn.functional.one_hot(targets).double()
    rows, errors = features.double(), {}
    for strength in STRENGTHS:
        known = rows[order[held:]]
        system = known.T @ known + strength * torch.eye(width).double()
        weight = torch.linalg.solve(system, known.T @ truth[order[held:]])
        errors[strength] = float(((rows[order[:held]] @ weight - truth[order[:held]]) ** 2).mean())
    assert found is not None
    assert errors[found] <= 1.001 * min(errors.values())
    assert found < 1e8


def test_too_few_samples_hold_none_out() -> None:
    assert choose_strength(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), torch.Generator()) is None
