"""How much each test experience uses each adapter of a routed slot."""

from collections import defaultdict
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_adapters.expandable import ExpandableViT

__all__ = ["RouterUsage"]


class RouterUsage(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Notes, after each evaluation, a `router` event a block.

    Its `weights` hold a row for each experience of the test stream that was evaluated, in order,
    with the mean weight of each adapter over that experience's images.
    """

    def before_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Starts with empty sums."""
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._images: dict[int, int] = defaultdict(int)

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Adds the weights of a batch."""
        experience = strategy.experience.current_experience
        model: ExpandableViT = strategy.model
        self._images[experience] += len(strategy.mb_y)
        for block in model.expandable:
            total = model.slot(block).weights.double().sum(dim=0).cpu()
            key = (block, experience)
            self._sums[key] = self._sums.get(key, torch.zeros_like(total)) + total

    def after_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Notes the means."""
        for block in strategy.model.expandable:
            rows = [
                (self._sums[block, experience] / images).tolist()
                for experience, images in sorted(self._images.items())
            ]
            strategy.note("router", block=block, weights=rows)
