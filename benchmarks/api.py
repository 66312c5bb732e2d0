"""Runs from Python: what `cl-adapters run` does, as one call."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cl_adapters.benchmarks.running.batch import expand, run_batch
from cl_adapters.benchmarks.running.continuing import to_go_on
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.strategies import STRATEGY_NAMES
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["continue_run", "run"]


def continue_run(
    run: str | Path,
    data: str | Path,
    *,
    out: str | Path = "runs",
    quiet: bool = True,
    cache: str | Path | None = None,
    weights: str | Path | None = None,
    **part: object,
) -> Path:
    """Learns further images on top of what a run has learned, and returns the new run's directory.

    The run itself stays as it is. A continued run that was stopped goes on, and a finished one is
    not repeated.

    Args:
        run: Run directory of a finished run, or a folder with one run in it.
        data: The images to learn: a folder or a table.
        out: Folder of all runs.
        quiet: Show no progress.
        cache: Folder for what frozen parts compute, or `off`; None takes the user's cache.
        weights: File of the frozen backbone where it no longer is where the run had it.
        **part: `increment`, new classes an experience (by default all at once); `old_test`, class
            folders with test images of what was learned before, or `none` (by default those that
            the run was evaluated on, if they are still there); and how the images are read:
            `class_depth`, `domain_folders`, `image_column`, `label_column`, `max_megapixels`,
            `test_set`.

    Raises:
        InputError: If the run cannot be continued, or anything named is missing or does not fit.
        RunError: If the new run cannot go on.
    """
    parent, config, notes = to_go_on(run, data, part, out=user_path(out), weights=weights)
    (folder,) = run_batch(
        [config],
        user_path(out),
        quiet=quiet,
        cache=open_cache(cache),
        parent=parent,
        notes=notes,
    )
    return folder


def run(
    strategy: str | type[AdapterStrategy] | Sequence[str | type[AdapterStrategy]],
    *,
    seeds: int = 1,
    out: str | Path = "runs",
    options: Mapping[str, object] | None = None,
    quiet: bool = True,
    cache: str | Path | None = None,
    **recipe: object,
) -> list[Path]:
    """Runs strategies on a stream, records everything and returns the run directories.

    A finished run is not repeated; one that was stopped continues.

    Args:
        strategy: Names or classes, one or several. A class stands at the top level of a file, whose
            checksum goes into the record; a script that calls `run` does so under
            `if __name__ == "__main__":`.
        seeds: Number of seeds, from 0 or the recipe's `seed` on.
        out: Folder of all runs.
        options: Options of the strategies; `strategy.option` sets it for one of them.
        quiet: Show no progress.
        cache: Folder for what frozen parts compute, or `off`; None takes the user's cache.
        **recipe: Any key of a recipe, such as `stream="digits"` or `increment=5`.

    Raises:
        InputError: If anything named is unknown, missing, broken or does not fit.
        RunError: If a run cannot go on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (path,) = run("simplecil", increment=5, image_size=16, out=folder)
        ...     (path / "run.json").is_file()
        True
    """
    several = [strategy] if isinstance(strategy, str | type) else strategy
    if not isinstance(several, Iterable) or not all(isinstance(e, str | type) for e in several):
        raise InputError(f"strategies must be names or classes, got {strategy!r}")
    if not isinstance(options, Mapping | None):
        raise InputError(f"options must be a mapping of names to values, got {options!r}")
    names = ",".join(map(STRATEGY_NAMES.reference, several))
    values = {"strategy": names, **recipe, "options": dict(options or {})}
    configs = expand(values, recipe=None, seeds=seeds, settings=())
    return run_batch(configs, user_path(out), quiet=quiet, cache=open_cache(cache))
