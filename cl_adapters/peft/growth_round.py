"""What growth has come to in one experience: which blocks grew, who was voted for, what is left."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cl_adapters.peft.growth import Budget, Policy, blocks_to_grow
from cl_adapters.shift.bank import Verdicts

__all__ = ["BlockSize", "GrowthRound"]


class BlockSize(NamedTuple):
    """What a block holds.

    Attributes:
        adapters: How many adapters.
        cost: Parameters that one more would add.
        spent: Parameters that growth has added to it; None: `cost` for each but the first.
    """

    adapters: int
    cost: int
    spent: int | None = None

    @property
    def added(self) -> int:
        """Parameters that growth has added to it."""
        return (self.adapters - 1) * self.cost if self.spent is None else self.spent


class GrowthRound:
    """The growth of one experience under a policy and a budget.

    Args:
        blocks: The blocks that can grow.
        policy: Where and when.
        budget: What growth may cost, over all experiences.
        sizes: Tells what each block holds now.

    Attributes:
        grown: Blocks that grew, in order.
        changed: By block, whether a window was strange to the adapter that was active before.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        policy: Policy,
        budget: Budget,
        sizes: Callable[[], Mapping[int, BlockSize]],
    ) -> None:
        self.blocks, self._policy, self._budget, self._sizes = blocks, policy, budget, sizes
        self.grown: list[int] = []
        self.changed = dict.fromkeys(blocks, False)
        self._votes = {block: Counter[int]() for block in blocks}

    @property
    def remaining(self) -> list[int]:
        """The blocks that have not grown."""
        return [block for block in self.blocks if block not in self.grown]

    def begin_scan(self) -> None:
        """Forgets the votes of the scan before."""
        for votes in self._votes.values():
            votes.clear()

    def vote(self, block: int, adapter: int, images: int, *, changed: bool) -> None:
        """Counts a window's images for the adapter that recognised them best."""
        self._votes[block][adapter] += images
        self.changed[block] |= changed

    def recognised(self, block: int) -> int | None:
        """Returns the adapter that most images of the last scan were for; None without one."""
        votes = self._votes[block].most_common(1)
        return votes[0][0] if votes else None

    def to_grow(self, fired: Mapping[int, bool]) -> list[int]:
        """Returns the blocks that grow now.

        Args:
            fired: Whether all detectors of a block fired, by block, as far as asked.
        """
        free = self.affordable()
        may = {block: each and block in free for block, each in fired.items()}
        return blocks_to_grow(self._policy, may, free)

    def affordable(self) -> list[int]:
        """Returns the blocks that may still grow in this experience."""
        together, sizes = self._policy != "per_block", self._sizes()
        found: list[int] = []
        for block in self.remaining:
            planned = sum(sizes[each].cost for each in found) if together else 0
            if self.refusal(block, planned) is None:
                found.append(block)
        return found

    def refusal(self, block: int, planned: int = 0) -> str | None:
        """Says why a block may not grow; `planned` parameters are spoken for."""
        sizes = self._sizes()
        spent = sum(each.added for each in sizes.values())
        return self._budget.refusal(sizes[block].adapters, spent + planned, sizes[block].cost)

    def told(self, block: int, window: int, scan: Verdicts, *, grown: bool) -> dict[str, object]:
        """Returns what a `scan` event says of a window, and why the block grew or did not.

        Args:
            block: The block.
            window: Number of the window in this pass over the data.
            scan: What the block's detectors said.
            grown: Whether the block grows now.
        """
        reason = f"adapter {scan.best} recognises the data"
        if scan.fired:
            reason = self.refusal(block) or f"all {len(scan.each)} detectors fired"
        values = {"block": block, "window": window, **scan.describe()}
        return {**values, "grown": grown, "reason": reason}
