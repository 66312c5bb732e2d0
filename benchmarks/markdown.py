"""Tables as the pages of the docs hold them."""

import statistics
from collections.abc import Sequence

__all__ = ["interval_text", "markdown_table"]


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


def interval_text(values: Sequence[float], *, signed: bool = False) -> str:
    """Returns a mean and its 95 % interval (Student's t); of one value, the value alone.

    Args:
        values: One a seed.
        signed: Write + before what is not below 0.

    Example:
        >>> interval_text([1.0, 3.0]), interval_text([1.0, 3.0], signed=True), interval_text([2.0])
        ('2.0 ± 12.7', '+2.0 ± 12.7', '2.0')
    """
    count = len(values)
    mean = format(statistics.fmean(values), "+.1f" if signed else ".1f")
    if count < 2:
        return mean
    # Slow to load, and `--help` imports this file.
    from scipy.special import stdtrit  # noqa: PLC0415

    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / count**0.5
    return f"{mean} ± {half:.1f}"
