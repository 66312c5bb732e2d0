"""The runs behind the published numbers: the command of each, and what it takes on this machine.

Numbers of one strategy, protocol, backbone and options come from one run. A pass is one image
forward through the bare network; passes are counted, seconds a pass are measured, and what comes on
top (decoding, heads, alignment) is not: hours are the least that a run takes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.machine import Images, Machine
from cl_adapters.benchmarks.running.passes import PASSES
from cl_adapters.benchmarks.running.protocols import Protocol, find_protocol, protocol_names
from cl_adapters.benchmarks.running.references import Reference, references
from cl_adapters.strategies import options_of
from cl_adapters.vit.pretrained import are_weights_cached

__all__ = ["PublishedRun", "commands_table", "hours", "memory", "obstacles", "passes",
           "published_runs", "without_protocol"]  # fmt: skip

_DAY: Final = 24.0
_WIDTH: Final = 768  # of the features of ViT-B, on which every protocol stands
_GRAMS: Final = 5  # of RanPAC, while its system is set up and solved


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A run that has published numbers.

    Attributes:
        strategy: Our strategy.
        options: Those that the numbers are of, as in `Reference`.
        protocol: Its protocol.
        backbone: timm architecture and tag, empty where it is not stated.
        rows: The numbers.
    """

    strategy: str
    options: str
    protocol: str
    backbone: str
    rows: tuple[Reference, ...]

    @property
    def is_certain(self) -> bool:
        """Whether any of the numbers decides something."""
        return any(not row.unverified for row in self.rows)

    @property
    def title(self) -> str:
        """What its authors call it."""
        return ", ".join(dict.fromkeys(row.method for row in self.rows))

    @property
    def numbers(self) -> str:
        """The metrics and their values, those that decide nothing with a question mark."""
        found = dict.fromkeys(
            f"{row.metric} {row.value:g}{'?' if row.unverified else ''}" for row in self.rows
        )
        return ", ".join(found)

    @property
    def command(self) -> str:
        """The line that computes it; `--data` and `--out` are examples."""
        protocol = find_protocol(self.protocol)
        parts = ["cl-adapters run", f"--protocol {self.protocol}", f"--strategy {self.strategy}"]
        parts.append("--fidelity official")
        parts += [f"--set {name}={value}" for name, value in self.rows[0].unset.items()]
        if self.backbone not in ("", protocol.backbone):
            parts.append(f"--backbone {self.backbone}")
        folder = self.protocol.partition("-")[2].rpartition("-b")[0]
        return " ".join([*parts, "--device auto", f"--data {folder}", "--out runs"])


def published_runs(strategies: Collection[str] | None = None) -> list[PublishedRun]:
    """Returns the runs that have published numbers, by strategy, then by protocol.

    Args:
        strategies: Only theirs; None for those of all.
    """
    groups: dict[tuple[str, str, str, str], list[Reference]] = defaultdict(list)
    for row in references():
        wanted = row.strategy and (strategies is None or row.strategy in strategies)
        if wanted and row.protocol:
            groups[row.strategy, row.options, row.protocol, row.backbone].append(row)
    found = [
        PublishedRun(
            strategy=strategy, options=options, protocol=protocol, backbone=backbone, rows=(*rows,)
        )
        for (strategy, options, protocol, backbone), rows in groups.items()
    ]
    order = protocol_names()
    return sorted(found, key=lambda run: (run.strategy, order.index(run.protocol), run.options))


def commands_table(strategies: Collection[str]) -> str:
    """Returns the commands of docs/protocols.md in Markdown, of runs whose numbers are certain.

    Args:
        strategies: Whose.
    """
    rows = [["method", "published", "command"]]
    found = [run for run in published_runs(strategies) if run.is_certain]
    rows += [[run.title, run.numbers, f"`{run.command}`"] for run in found]
    return markdown_table(rows)


def obstacles(run: PublishedRun, machine: Machine) -> list[str]:
    """Returns what keeps a run out of reach of a machine, in words; empty if nothing does."""
    protocol = find_protocol(run.protocol)
    found = []
    if not any(_is_of(images, protocol) for images in machine.images):
        found.append(f"no images of {protocol.dataset} known here")
    backbones = [run.backbone] if run.backbone else protocol.backbones
    if not any(map(are_weights_cached, backbones)):
        found.append(f"weights {backbones[0].rpartition('.')[2]} not in timm's cache")
    needed = memory(run)
    if machine.memory is not None and needed > machine.memory:
        found.append(f"memory: at least {needed / 1e9:.0f} GB of {machine.memory / 1e9:.0f}")
    spent = hours(run, machine)
    if spent is not None and spent > _DAY:
        found.append(f"time: at least {spent:.0f} hours of passes on this {machine.device}")
    return found


def _is_of(images: Images, protocol: Protocol) -> bool:
    """Says whether images may be a protocol's; counts that it does not know must be no other's."""
    if images.classes != protocol.classes:
        return False
    counts = images.train, images.test
    if _counts(protocol) is not None:
        return counts == _counts(protocol)
    return counts not in {_counts(find_protocol(name)) for name in protocol_names()}


def _counts(protocol: Protocol) -> tuple[int, int] | None:
    if protocol.train_images is None or protocol.test_images is None:
        return None
    return protocol.train_images, protocol.test_images


def hours(run: PublishedRun, machine: Machine) -> float | None:
    """Returns the least hours that a run's passes take; None where they are not counted."""
    count = passes(run)
    return None if count is None else count * machine.seconds_a_pass / 3600


def passes(run: PublishedRun) -> float | None:
    """Returns the passes of a run with a feature cache, which sees each image once for a network.

    None where the number of images is not known, or the method's passes are not counted here.
    Experiences are taken to have as many images as their classes' share.
    """
    protocol = find_protocol(run.protocol)
    counts, count = _counts(protocol), PASSES.get(run.strategy)
    if counts is None or count is None:
        return None
    sizes = protocol.sizes
    train = [counts[0] * size / sum(sizes) for size in sizes]
    return count(_options(run), train, counts[1])


def _options(run: PublishedRun) -> Any:  # noqa: ANN401 - each strategy's own
    return options_of(run.strategy, "official", run.rows[0].settings)


def memory(run: PublishedRun) -> int:
    """Returns the bytes of what a method's closed form holds at once; 0 where that is little.

    RanPAC: matrices of M x M numbers of 8 bytes. FeCAM: one of D x D numbers of 4 a class.
    """
    if run.strategy == "ranpac":
        return _GRAMS * 8 * int(_options(run).projections) ** 2
    if run.strategy == "fecam":
        return 4 * _WIDTH**2 * find_protocol(run.protocol).classes
    return 0


def without_protocol(strategies: Collection[str]) -> Iterator[Reference]:
    """Yields the published numbers of strategies that no protocol here describes."""
    for row in references():
        if row.strategy in strategies and not row.protocol:
            yield row
