"""Which runs of a sweep wait to be tried, and how the others ended."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cl_adapters.benchmarks.running.recipe import RunConfig

__all__ = ["JobQueue", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        config: Its recipe.
        folder: Its run directory; None if it did not finish.
        error: The sentence that ended it; None if it finished.
        final: Whether another try would end the same way.
        notes: What the user may not expect of this run, such as earlier tries.
        trouble: What concerns other runs too: why the cache keeps nothing any more.
    """

    config: RunConfig
    folder: Path | None = None
    error: str | None = None
    final: bool = False
    notes: tuple[str, ...] = ()
    trouble: str | None = None


class JobQueue:
    """Which runs of a sweep wait to be tried, and how the others ended.

    Args:
        configs: The recipes.
        retries: How often a run is taken up again that failed for a reason outside its recipe.

    Attributes:
        waiting: Places in `configs` of those that wait, the next one first.
        ended: How those that are over ended, in the order in which they did.
    """

    def __init__(self, configs: Sequence[RunConfig], retries: int) -> None:
        self._configs, self._retries = configs, retries
        self._tries: Counter[int] = Counter()
        self._notes: dict[int, tuple[str, ...]] = {}
        self.waiting = deque(range(len(configs)))
        self.ended: dict[int, Outcome] = {}

    def end(self, index: int, outcome: Outcome, *, blameless: bool = False) -> None:
        """Notes how a try ended; the run waits again if another one makes sense.

        Args:
            index: The recipe's place.
            outcome: How the try ended.
            blameless: Whether it does not count: its machine was lost.
        """
        self._tries[index] += not blameless
        notes = (*self._notes.get(index, ()), *outcome.notes)
        if outcome.error is None or outcome.final or self._tries[index] > self._retries:
            self.ended[index] = replace(outcome, notes=notes)
        else:
            self._notes[index] = (*notes, f"was tried again: {outcome.error}")
            self.waiting.append(index)

    def outcomes(self) -> list[Outcome]:
        """Returns how the runs ended, in the order of their recipes; all of them are over."""
        return [self.ended[index] for index in range(len(self._configs))]
