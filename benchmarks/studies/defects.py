"""What published code does beside its paper, and the price: `...studies.defects RECIPE`.

Each line of `DEFECTS` is something that authors' code does and their paper does not say, as an
option of ours that turns it on. Every method runs on each class order twice, as it is here by
default and with the option, everything else equal, so that one order's difference is its price
there. The table holds the means and the price with its 95 % interval over orders (Student's t).

What was finished before is read and not run again, whoever ran it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from cl_adapters.benchmarks.markdown import interval_text, markdown_table
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.benchmarks.studies.rounding import accuracies
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.errors import InputError

__all__ = ["DEFECTS", "Defect", "Price", "prices", "table"]


@dataclass(frozen=True)
class Defect:
    """Something that published code does.

    Attributes:
        strategy: The method.
        options: What turns it on, as texts `key=value`.
        says: What it does, in a few words.
    """

    strategy: str
    options: tuple[str, ...]
    says: str


DEFECTS: Final = (
    Defect("l2p", ("selection=batch",), "a test batch votes on its prompts"),
    Defect("dualprompt", ("selection=batch",), "a test batch votes on its prompts"),
    Defect("dualprompt", ("prompt_pairing=port",), "ports give images each other's prompts"),
    Defect("hide_prompt", ("prompt_pairing=port",), "images get each other's prompts"),
    Defect("hide_prompt", ("steps=old",), "alignment stops after as many steps as old classes"),
    Defect("coda_prompt", ("start=classical",), "new components lean on trained ones"),
    Defect("inflora", ("first_form=published",), "first directions are kept the wrong way round"),
    Defect("inflora", ("moments=augmented",), "directions come from augmented images"),
    Defect("sd_lora", ("keep_function=false",), "what was learned jumps when an experience ends"),
    Defect("cl_lora", ("kd_step=separate_forward",), "distillation takes a step of its own"),
    Defect("cofima", ("new_head=scaled",), "the new head is multiplied away"),
    Defect("cofima", ("old_heads=stale",), "old heads are weighed by left-over gradients"),
    Defect("ssiat", ("pairing=official",), "drift compares an image with any other"),
    Defect("ssiat", ("head_freeze=false",), "old heads shrink by weight decay"),
    Defect("tuna", ("head_freeze=false",), "old heads shrink by weight decay"),
    Defect("tuna", ("second=last",), "the universal set is never reached"),
    Defect("tuna", ("mean_scaling=tuna",), "class means shrink the newer they are"),
    Defect(
        "tuna",
        ("orthogonality=0.001", "detach_stored=false"),
        "finished sets go on moving",
    ),
    Defect("mos", ("merge_in_evaluation=true",), "evaluating changes the sets"),
    Defect(
        "mos",
        ("task_predictor=prototypes", "prototype_dropout=true"),
        "class means are taken with dropout",
    ),
)


@dataclass(frozen=True)
class Price:
    """What a defect costs on one class order.

    Attributes:
        defect: The defect.
        seed: The order.
        without: A_last and A_avg as the method is here by default, in percent.
        having: The same with the defect.
    """

    defect: Defect
    seed: int
    without: tuple[float, float]
    having: tuple[float, float]


def prices(
    recipe: Path, orders: int, out: Path, strategies: Sequence[str] = (), threads: int = 1
) -> Iterator[Price]:
    """Yields what each defect costs on each order, as runs end.

    Args:
        recipe: The stream.
        orders: Class orders, one a seed.
        out: Folder of all runs, as `cl-adapters run --out` takes it.
        strategies: Only the defects of these; none: of all.
        threads: Of the CPU.

    Raises:
        InputError: If anything in the recipe is unknown, missing or does not fit, or a method is
            named of which nothing is known.
    """
    known = list(dict.fromkeys(each.strategy for each in DEFECTS))
    for name in strategies:
        if name not in known:
            raise InputError(f"--strategy must name some of {', '.join(known)}, got {name!r}")
    for name in strategies or known:
        plain = _measured(recipe, name, (), orders, out, threads)
        for defect in (each for each in DEFECTS if each.strategy == name):
            having = _measured(recipe, name, defect.options, orders, out, threads)
            for seed, pair in enumerate(zip(plain, having, strict=True)):
                yield Price(defect, seed, *pair)


def _measured(
    recipe: Path, strategy: str, options: Sequence[str], orders: int, out: Path, threads: int
) -> list[tuple[float, float]]:
    given = {"strategy": strategy, "threads": threads}
    configs = expand(given, recipe=recipe, seeds=orders, settings=options)
    return [accuracies(run(prepare(each, cache=open_cache(None)), out)) for each in configs]


def table(found: Sequence[Price]) -> str:
    """Returns a Markdown table: a row for each defect, with what it adds in points.

    Args:
        found: Of all defects and orders.
    """
    rows = [["method", "what it does", "option", "orders", "A_last here", "with it", "A_avg"]]
    for defect in dict.fromkeys(each.defect for each in found):
        own = [each for each in found if each.defect == defect]
        last, average = ([a.having[k] - a.without[k] for a in own] for k in (0, 1))
        here = float(np.mean([each.without[0] for each in own]))
        option = " ".join(f"`{each}`" for each in defect.options)
        told = [
            f"{here:.1f}",
            interval_text(last, signed=True),
            interval_text(average, signed=True),
        ]
        rows.append([defect.strategy, defect.says, option, str(len(own)), *told])
    return markdown_table(rows)


def main(
    recipe: Path,
    strategy: Annotated[str, typer.Option(help="Names, with commas; none: all.")] = "",
    orders: Annotated[int, typer.Option(help="Class orders, one a seed.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
) -> None:
    """Prints the table of the docs, and each price as its runs end."""
    names = [each.strip() for each in strategy.split(",") if each.strip()]
    found: list[Price] = []
    try:
        for price in prices(recipe, orders, out, names):
            options = " ".join(price.defect.options)
            lasts = f"{price.without[0]:.2f}\t{price.having[0]:.2f}"
            typer.echo(f"{price.defect.strategy}\t{options}\t{price.seed}\t{lasts}", err=True)
            found.append(price)
    except InputError as error:
        typer.echo(f"defects: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(table(found), nl=False)


if __name__ == "__main__":
    typer.run(main)
