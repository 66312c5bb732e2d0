"""The alignment of a head: what it is for, its arithmetic, its speed."""

import math
import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.alignment import (
    Alignment,
    aged_means,
    align_head,
    mean_scales,
    reversed_means,
)
from cl_adapters.heads.gaussians import ClassGaussians
from cl_adapters.heads.linear import ExperienceHeads


def clouds(num_classes: int, dim: int, per_class: int = 20) -> ClassGaussians:
    generator = torch.Generator().manual_seed(0)
    classes = ClassGaussians(dim)
    for label in range(num_classes):
        centre = 3 * torch.randn(dim, generator=generator)
        classes.add(label, centre + torch.randn(per_class, dim, generator=generator))
    return classes


def biased_head(num_classes: int, dim: int) -> nn.Linear:
    head = nn.Linear(dim, num_classes)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(10.0 * torch.arange(num_classes))  # the last class wins everywhere
    return head


def test_a_head_that_favours_new_classes_becomes_fair() -> None:
    classes = clouds(8, 16)
    head = biased_head(8, 16)
    features, labels = classes.sample(50, torch.Generator().manual_seed(1))
    assert (head(features).argmax(dim=1) == labels).float().mean() < 0.2
    align_head(head, classes, torch.Generator().manual_seed(2), Alignment(batch_size=40))
    assert (head(features).argmax(dim=1) == labels).float().mean() > 0.95


def test_it_equals_a_plain_loop() -> None:
    classes = clouds(3, 4)
    head = biased_head(3, 4)
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    options = Alignment(epochs=2, batch_size=5, lr=0.1, weight_decay=0.01)
    align_head(head, classes, torch.Generator().manual_seed(3), options)
    generator = torch.Generator().manual_seed(3)
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for rate in (0.1, 0.1 * (1 + math.cos(math.pi / 2)) / 2):
        features, labels = classes.sample(5, generator)
        order = torch.randperm(15, generator=generator)
        for step in range(3):
            rows = order[5 * step : 5 * step + 5]
            error = functional.softmax(features[rows] @ weight.T + bias, dim=1)
            error = (error - functional.one_hot(labels[rows], 3)) / 5
            gradients = [error.T @ features[rows], error.sum(dim=0)]
            for value, gradient, velocity in zip((weight, bias), gradients, momentum, strict=True):
                velocity.mul_(0.9).add_(gradient + 0.01 * value)
                value.sub_(rate * velocity)
    torch.testing.assert_close(head.weight.detach(), weight)
    torch.testing.assert_close(head.bias.detach(), bias)


@pytest.mark.slow
def test_a_hundred_classes_take_less_than_twenty_seconds() -> None:
    classes = clouds(100, 192, per_class=100)
    since = time.perf_counter()
    align_head(biased_head(100, 192), classes, torch.Generator().manual_seed(0), Alignment())
    assert time.perf_counter() - since < 20


def test_normalised_logits_and_scaled_means_equal_a_plain_loop() -> None:
    classes = clouds(3, 4)
    experiences, scales = torch.tensor([0, 1, 1]), torch.tensor([0.9, 1.0, 0.5])
    head = biased_head(3, 4)
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(5))
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    options = Alignment(
        epochs=5,
        batch_size=4,
        lr=0.1,
        weight_decay=0.01,
        samples_per_class=6,
        schedule_epochs=2,
        temperature=0.1,
    )
    draws = torch.Generator().manual_seed(3)
    align_head(head, classes, draws, options, experiences=experiences, mean_scales=scales)
    generator = torch.Generator().manual_seed(3)
    values = [weight.requires_grad_(), bias.requires_grad_()]
    momentum = [torch.zeros_like(each) for each in values]
    for rate in (0.1, 0.05, 0.0, 0.05, 0.1):  # a cosine over two epochs, and back
        plain, labels = classes.sample(6, generator)
        shift = torch.stack([(scales[c] - 1) * classes.means[c] for c in labels.tolist()])
        order = torch.randperm(18, generator=generator)
        for rows in order.split(4):
            losses = []
            for row in rows.tolist():
                z = values[0] @ (plain + shift)[row] + values[1]
                length = (z[:1].norm() + 1e-7 + z[1:].norm() + 1e-7) / 2
                losses.append(-(z / length / 0.1).log_softmax(dim=0)[labels[row]])
            gradients = torch.autograd.grad(torch.stack(losses).mean(), values)
            with torch.no_grad():
                for value, gradient, velocity in zip(values, gradients, momentum, strict=True):
                    velocity.mul_(0.9).add_(gradient + 0.01 * value)
                    value.sub_(rate * velocity)
    torch.testing.assert_close(head.weight, weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(head.bias, bias, rtol=1e-3, atol=1e-4)


def test_slcas_factors_on_class_means() -> None:
    experiences = torch.arange(10).repeat_interleave(2)
    expected = [0.9 + 0.1 * (each + 1) / 10 for each in range(10) for _ in range(2)]
    assert aged_means(experiences).tolist() == pytest.approx(expected)


def test_a_temperature_without_experiences_is_refused() -> None:
    with pytest.raises(InputError, match="must know the experience of each row"):
        align_head(biased_head(2, 4), clouds(2, 4), torch.Generator(), Alignment(temperature=0.1))


def test_tunas_factors_on_class_means_as_published() -> None:
    # 20 classes each in ten experiences: class 0 gets 0.91, 1 to 20 get 0.90, the last ones 0.81.
    experiences = torch.arange(10).repeat_interleave(20)
    expected = [0.9 + 0.1 * (c // (180 - 200) + 1) / 10 for c in range(200)]
    found = reversed_means(experiences).tolist()
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(0.91)
    assert found[1:21] == pytest.approx([0.9] * 20)
    assert found[-19:] == pytest.approx([0.81] * 19)
    # Rows stand by label: the number of a class is counted by experience first.
    mixed = torch.tensor([1, 0, 1, 0])
    assert reversed_means(mixed).tolist() == pytest.approx([0.9, 0.95, 0.85, 0.9])


def test_factors_by_name() -> None:
    experiences = torch.tensor([0, 1])
    assert mean_scales("none", experiences) is None
    for name, rule in (("slca", aged_means), ("tuna", reversed_means)):
        found = mean_scales(name, experiences)  # type: ignore[arg-type] # a literal in a loop
        assert found is not None
        assert torch.equal(found, rule(experiences))


def test_a_cosine_head_is_aligned_as_a_plain_loop_aligns_it() -> None:
    classes, heads = clouds(3, 4), ExperienceHeads(4, init_std=0.5, cosine_scale=20.0)
    for label in range(3):
        heads.add_classes([label], torch.Generator().manual_seed(label))
    head = heads.joined([0, 1, 2])
    weight = head.weight.detach().clone().requires_grad_()
    options = Alignment(epochs=1, batch_size=6, lr=0.01, weight_decay=0.1, samples_per_class=4)
    align_head(head, classes, torch.Generator().manual_seed(3), options)
    generator = torch.Generator().manual_seed(3)
    features, labels = classes.sample(4, generator)
    velocity = torch.zeros_like(weight)
    for rows in torch.randperm(12, generator=generator).split(6):
        lengths = features[rows].norm(dim=1)[:, None] * weight.norm(dim=1)
        logits = 20 * features[rows] @ weight.T / lengths
        loss = -logits.log_softmax(dim=1)[torch.arange(6), labels[rows]].mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            velocity = 0.9 * velocity + gradient + 0.1 * weight
            weight -= 0.01 * velocity
    torch.testing.assert_close(head.weight, weight, rtol=1e-4, atol=1e-5)
