"""What evaluation shows of a method beside its predictions: routers used, votes that differ."""

from collections import defaultdict
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

__all__ = ["RouterUsage", "Votes"]


class RouterUsage(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Logs, after each evaluation, a `router` event a block.

    It reads the output's extra `router`: a `SlotRecord` for each block. The event's `weights` hold
    a row for each experience of the test stream that was evaluated, in order, with the mean weight
    of each adapter over that experience's images.
    """

    def before_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Starts with empty sums."""
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._images: dict[int, int] = defaultdict(int)

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Adds the weights of a batch."""
        experience = strategy.experience.current_experience
        self._images[experience] += len(strategy.mb_y)
        for block, record in strategy.output.extras.get("router", {}).items():
            total = record.weights.double().sum(dim=0)
            key = (block, experience)
            self._sums[key] = self._sums.get(key, torch.zeros_like(total)) + total

    def after_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Logs the means."""
        for block in sorted({block for block, _ in self._sums}):
            rows = [
                (self._sums[block, experience] / images).tolist()
                for experience, images in sorted(self._images.items())
            ]
            strategy.log_event("router", block=block, weights=rows)


class Votes(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Logs, after each evaluation, a `votes` event: where two voters differ, and who was right.

    The output's extra `votes` says what two voters chose, a pair of classes for each image of the
    batch; where a model asked one alone there is none, and nothing to log.
    """

    def before_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Starts with empty sums."""
        self._counts: dict[int, Tensor] = {}

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Counts a batch."""
        if "votes" not in strategy.output.extras:
            return
        first, second = strategy.output.extras["votes"]
        targets, differ = strategy.mb_y, first != second
        is_right = strategy.mb_output.argmax(dim=1) == targets
        claims = (first == targets, second == targets, is_right)
        among = [(differ & claim).sum() for claim in claims]
        counts = torch.stack([torch.ones_like(targets).sum(), differ.sum(), *among])
        experience = strategy.experience.current_experience
        self._counts[experience] = self._counts.get(experience, torch.zeros_like(counts)) + counts

    def after_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        """Logs the counts, a number for each test experience in order."""
        if not self._counts:
            return
        table = torch.stack([counts for _, counts in sorted(self._counts.items())])
        names = ("images", "differ", "online_right", "offline_right", "vote_right")
        columns = zip(names, table.T.tolist(), strict=True)
        strategy.log_event("votes", experiences=sorted(self._counts), **dict(columns))
