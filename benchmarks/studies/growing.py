"""What growth can be worth: `python -m cl_adapters.benchmarks.studies.growing RECIPE`.

Where a stream's changes are known, a regime is what lies between two of them: a data set, or a
domain. Here every regime is told, so that what is measured is what growth buys where detection
errs nowhere. As SEMA does, a first set of adapters is trained on the first experience. Each regime
that comes later gets a set of its own, on its first experience: in all blocks or in the last ones,
fresh or begun at the first set. Then images are answered from features

    frozen          of the network as it was pretrained
    first           under the first set: nothing grew
    grown           under the set of the image's regime, which a discriminant on frozen features
                    finds (the likeliest of the classes of all regimes, with one covariance)
    a + b           of both, side by side

by two classifiers in closed form, Gaussians with one covariance (SEMA's) and ridge regression on
random projections (RanPAC's), each once over all classes and once with a classifier a regime.

The test images are not touched: of each class in an experience, every fourth training image is
held out and asked. So a default may be chosen by what stands here.

Shapes: B batch, D features, N images.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.benchmarks.studies.told import Modules, features_of, known_domains
from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.ridge import RidgeHead, choose_strength
from cl_adapters.peft.adapter_set import AdapterSet, Slots
from cl_adapters.peft.registry import PARALLEL
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.ranpac import project

__all__ = ["STARTS", "Part", "answered", "by_regime", "held_out", "regimes_of", "study"]

STARTS: Final = ("fresh", "first")
_FOUND: Final = "regime found"
_LR, _DECAY, _BATCH, _WIDTH, _PROJECTIONS, _EVERY = 0.02, 5e-4, 32, 16, 2000, 4

# From training features and labels to what makes logits (B, C) of features.
Fit = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
# Of the images that each regime learned, (N, D) each, and of those that are asked, (M, D).
Features = tuple[list[Tensor], Tensor]


class Part(NamedTuple):
    """The images of one experience.

    Attributes:
        images: (N, 3, S, S), those that are learned.
        labels: (N,).
        asked: (M, 3, S, S), those that are held out.
        asked_labels: (M,).
    """

    images: Tensor
    labels: Tensor
    asked: Tensor
    asked_labels: Tensor


def regimes_of(domains: Sequence[str]) -> list[int]:
    """Returns the regime of each experience, by its domain's name.

    Example:
        >>> regimes_of(["objects", "signs", "objects", "digits"])
        [0, 1, 0, 2]
    """
    return [list(dict.fromkeys(domains)).index(each) for each in domains]


def held_out(labels: Tensor) -> Tensor:
    """Marks every fourth image of each class, (N,) bool.

    Example:
        >>> held_out(torch.tensor([5, 5, 5, 7, 5])).tolist()
        [False, False, False, False, True]
    """
    marks = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        marks[(labels == label).nonzero().flatten()[_EVERY - 1 :: _EVERY]] = True
    return marks


def _fit_discriminant(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    head = LinearDiscriminant(features.shape[1])
    head.add_classes([int(labels.max())])
    head.add(features, labels)
    return head


def _fit_ridge(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features.shape[1], _PROJECTIONS, generator=generator)
    rows, head = project(features, weight), RidgeHead(_PROJECTIONS)
    head.add_classes(range(int(labels.max()) + 1))
    head.add(rows, labels)
    head.solve_from(choose_strength(rows, labels, generator) or 1.0)
    return lambda asked: cast("Tensor", head(project(asked, weight)))


_FITS: Final[Mapping[str, Fit]] = {"discriminant": _fit_discriminant, "ridge": _fit_ridge}


def answered(
    fit: Fit, learned: Sequence[tuple[Tensor, Tensor]], asked: Tensor, found: Tensor | None = None
) -> Tensor:
    """Returns the class of each image that is asked, (M,).

    Args:
        fit: The classifier.
        learned: Features and labels that each regime learned.
        asked: (M, D) features.
        found: (M,), the regime of each, whose own classifier answers; None: one over all.
    """
    if found is None:
        features, labels = (
            torch.cat([each for each, _ in learned]),
            torch.cat([k for _, k in learned]),
        )
        return fit(features, labels)(asked).argmax(dim=1)
    answers = torch.zeros(len(asked), dtype=torch.int64)
    for regime, (features, labels) in enumerate(learned):
        known, places = torch.unique(labels, return_inverse=True)
        mine = found == regime
        if bool(mine.any()):
            answers[mine] = known[fit(features, places)(asked[mine]).argmax(dim=1)]
    return answers


def by_regime(learned: Sequence[tuple[Tensor, Tensor]], asked: Tensor) -> Tensor:
    """Returns the regime of each image by the likeliest of the classes of all regimes, (M,).

    Args:
        learned: Frozen features and labels that each regime learned.
        asked: (M, D) frozen features.
    """
    count = 1 + max(int(labels.max()) for _, labels in learned)
    groups = [labels + count * regime for regime, (_, labels) in enumerate(learned)]
    known, places = torch.unique(torch.cat(groups), return_inverse=True)
    logits = _fit_discriminant(torch.cat([each for each, _ in learned]), places)(asked)
    return torch.div(known[logits.argmax(dim=1)], count, rounding_mode="floor")


class _Learner:
    """Trains sets of adapters on a frozen network, and tells features under them."""

    def __init__(self, prepared: PreparedRun, epochs: int) -> None:
        strategy: Any = prepared.strategy
        self._strategy, self.backbone = strategy, strategy.backbone
        self._seed, self._epochs = prepared.config.seed, epochs
        self.depth = int(self.backbone.num_blocks)

    def new_set(self, number: int) -> dict[tuple[Slots, int], nn.Module]:
        """Returns adapters for all blocks that change nothing yet."""
        generator = torch.Generator().manual_seed(1000 * self._seed + number)
        width = self.backbone.embed_dim
        return {("mlp", k): PARALLEL.build(width, _WIDTH, generator) for k in range(self.depth)}

    def features(self, images: Tensor, modules: Modules) -> Tensor:
        """Returns features (N, D)."""
        return features_of(self._strategy, images, modules)

    def _run(self, images: Tensor, modules: Modules) -> Tensor:
        tokens = self.backbone.tokens(images)
        run: Tensor = self.backbone.features(
            self.backbone.run(tokens, adapters=AdapterSet(dict(modules)))
        )
        return run

    def train(self, modules: Modules, blocks: Sequence[int], part: Part, number: int) -> None:
        """Trains the adapters of some blocks, with a head for the part's classes."""
        head = nn.Linear(self.backbone.embed_dim, len(torch.unique(part.labels)))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        for each in modules.values():
            each.requires_grad_(requires_grad=False)
        trained = [
            value for (_, k), each in modules.items() if k in blocks for value in each.parameters()
        ]
        for value in trained:
            value.requires_grad = True
        optimizer = sgd([*trained, *head.parameters()], _LR, _DECAY)
        targets = torch.unique(part.labels, return_inverse=True)[1]
        generator = torch.Generator().manual_seed(1000 * self._seed + 500 + number)
        for epoch in range(self._epochs):
            set_cosine_rates(optimizer, epoch, self._epochs)
            order = torch.randperm(len(targets), generator=generator)
            for rows in torch.split(order, _BATCH):
                with self._strategy.features.autocast():
                    features = self._run(part.images[rows], modules)
                optimizer.zero_grad()
                loss = functional.cross_entropy(head(features.float()), targets[rows])
                torch.autograd.backward(loss)
                optimizer.step()
        for each in modules.values():
            each.requires_grad_(requires_grad=False)


