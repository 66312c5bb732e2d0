"""Which blocks of a network a user names."""

from collections.abc import Sequence
from typing import Literal

from cl_adapters.errors import InputError

__all__ = ["expandable_blocks"]


def expandable_blocks(
    chosen: int | Sequence[int] | Literal["all"], num_blocks: int
) -> tuple[int, ...]:
    """Returns the blocks that can grow, sorted.

    Args:
        chosen: How many of the last blocks, which, counted from 0, or all.
        num_blocks: Blocks that the network has.

    Raises:
        InputError: If one of them does not exist, or there is none.

    Example:
        >>> expandable_blocks(3, 12), expandable_blocks([7, 2], 12)
        ((9, 10, 11), (2, 7))
    """
    if chosen == "all":
        return tuple(range(num_blocks))
    if isinstance(chosen, int):
        if not 1 <= chosen <= num_blocks:
            raise InputError(
                f"`expandable` must be from 1 to the number of blocks, {num_blocks}, got {chosen}"
            )
        return tuple(range(num_blocks - chosen, num_blocks))
    blocks = tuple(sorted(set(chosen)))
    for block in blocks:
        if not 0 <= block < num_blocks:
            raise InputError(
                f"`expandable` must name blocks from 0 to {num_blocks - 1}, got {block}"
            )
    if not blocks:
        raise InputError("`expandable` must name at least one block, got none")
    return blocks
