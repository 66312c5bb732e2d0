"""What the test batch tells a prompt method: `python -m ...benchmarks.maintenance.batch_leak RUNS`.

RUNS are finished runs of prompt methods. Each answers its test images again, all classes that it
has seen, under each way in which its options may make an answer depend on the batch
(`selection`, `prompt_pairing`), with the images in three orders and batches of several sizes:

    sorted     by class, as most published code comes to them
    shuffled   as chance draws them, by the seed
    one        batches of one image, which has nobody to ask

What is shown is A_last over all images (micro), the mean over seeds and its 95 % interval.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from cl_adapters.benchmarks.markdown import interval_text, markdown_table
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies.core.prompting import PromptStrategy

__all__ = ["Cell", "answered", "called", "leaks", "table"]

_CHOICES: Final = {"selection": ("image", "batch"), "prompt_pairing": ("key_value", "port")}
_SIZES: Final = (24, 64)


class Cell(NamedTuple):
    """One way to answer a run's test images.

    Attributes:
        run: Strategy, stream and the options of its own, as text.
        asked: What the option is while the images are answered.
        order: sorted, shuffled or one.
        size: Images of a batch.
        seed: Of the run.
        accuracy: In percent.
    """

    run: str
    asked: str
    order: str
    size: int
    seed: int
    accuracy: float


@contextmanager
def answered(strategy: PromptStrategy, **options: str) -> Iterator[None]:
    """Answers as with other options, for a while."""
    model: Any = strategy.model
    kept, other = model.config, model.config.override(options)
    model.config = other
    try:
        yield
    finally:
        model.config = kept


def leaks(run: Path, sizes: Sequence[int] = _SIZES) -> Iterator[Cell]:
    """Yields what a run answers under each option, order and size of batch.

    Args:
        run: A finished run of a prompt method.
        sizes: Images of a batch, beside 1.

    Raises:
        InputError: If no option of the method lets an answer depend on others.
    """
    record = RunRecord.read(run)
    learned = load(run)
    strategy: Any = learned.strategy
    names = [name for name in _CHOICES if hasattr(strategy.config, name)]
    if not names:
        raise InputError(
            f"runs must be of a method with {' or '.join(_CHOICES)}, got {record.strategy!r}"
        )
    prepared = prepare(RunConfig.parse(record.config))
    images, targets = read_images(prepared.benchmark().test_stream)
    orders = {
        "sorted": torch.argsort(targets, stable=True),
        "shuffled": torch.from_numpy(np.random.default_rng(record.seed).permutation(len(targets))),
    }
    text = called(record)
    for name in names:
        for value in _CHOICES[name]:
            asked = f"{name}={value}"
            with answered(strategy, **{name: value}):
                for order, places in orders.items():
                    for size in sizes:
                        right = _right(strategy, images[places], targets[places], size)
                        yield Cell(text, asked, order, size, record.seed, right)
                right = _right(strategy, images, targets, 1)
                yield Cell(text, asked, "one", 1, record.seed, right)


def called(record: RunRecord) -> str:
    """Returns strategy, stream and the options of a run's own, as text."""
    options = record.config.get("options", {})
    told = f" ({', '.join(f'{name}={value}' for name, value in options.items())})"
    return f"{record.strategy} on {record.stream}" + told * bool(options)


@torch.no_grad()
def _right(strategy: PromptStrategy, images: Tensor, targets: Tensor, size: int) -> float:
    batches = torch.split(images, size)
    found = [strategy.answer(batch).logits.argmax(dim=1).cpu() for batch in batches]
    return 100 * float((torch.cat(found) == targets).double().mean())


def table(cells: Sequence[Cell]) -> str:
    """Returns a Markdown table: a row for each run and option, a column for each way to ask."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        column = "one by one" if cell.order == "one" else f"{cell.order}, {cell.size}"
        rows[cell.run, cell.asked][column].append(cell.accuracy)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [
        [run, asked, *(interval_text(row[each]) if each in row else "" for each in columns)]
        for (run, asked), row in rows.items()
    ]
    return markdown_table([["trained as", "answered with", *columns], *lines])


def _main(
    runs: list[Path],
    batches: Annotated[str, typer.Option(help="Images of a batch, beside 1.")] = "24,64",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    torch.set_num_threads(threads)
    sizes = [int(each) for each in batches.split(",")]
    cells = []
    for run in runs:
        for cell in leaks(run, sizes):
            cells.append(cell)
            print(*cell, sep="\t", flush=True)  # noqa: T201 - what it is for
    print(f"\n{table(cells)}")  # noqa: T201


if __name__ == "__main__":
    typer.run(_main)
