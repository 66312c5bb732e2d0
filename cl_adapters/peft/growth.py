"""Growth policies: where a firing detector may add an adapter, and until when.

A strategy shows each block what its detectors say; the policy answers which blocks grow now. A
block grows at most once an experience under every policy.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cl_adapters.errors import InputError

__all__ = ["POLICIES", "Budget", "Policy", "blocks_to_grow"]

Policy = Literal["per_block", "whole_network", "every_experience", "never"]

POLICIES: Final[dict[Policy, str]] = {
    "per_block": "a block whose detectors all fire grows, the shallowest first (SEMA in slots)",
    "whole_network": "as soon as one block's detectors all fire, every expandable block grows",
    "every_experience": "every expandable block grows with every experience; no detector is asked",
    "never": "nothing grows after the first experience; no detector is asked",
}


class Budget(BaseModel):
    """What growth may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    adapters: int | None = Field(default=None, ge=1, description="most adapters in a block")
    parameters: float | None = Field(
        default=None, gt=0, description="most parameters of all that was added by growth"
    )

    def check(self, parameters_of_one: int, *, is_set: bool = False) -> None:
        """Refuses a budget that one adapter would break.

        Args:
            parameters_of_one: Numbers that growth adds at least.
            is_set: Whether whole sets of adapters are grown.

        Raises:
            InputError: If `parameters` is smaller than one adapter, or set.
        """
        if self.parameters is None or self.parameters >= parameters_of_one:
            return
        what, parts = (
            ("one set of adapters", "its detector and no class yet")
            if is_set
            else ("one adapter", "its router column and detector")
        )
        raise InputError(
            f"`budget.parameters` must hold {what}, {parameters_of_one} parameters with {parts}, "
            f"got {self.parameters:g}"
        )

    def refusal(self, adapters: int, spent: int, cost: int) -> str | None:
        """Says why a block may not grow, or None if it may.

        Args:
            adapters: Adapters that the block has.
            spent: Parameters that growth has added so far, in all blocks.
            cost: Parameters that would be added.
        """
        if self.adapters is not None and adapters >= self.adapters:
            return f"budget of {self.adapters} adapters a block is spent"
        if self.parameters is not None and spent + cost > self.parameters:
            return f"budget of {self.parameters:g} parameters is spent"
        return None


def blocks_to_grow(policy: Policy, fired: Mapping[int, bool], free: Sequence[int]) -> list[int]:
    """Returns the blocks that grow now.

    Args:
        policy: The policy.
        fired: Whether all detectors of a block fired, by block, as far as asked.
        free: Expandable blocks that have not grown in this experience and may.

    Example:
        >>> blocks_to_grow("per_block", {9: False, 10: True, 11: True}, [9, 10, 11])
        [10]
        >>> blocks_to_grow("whole_network", {9: False, 10: True}, [9, 10, 11])
        [9, 10, 11]
    """
    if policy == "per_block":
        return [block for block in sorted(fired) if fired[block] and block in free][:1]
    if policy == "whole_network":
        return sorted(free) if any(fired.values()) else []
    return sorted(free) if policy == "every_experience" else []
