"""The loss of distillation against a loop over images and classes."""

import math

import torch

from cl_adapters.heads.distillation import soft_cross_entropy


def test_it_is_the_mean_cross_entropy_of_softened_softmaxes() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 3, generator=generator).double() for _ in range(2))
    total = 0.0
    for image in range(4):
        wanted = [math.exp(float(value) / 3) for value in teacher[image]]
        given = [math.exp(float(value) / 3) for value in student[image]]
        for one, other in zip(wanted, given, strict=True):
            total -= one / sum(wanted) * math.log(other / sum(given))
    assert abs(soft_cross_entropy(student, teacher, 3.0).item() - total / 4) < 1e-9


def test_both_sides_learn() -> None:
    student, teacher = (
        torch.tensor([[2.0, 0.0]]).requires_grad_(),
        torch.tensor([[1.0, 0.5]]).requires_grad_(),
    )
    soft_cross_entropy(student, teacher, 2.0).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is not None
    assert teacher.grad.any()
