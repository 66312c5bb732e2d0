"""What detectors make of a stream: `python -m cl_adapters.benchmarks.studies.detecting RECIPE`.

Where a stream's changes are known, every experience either brings a kind of images that was never
there, or one that was. Each detector is fitted on frozen features of the first experience of a
kind, as MOS and LAE fit it (`strategies/core/growing.py`), and asked about every later experience
window by window: a change is seen where the detectors of all kinds so far fire. Later kinds get a
detector whether the change was seen or not, so that one error does not make the next. Images are
training images; nothing is trained.

The table holds, over all class orders, how many of the new kinds were seen, how many returning
ones were taken for new, and of the other returns how many were recognised as what they are.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import torch
import typer
from torch import Tensor

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.benchmarks.studies.told import features_of, known_domains
from cl_adapters.shift import DETECTORS
from cl_adapters.shift.bank import DetectorBank
from cl_adapters.strategies.core.detection import DetectorConfig

__all__ = ["Seen", "asked", "frozen_features", "table"]

_PLACE: Final = 0


class Seen(NamedTuple):
    """What the detectors said of one experience.

    Attributes:
        experience: Its number.
        is_new: Whether it brings a kind of images that was never there.
        fired: Whether a window was strange to the detectors of all kinds.
        is_right: Whether most windows were nearest to its own kind; false for a new one.
    """

    experience: int
    is_new: bool
    fired: bool
    is_right: bool


def frozen_features(config: RunConfig) -> tuple[list[str], list[tuple[Tensor, Tensor]]]:
    """Returns the kind of each experience, and its features (N, D) and labels (N,).

    Raises:
        InputError: If the stream's domains are not known.
    """
    prepared = prepare(config)
    kinds, found = known_domains(prepared), []
    for experience in prepared.benchmark().train_stream:
        images, labels = read_images([experience])
        found.append((features_of(prepared.strategy, images, {}), labels))
    return kinds, found


def asked(
    config: DetectorConfig,
    kinds: Sequence[str],
    experiences: Sequence[tuple[Tensor, Tensor]],
    seed: int = 0,
) -> Iterator[Seen]:
    """Yields what the detectors say of every experience but the first.

    Args:
        config: Which detector, and how many images a window has.
        kinds: The kind of each experience.
        experiences: Features (N, D) and labels (N,) of each.
        seed: Of the detectors and of the order of the images.
    """
    width = experiences[0][0].shape[1]
    known: list[str] = []
    bank: DetectorBank | None = None
    for number, (kind, (features, labels)) in enumerate(zip(kinds, experiences, strict=True)):
        if bank is not None:
            windows = _windows(features, labels, config, seed + number)
            yield _judged(bank, known, number, kind, windows)
        if kind not in known:
            detector = config.make_detector(width, seed + len(known))
            if bank is None:
                bank = DetectorBank({_PLACE: detector})
            else:
                bank.append(_PLACE, detector)
            bank.newest(_PLACE).fit_labelled(features, labels)
            known.append(kind)


def _windows(
    features: Tensor, labels: Tensor, config: DetectorConfig, seed: int
) -> list[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    size = config.detect_batch_size
    count = max(1, len(features) // size)  # a last window that is smaller joins the one before
    ends = [*(size * k for k in range(1, count)), len(features)]
    starts = [0, *ends[:-1]]
    parts = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    return [(features[part], labels[part]) for part in parts]


def _judged(
    bank: DetectorBank,
    known: Sequence[str],
    number: int,
    kind: str,
    windows: Sequence[tuple[Tensor, Tensor]],
) -> Seen:
    scans = [bank.judge(_PLACE, *each) for each in windows]
    nearest = Counter(known[scan.best] for scan in scans).most_common(1)[0][0]
    return Seen(number, kind not in known, any(scan.fired for scan in scans), nearest == kind)


def table(found: Mapping[str, Sequence[Seen]]) -> str:
    """Returns a Markdown table: a row for each detector."""
    rows = [["detector", "new kinds seen", "returns taken for new", "other returns recognised"]]
    for name, seen in found.items():
        new = [each for each in seen if each.is_new]
        returns = [each for each in seen if not each.is_new]
        quiet = [each for each in returns if not each.fired]
        told = (
            _share([each.fired for each in new]),
            _share([each.fired for each in returns]),
            _share([each.is_right for each in quiet]),
        )
        rows.append([f"`{name}`", *told])
    return markdown_table(rows)


def _share(marks: Sequence[bool]) -> str:
    return f"{sum(marks)} of {len(marks)}" if marks else "-"


def main(
    recipe: Path,
    orders: Annotated[int, typer.Option(help="Class orders, one a seed.")] = 3,
    detectors: Annotated[str, typer.Option(help="Names, with commas; by default all.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Prints a table."""
    torch.set_num_threads(threads)
    names = detectors.split(",") if detectors else sorted(DETECTORS)
    found: dict[str, list[Seen]] = defaultdict(list)
    for config in expand({"strategy": "simplecil"}, recipe=recipe, seeds=orders, settings=()):
        kinds, experiences = frozen_features(config)
        for name in names:
            chosen = DetectorConfig(detector=name)
            found[name].extend(asked(chosen, kinds, experiences, seed=config.seed))
    typer.echo(table(found), nl=False)


if __name__ == "__main__":
    typer.run(main)