class _Stream:
    """A stream whose regimes are told, and what its images are answered with.

    Attributes:
        regimes: The regime of each experience.
        found: (M,), the regime that frozen features find for each image that is asked.
    """

    def __init__(self, prepared: PreparedRun, epochs: int) -> None:
        self.learner = _Learner(prepared, epochs)
        self.regimes = regimes_of(known_domains(prepared))
        self.parts = [_part(each) for each in prepared.benchmark().train_stream]
        mine = zip(self.parts, self.regimes, strict=True)
        truth = [torch.full_like(part.asked_labels, regime) for part, regime in mine]
        self.asked = torch.cat([each.asked for each in self.parts])
        self.labels = torch.cat([each.asked_labels for each in self.parts])
        self._known = [torch.cat([each.labels for each in self._of(r)]) for r in self.each]
        plain: list[Modules] = [{} for _ in self.each]
        learned = [self._learned(each, regime) for regime, each in enumerate(plain)]
        of_asked = self.learner.features(self.asked, {})
        self.found = by_regime(list(zip(learned, self._known, strict=True)), of_asked)
        self.frozen = learned, of_asked
        self.share_found = _percent(self.found == torch.cat(truth))

    @property
    def each(self) -> range:
        """All regimes."""
        return range(max(self.regimes) + 1)

    def _of(self, regime: int) -> list[Part]:
        return [p for p, mine in zip(self.parts, self.regimes, strict=True) if mine == regime]

    def _learned(self, modules: Modules, regime: int) -> Tensor:
        return torch.cat([self.learner.features(each.images, modules) for each in self._of(regime)])

    def under(self, sets: Sequence[Modules]) -> Features:
        """Returns features of each regime's images under its set, and of those that are asked."""
        learned = [self._learned(each, regime) for regime, each in enumerate(sets)]
        asked = torch.zeros(len(self.asked), learned[0].shape[1])
        for regime, modules in enumerate(sets):
            mine = self.found == regime
            if bool(mine.any()):
                asked[mine] = self.learner.features(self.asked[mine], modules)
        return learned, asked

    def shares(self, name: str, features: Features) -> Iterator[tuple[str, str, float]]:
        """Yields the share of right answers by each classifier, in percent."""
        learned = list(zip(features[0], self._known, strict=True))
        for kind, fit in _FITS.items():
            for told, found in (("one", None), ("one a regime", self.found)):
                answers = answered(fit, learned, features[1], found)
                yield name, f"{kind}, {told}", _percent(answers == self.labels)

    def first_set(self) -> Modules:
        """Returns a set trained on the first experience."""
        first = self.learner.new_set(0)
        self.learner.train(first, range(self.learner.depth), self.parts[0], 0)
        return first

    def sets(self, first: Modules, blocks: int, start: str) -> list[Modules]:
        """Returns the set of each regime: the first, and ones whose last blocks are their own."""
        depth = self.learner.depth
        own = range(depth - blocks, depth)
        found = [first]
        for regime in self.each[1:]:
            begun = self.learner.new_set(regime) if start == "fresh" else copy.deepcopy(first)
            modules = {key: begun[key] if key[1] in own else first[key] for key in first}
            self.learner.train(modules, own, self.parts[self.regimes.index(regime)], regime)
            found.append(modules)
        return found


