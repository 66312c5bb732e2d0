"""Tables as the pages of the docs hold them."""

from collections.abc import Sequence

__all__ = ["markdown_table"]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, a line a row.

    Args:
        rows: Texts of the cells, the header first; rows are as long as the header.

    Example:
        >>> print(markdown_table([["name", "value"], ["k", "2"]]), end="")
        | name | value |
        | --- | --- |
        | k | 2 |
    """
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
