"""How far rounding alone moves a run: `python -m cl_adapters.benchmarks.studies.rounding RECIPE`.

Each method runs on each class order three times, with everything else equal:

    fp32     in full precision
    bf16     with frozen weights and products in bfloat16
    noise    bf16, and the logits' gradients in the first epoch of an experience times 1 + 0.001 n,
             with n from a standard normal distribution: less than what another processor rounds

The table holds the mean of each over the orders, and by how many points the three lie apart within
an order: on average, and at most. A method that hangs on rounding is not finished.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.errors import InputError
from cl_adapters.records.tables import read_predictions

__all__ = ["VARIANTS", "GradientNoise", "accuracies", "spread", "table"]

VARIANTS: Final = ("fp32", "bf16", "noise")
_SIZE: Final = 1e-3


class GradientNoise(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Multiplies the gradients of the logits by almost one, in the first epoch of an experience.

    Args:
        seed: Of what is drawn.
        size: Standard deviation of the factor.
    """

    def __init__(self, seed: int, size: float = _SIZE) -> None:
        super().__init__()
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)

    def before_backward(self, strategy: Any, *_: object, **__: object) -> None:  # noqa: ANN401
        """Asks for the gradients of this step's logits."""
        logits = strategy.mb_output
        if strategy.clock.train_exp_epochs == 0 and logits.requires_grad:
            logits.register_hook(self._changed)

    def _changed(self, gradient: Tensor) -> Tensor:
        drawn = torch.randn(gradient.shape, generator=self._generator)
        return gradient * (1 + self.size * drawn.to(gradient.device))


def accuracies(run_folder: Path) -> tuple[float, float]:
    """Returns A_last and A_avg (micro) of a run, in percent."""
    rows = read_predictions(run_folder)
    rows = rows[rows["target_experience"] <= rows["experience"]]
    right = (rows["target"] == rows["prediction"]).groupby(rows["experience"]).mean()
    return 100 * float(right.iloc[-1]), 100 * float(right.mean())


def measured(config: RunConfig, variant: str, out: Path) -> tuple[float, float]:
    """Runs a recipe as one of `VARIANTS`; what is finished is not repeated.

    Args:
        config: The recipe, whose precision is that of the variant.
        variant: What else is changed about it.
        out: Folder of all runs; each variant has a folder of its own there.

    Returns:
        A_last and A_avg.
    """
    prepared = prepare(config, cache=open_cache(None))
    if variant == "noise":
        prepared.strategy.add_plugin(GradientNoise(config.seed))
    return accuracies(run(prepared, out / variant))


def spread(by_variant: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns by how many points the variants lie apart within an order: on average, at most.

    Args:
        by_variant: Of each variant, a number an order.

    Example:
        >>> spread([[80.0, 70.0], [81.0, 70.0], [80.0, 73.0]])
        (2.0, 3.0)
    """
    apart = np.ptp(np.array(by_variant), axis=0)
    return float(apart.mean()), float(apart.max())


def table(found: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Returns a Markdown table: a row for each method.

    Args:
        found: By method and variant, A_last and A_avg of each order.
    """
    rows = [
        ["method", "orders", *VARIANTS, "A_avg apart, mean", "at most", "A_last apart, at most"]
    ]
    for method, by_variant in found.items():
        last, average = (
            [[pair[place] for pair in by_variant[each]] for each in VARIANTS] for place in (0, 1)
        )
        means = [f"{np.mean(a):.1f} / {np.mean(b):.1f}" for a, b in zip(last, average, strict=True)]
        mean, most = spread(average)
        tail = [f"{mean:.1f}", f"{most:.1f}", f"{spread(last)[1]:.1f}"]
        rows.append([method, str(len(last[0])), *means, *tail])
    return markdown_table(rows)


def study(
    recipe: Path, strategies: str, orders: int, settings: Sequence[str], out: Path
) -> Iterator[tuple[str, str, int, float, float]]:
    """Yields method, variant, seed, A_last and A_avg of every run.

    Args:
        recipe: The stream.
        strategies: Names, with commas.
        orders: Class orders, one a seed.
        settings: Options, `key=value`.
        out: Folder of all runs.

    Raises:
        InputError: If anything in the recipe is unknown, missing or does not fit.
    """
    recipes = [
        expand(
            {"strategy": strategies, "threads": 1, "precision": "fp32" if it == "fp32" else "bf16"},
            recipe=recipe,
            seeds=orders,
            settings=settings,
        )
        for it in VARIANTS
    ]
    for configs in zip(*recipes, strict=True):
        for variant, config in zip(VARIANTS, configs, strict=True):
            yield config.strategy, variant, config.seed, *measured(config, variant, out)


def main(
    recipe: Path,
    strategy: Annotated[str, typer.Option(help="Names, with commas.")] = "sema,mos,lae,finetune",
    orders: Annotated[int, typer.Option(help="Class orders, one a seed.")] = 5,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Options, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs/rounding"),
) -> None:
    """Prints the table of the docs, and each run as it ends."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    try:
        for method, variant, seed, last, average in study(
            recipe, strategy, orders, set_ or [], out
        ):
            typer.echo(f"{method}\t{variant}\t{seed}\t{last:.2f}\t{average:.2f}", err=True)
            found.setdefault(method, {}).setdefault(variant, []).append((last, average))
    except InputError as error:
        typer.echo(f"rounding: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(table(found), nl=False)


if __name__ == "__main__":
    typer.run(main)
