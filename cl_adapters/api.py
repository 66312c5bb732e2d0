"""`import cl_adapters as cla`: runs, and what they found, in one call."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cl_adapters.benchmarks.api import run as run_all
from cl_adapters.reports.runs import Runs, load_runs
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["run"]


def run(
    strategy: str | type[AdapterStrategy] | Sequence[str | type[AdapterStrategy]],
    *,
    seeds: int = 1,
    out: str | Path = "runs",
    options: Mapping[str, object] | None = None,
    quiet: bool = True,
    cache: str | Path | None = None,
    **recipe: object,
) -> Runs:
    """Runs strategies on a stream, records everything and returns what was found.

    `cl-adapters run` from Python, with the same names of options: `--image-size 16` is
    `image_size=16`. A finished run is not repeated, and one that was stopped continues.

    Args:
        strategy: Names or classes, one or several. A class stands at the top level of a file, whose
            checksum goes into the record; a script that calls `run` does so under
            `if __name__ == "__main__":`.
        seeds: Number of seeds, from 0 or the recipe's `seed` on.
        out: Folder of all runs.
        options: Options of the strategies; `strategy.option` sets it for one of them.
        quiet: Show no progress.
        cache: Folder for what frozen parts compute, or `off`; None takes the user's cache.
        **recipe: Any key of a recipe, such as `stream="digits"`, `data="photos"` or `increment=5`.

    Returns:
        The runs that were asked for, whatever else `out` holds.

    Raises:
        InputError: If anything named is unknown, missing, broken or does not fit.
        RunError: If a run cannot go on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     runs = run("simplecil", increment=5, image_size=16, out=folder)
        >>> runs.table("a_last_micro")["method"].tolist(), runs[0].record.state
        (['simplecil'], 'finished')
    """
    folders = run_all(
        strategy, seeds=seeds, out=out, options=options, quiet=quiet, cache=cache, **recipe
    )
    return load_runs(folders)
