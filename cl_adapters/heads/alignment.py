"""Aligns a linear head on samples of class Gaussians, so that no experience outweighs another.

Reference: Gengwei Zhang, Liyuan Wang, Guoliang Kang, Ling Chen, Yunchao Wei, "SLCA: Slow Learner
with Classifier Alignment for Continual Learning on a Pre-trained Model", ICCV 2023, arXiv:
2303.05118. Without options it is what MOS makes of it; SLCA scales the means of older classes down
(`aged_means`) and normalises the logits (`temperature`), and puts the head back afterwards
(`unaligned.py`). TUNA means to scale as SLCA does, but divides by a negative number, so that newer
classes get the smaller means (`reversed_means`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.gaussians import ClassGaussians
from cl_adapters.schedule import cosine

__all__ = [
    "Alignment",
    "MeanScaling",
    "aged_means",
    "align_head",
    "mean_scales",
    "normalized_logits",
    "reversed_means",
]

MeanScaling = Literal["none", "slca", "tuna"]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a head is aligned.

    Attributes:
        epochs: Rounds of new samples.
        batch_size: Samples a step.
        lr: Learning rate of the first epoch.
        weight_decay: Of SGD.
        samples_per_class: Samples of a class in an epoch; None takes `batch_size`.
        schedule_epochs: Epochs in which the learning rate would reach 0, after which it rises
            again; None takes `epochs`.
        temperature: tau, of normalised logits; None leaves logits as they are.
        steps: Most steps of an epoch; None takes all samples.
    """

    epochs: int = 30
    batch_size: int = 240
    lr: float = 0.005
    weight_decay: float = 5e-4
    samples_per_class: int | None = None
    schedule_epochs: int | None = None
    temperature: float | None = None
    steps: int | None = None


def align_head(
    head: nn.Module,
    classes: ClassGaussians,
    generator: torch.Generator,
    options: Alignment,
    *,
    experiences: Tensor | None = None,
    mean_scales: Tensor | None = None,
) -> None:
    """Trains a head with cross-entropy over all classes, in place.

    Each epoch draws new samples of every class, shuffles them and takes a step with each batch of
    them. SGD with momentum 0.9, learning rate along a cosine to 0 over the epochs.

    Args:
        head: From features (B, D) to logits; column c is the class with the c-th smallest label in
            `classes`.
        classes: What to draw from.
        generator: Source of randomness, on the CPU.
        options: How long and how fast.
        experiences: (C,), the experience of each row; asked for by `options.temperature`.
        mean_scales: (C,), factor on the means of each row's class, such as `aged_means`.

    Raises:
        InputError: If logits are to be normalised and the rows' experiences are not given.
    """
    if options.temperature is not None and experiences is None:
        raise InputError("alignment with a `temperature` must know the experience of each row")
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=options.lr,
        momentum=0.9,
        weight_decay=options.weight_decay,
        fused=True,
    )
    per_class = options.samples_per_class or options.batch_size
    for epoch in range(options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * cosine(epoch, options.schedule_epochs or options.epochs)
        features, labels = classes.sample(per_class, generator, mean_scales=mean_scales)
        targets = torch.unique(labels, return_inverse=True)[1]
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for part in torch.split(order, options.batch_size)[: options.steps]:
            logits = head(features[part])
            if options.temperature is not None and experiences is not None:
                logits = normalized_logits(logits, experiences, options.temperature)
            loss = functional.cross_entropy(logits, targets[part])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()


def normalized_logits(logits: Tensor, experiences: Tensor, temperature: float) -> Tensor:
    """Returns logits over the mean length that they have by experience, over the temperature.

    Args:
        logits: z, (B, C).
        experiences: (C,), the experience of each column.
        temperature: tau, above 0.

    Shape:
        Output: (B, C).

    Example:
        >>> logits = torch.tensor([[3.0, 4.0, 0.0, 12.0, 5.0]])  # lengths 5 and 13, 9 on average
        >>> scaled = normalized_logits(logits, torch.tensor([0, 0, 1, 1, 1]), 0.1)
        >>> [round(value, 2) for value in scaled[0].tolist()]
        [3.33, 4.44, 0.0, 13.33, 5.56]
    """
    lengths = [
        logits[:, experiences == each].norm(dim=1) + 1e-7 for each in torch.unique(experiences)
    ]
    return logits / torch.stack(lengths).mean(dim=0)[:, None] / temperature


def aged_means(experiences: Tensor) -> Tensor:
    """Returns SLCA's factor on class means: from just above 0.9 for the oldest to 1 for the newest.

    Args:
        experiences: (C,), the experience of each class, counted from 0.

    Example:
        >>> [round(value, 2) for value in aged_means(torch.tensor([0, 1, 4])).tolist()]
        [0.92, 0.94, 1.0]
    """
    return 0.9 + 0.1 * (experiences + 1) / (experiences.max() + 1)


def reversed_means(experiences: Tensor) -> Tensor:
    """Returns TUNA's factor on class means, as published: from 0.91 down, the newer the smaller.

    Class number c, counted by experience and then by row, gets
    0.9 + 0.1 (floor(c / -n) + 1) / T, n the classes of the newest of T experiences.

    Args:
        experiences: (C,), the experience of each class, counted from 0.

    Example:
        >>> [round(value, 2) for value in reversed_means(torch.tensor([0, 0, 1, 1])).tolist()]
        [0.95, 0.9, 0.9, 0.85]
    """
    number = torch.empty_like(experiences)
    number[torch.argsort(experiences, stable=True)] = torch.arange(
        len(experiences), device=experiences.device
    )
    newest = experiences.max()
    steps = torch.div(number, -(experiences == newest).sum(), rounding_mode="floor")
    return 0.9 + 0.1 * (steps + 1) / (newest + 1)


def mean_scales(scaling: MeanScaling, experiences: Tensor) -> Tensor | None:
    """Returns the factor on each class mean, (C,); None if means stay as they are.

    Args:
        scaling: Whose rule.
        experiences: (C,), the experience of each class, counted from 0.
    """
    if scaling == "none":
        return None
    return aged_means(experiences) if scaling == "slca" else reversed_means(experiences)
