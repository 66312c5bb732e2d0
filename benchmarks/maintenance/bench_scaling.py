"""How cost grows: `python -m cl_adapters.benchmarks.maintenance.bench_scaling OUT.json FIGURE.png`.

Along each axis (experiences, classes, images) strategies run over noise on a tiny ViT, and three
things are noted: the processor time that the last experience takes to train, that of evaluating a
test image, and the bytes of what was learned. What matters is how the curves bend, not where they
lie. The last run goes to 1,000 classes in 100 experiences.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import torch
import typer
from cycler import cycler
from matplotlib.figure import Figure
from rich.console import Console

from cl_adapters.benchmarks.bench.track import BenchSettings, Timed, Track, Way
from cl_adapters.benchmarks.running.progress import say

__all__ = ["draw", "measure"]

# The network is as small as one can be, so that what a method adds is seen.
_SETTINGS: Final = BenchSettings(backbone="test_vit", image_size=32, classes=2, train=24, test=8)
_STRATEGIES: Final = ("simplecil", "sema", "mos", "lae")
_EXPERIENCES: Final = (1, 2, 5, 10, 20, 40)
_OTHERS: Final[dict[str, Sequence[BenchSettings]]] = {
    "classes an experience": [replace(_SETTINGS, classes=each) for each in (2, 5, 10, 20, 40, 80)],
    "images a class": [replace(_SETTINGS, train=each) for each in (16, 32, 64, 128, 256)],
}
_LENGTH: Final = 3  # experiences along the other two axes
_THOUSAND: Final = replace(_SETTINGS, classes=10, train=20, test=2)
_STOPS: Final = (1, 10, 25, 50, 75, 100)
# The methods' own, but for how long they train.
_OPTIONS: Final[dict[str, Any]] = {"epochs": 2, "freeze_epochs": 1, "alignment_epochs": 5}

# Told apart in grey as well; Okabe and Ito's colours.
_STYLES: Final = (
    cycler(color=("#0072B2", "#D55E00", "#009E73", "#CC79A7"))
    + cycler(marker=("o", "s", "^", "D"))
    + cycler(linestyle=("-", "--", "-.", ":"))
)

Say = Callable[[str], None]


class Point(NamedTuple):
    """What one place on an axis took.

    Attributes:
        strategy: Name.
        axis: What grows.
        at: How far.
        training: Seconds that the last experience took to train.
        evaluation: Seconds an image of the last evaluation.
        state: Bytes of what was learned.
    """

    strategy: str
    axis: str
    at: int
    training: float
    evaluation: float
    state: int


def measure(strategies: Sequence[str], say: Say = lambda _: None) -> list[Point]:
    """Returns the points of all axes and of the run to 1,000 classes."""
    points = []
    for name in strategies:
        say(f"{name}: experiences")
        points += _along(name, "experiences", _SETTINGS, _EXPERIENCES)
        for axis, places in _OTHERS.items():
            say(f"{name}: {axis}")
            for settings in places:
                found = Track(settings).time(name, _LENGTH, Way(options=_OPTIONS, evaluate="last"))
                at = settings.classes if axis.startswith("classes") else settings.train
                points.append(_point(name, axis, at, found, _LENGTH - 1))
        say(f"{name}: 1,000 classes in 100 experiences")
        points += _along(name, "to 1,000 classes", _THOUSAND, _STOPS)
    return points


def _along(name: str, axis: str, settings: BenchSettings, stops: Sequence[int]) -> list[Point]:
    way = Way(options=_OPTIONS, evaluate=frozenset(stops))
    found = Track(settings).time(name, stops[-1], way)
    return [_point(name, axis, at, found, at - 1) for at in stops]


def _point(name: str, axis: str, at: int, found: Timed, last: int) -> Point:
    trained = [phase for phase in found.names if phase != "evaluation"]
    seconds, _ = found.of(*trained, first=last, last=last)
    evaluation = found.per_image("evaluation", first=last, last=last)
    return Point(name, axis, at, seconds, evaluation, found.state[last])


def draw(points: Sequence[Point]) -> Figure:
    """Returns a panel for each axis and each thing that was measured."""
    axes = list(dict.fromkeys(point.axis for point in points))
    names = dict.fromkeys(point.strategy for point in points)
    styles = dict(zip(names, itertools.cycle(_STYLES), strict=False))
    measures: list[tuple[str, Callable[[Point], float]]] = [
        ("training, s an experience", lambda point: point.training),
        ("evaluation, ms an image", lambda point: 1000 * point.evaluation),
        ("learned, MB", lambda point: point.state / 2**20),
    ]
    figure = Figure((2.6 * len(axes) + 0.6, 6.6), layout="constrained")
    panels = figure.subplots(len(measures), len(axes), squeeze=False, sharex="col")
    for line, (label, value) in enumerate(measures):
        for column, axis in enumerate(axes):
            panel = panels[line][column]
            for name, style in styles.items():
                own = [point for point in points if (point.strategy, point.axis) == (name, axis)]
                panel.plot([each.at for each in own], [value(each) for each in own],
                           label=name, markersize=4, linewidth=1, **style)  # fmt: skip
            panel.set_ylim(bottom=0)
            panel.grid(visible=True, linewidth=0.3)
            if column == 0:
                panel.set_ylabel(label)
            if line == len(measures) - 1:
                panel.set_xlabel("experiences, to 1,000 classes" if "1,000" in axis else axis)
    panels[0][0].legend(frameon=False, fontsize="small")
    return figure


def _main(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    figure: Annotated[Path, typer.Argument(help="PNG file to draw.")],
    strategy: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(_STRATEGIES),
    again: Annotated[bool, typer.Option("--draw", help="Only draw what is stored.")] = False,  # noqa: FBT002
) -> None:
    torch.set_num_threads(1)
    console = Console(stderr=True)
    if not again:
        points = measure(strategy.split(","), lambda text: say(console, text))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([each._asdict() for each in points], indent=0) + "\n", "utf-8")
    stored = [Point(**each) for each in json.loads(out.read_text("utf-8"))]
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw(stored).savefig(figure, dpi=110)


if __name__ == "__main__":
    typer.run(_main)
