"""Self-refined retrieval: a model corrects, image by image, which of its adapters should answer.

A first prediction names an adapter. That adapter's answer names a class; if another adapter is in
charge of it, that one is asked next, until one confirms itself or `max_rounds` have been asked:

    k <- first
    repeat:  l = logits with adapter k;  k' = owner of argmax l;  stop if k' = k;  k <- k'

Only the adapters that images ask for are run: one batch a round, of the images still in doubt, each
with its own adapter. An image that comes back to an adapter gets the same logits without a pass.

Reference: Sun et al., "MOS: Model Surgery for Pre-Trained Model-Based Class-Incremental Learning",
AAAI 2025, arXiv:2412.09441.

Shapes: B images, C classes, V rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Retrieval", "retrieve"]


@dataclass(frozen=True)
class Retrieval:
    """How a batch was answered.

    Attributes:
        logits: (B, C), of the last adapter that each image asked.
        first_logits: (B, C), of the first.
        visited: (B, V), the adapters asked, in order; -1 after the last.
    """

    logits: Tensor
    first_logits: Tensor
    visited: Tensor


def retrieve(
    first: Tensor,
    class_to_task: Tensor,
    ask: Callable[[Tensor, Tensor], Tensor],
    *,
    max_rounds: int = 4,
) -> Retrieval:
    """Asks adapters until each image has one that confirms itself.

    Args:
        first: (B,), the adapter that each image asks first.
        class_to_task: (C,), the adapter in charge of each class.
        ask: From indices of images (b,) and an adapter for each (b,) to logits (b, C).
        max_rounds: Most adapters asked for an image; 1 takes the first answer.
    """
    doubt = torch.arange(len(first), device=first.device)
    adapter = first
    visited = first.new_full((len(first), max_rounds), -1)
    answers = torch.zeros(max_rounds, len(first), len(class_to_task), device=first.device)
    last = torch.zeros_like(first)
    for number in range(max_rounds):
        if len(doubt) == 0:
            break
        before = visited[doubt, :number] == adapter[:, None]
        fresh = ~before.any(dim=1)
        if bool(fresh.any()):
            answers[number, doubt[fresh]] = ask(doubt[fresh], adapter[fresh])
        back = doubt[~fresh]
        if len(back):
            answers[number, back] = answers[before[~fresh].int().argmax(dim=1), back]
        visited[doubt, number] = adapter
        last[doubt] = number
        owner = class_to_task[answers[number, doubt].argmax(dim=1)]
        moved = owner != adapter
        doubt, adapter = doubt[moved], owner[moved]
    rows = torch.arange(len(first), device=first.device)
    return Retrieval(answers[last, rows], answers[0], visited)
