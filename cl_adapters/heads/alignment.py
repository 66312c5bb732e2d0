"""Aligns a linear head on samples of class Gaussians, so that no experience outweighs another.

Reference: Gengwei Zhang, Liyuan Wang, Guoliang Kang, Ling Chen, Yunchao Wei, "SLCA: Slow Learner
with Classifier Alignment for Continual Learning on a Pre-trained Model", ICCV 2023, arXiv:
2303.05118 (without its normalisation of logits, as MOS uses it).
"""

from dataclasses import dataclass

import torch
from torch import nn

from cl_adapters.heads.gaussians import ClassGaussians
from cl_adapters.schedule import cosine

__all__ = ["Alignment", "align_head"]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a head is aligned.

    Attributes:
        epochs: Rounds of new samples.
        batch_size: Samples a step, and samples a class in an epoch.
        lr: Learning rate of the first epoch.
        weight_decay: Of SGD.
    """

    epochs: int = 30
    batch_size: int = 240
    lr: float = 0.005
    weight_decay: float = 5e-4


def align_head(
    head: nn.Linear,
    classes: ClassGaussians,
    generator: torch.Generator,
    options: Alignment,
) -> None:
    """Trains a head with cross-entropy over all classes, in place.

    Each epoch draws `options.batch_size` new samples a class, shuffles them and takes as many
    steps as there are classes. SGD with momentum 0.9, learning rate along a cosine to 0 over the
    epochs.

    Args:
        head: Row c is the class with the c-th smallest label in `classes`.
        classes: What to draw from.
        generator: Source of randomness, on the CPU.
        options: How long and how fast.
    """
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=options.lr,
        momentum=0.9,
        weight_decay=options.weight_decay,
        fused=True,
    )
    for epoch in range(options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * cosine(epoch, options.epochs)
        features, labels = classes.sample(options.batch_size, generator)
        targets = torch.unique(labels, return_inverse=True)[1]
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for part in torch.split(order, options.batch_size):
            loss = nn.functional.cross_entropy(head(features[part]), targets[part])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
