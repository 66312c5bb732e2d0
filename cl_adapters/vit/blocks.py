"""Which blocks of a network a user names."""

from collections.abc import Sequence
from typing import Literal

from cl_adapters.errors import InputError

__all__ = ["blocks_from_text", "expandable_blocks"]


def blocks_from_text(value: object) -> object:
    """Returns what a text says of blocks: a count, their numbers or all; anything else as it is.

    Raises:
        InputError: If a text says none of these.

    Example:
        >>> blocks_from_text("3"), blocks_from_text("7,2"), blocks_from_text("all")
        (3, (7, 2), 'all')
    """
    if not isinstance(value, str) or value == "all":
        return value
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise InputError(
            "`expandable` must be a count of the last blocks, numbers of blocks with commas "
            f"between them, or all, got {value!r}"
        ) from error
    return found if "," in value else found[0]


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