def _part(experience: Any) -> Part:  # noqa: ANN401 - Avalanche's
    images, labels = read_images([experience])
    asked = held_out(labels)
    return Part(images[~asked], labels[~asked], images[asked], labels[asked])


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())


def _beside(left: Features, right: Features) -> Features:
    learned = [torch.cat(pair, dim=1) for pair in zip(left[0], right[0], strict=True)]
    return learned, torch.cat((left[1], right[1]), dim=1)


def study(
    config: RunConfig, blocks: Sequence[int], starts: Sequence[str], epochs: int
) -> Iterator[tuple[str, str, float]]:
    """Yields features, classifier and accuracy in percent; first how many regimes are found.

    Args:
        config: A stream whose domains are known.
        blocks: In how many of the last blocks a regime's set is its own; each is measured.
        starts: `fresh` or `first`, where these begin; each is measured.
        epochs: Passes over an experience.

    Raises:
        InputError: If the stream's domains are not known, the network has fewer blocks, or a start
            is unknown.
    """
    stream = _Stream(prepare(config), epochs)
    depth = stream.learner.depth
    if not all(1 <= each <= depth for each in blocks):
        raise InputError(f"`blocks` must be from 1 to {depth}, got {', '.join(map(str, blocks))}")
    if not set(starts) <= set(STARTS):
        raise InputError(f"`starts` must be of {', '.join(STARTS)}, got {', '.join(starts)}")
    yield _FOUND, "", stream.share_found
    yield from stream.shares("frozen", stream.frozen)
    set_of_first = stream.first_set()
    first = stream.under([set_of_first for _ in stream.each])
    yield from stream.shares("first", first)
    yield from stream.shares("frozen + first", _beside(stream.frozen, first))
    for count, start in product(blocks, starts):
        grown = stream.under(stream.sets(set_of_first, count, start))
        name = f"grown in {count} blocks, {start}"
        yield from stream.shares(name, grown)
        yield from stream.shares(f"first + {name}", _beside(first, grown))
        yield from stream.shares(f"frozen + {name}", _beside(stream.frozen, grown))


def table(found: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """Returns a Markdown table: a row for each kind of features, a column for each classifier."""
    names = list(dict.fromkeys(name for name, told in found if told))
    kinds = list(dict.fromkeys(told for _, told in found if told))
    rows = [[name, *(_told(found[name, kind]) for kind in kinds)] for name in names]
    return markdown_table([["features", *kinds], *rows])


def _told(values: Sequence[float]) -> str:
    each = ", ".join(f"{value:.1f}" for value in values)
    return each if len(values) == 1 else f"{np.mean(values):.1f} ({each})"


def main(
    recipe: Path,
    orders: Annotated[int, typer.Option(help="Class orders, one a seed.")] = 2,
    blocks: Annotated[str, typer.Option(help="Last blocks with adapters of a regime.")] = "3,12",
    starts: Annotated[str, typer.Option(help="Where these begin: fresh, first.")] = "fresh,first",
    epochs: Annotated[int, typer.Option(help="Passes over an experience.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Prints a line for each measure, and a table at the end."""
    torch.set_num_threads(threads)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    given = {"strategy": "simplecil"}
    for config in expand(given, recipe=recipe, seeds=orders, settings=()):
        counts = [int(each) for each in blocks.split(",")]
        for name, told, share in study(config, counts, starts.split(","), epochs):
            found[name, told].append(share)
            typer.echo(f"{config.seed}\t{name}\t{told}\t{share:.2f}")
    typer.echo(f"\nimages that find their regime: {_told(found[_FOUND, ''])} %\n")
    typer.echo(table(found), nl=False)


if __name__ == "__main__":
    typer.run(main)
