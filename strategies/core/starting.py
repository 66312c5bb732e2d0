"""Where the weights of a new set begin: drawn anew, where training stands, or at stored sets.

References: knn, Prateek Yadav, Mohit Bansal, "Exclusive Supermask Subnetwork Training for Continual
Learning" (ExSSNeT), Findings of ACL 2023, arXiv:2210.10209 (theirs holds out a third of a sample
and always asks 100 neighbours); mean, Lucas Caccia et al., "Multi-Head Adapter Routing for
Cross-Task Generalization" (MHR-mu), NeurIPS 2023, arXiv:2211.03831.

Shapes: n images, D features.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cl_adapters.peft.bank import AdapterBank
from cl_adapters.strategies.core.config import BlockPeftConfig
from cl_adapters.strategies.core.detection import GrowthConfig
from cl_adapters.strategies.core.regimes import Regimes, SetGrowthConfig
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = [
    "GrowthStartConfig",
    "SetStartConfig",
    "Start",
    "StartConfig",
    "balanced",
    "knn_accuracy",
    "knn_choice",
    "mean_state",
    "separation",
    "stored_choice",
    "stored_start",
]

Start = Literal["fresh", "last", "mean", "nearest", "knn"]
NEIGHBOURS: Final = 5
OF_A_CLASS: Final = 20  # images that are asked
_STARTS: Final = (
    "fresh, last in training, mean of the stored, the nearest one to the detectors, or knn, the "
    "one whose features tell the new classes apart"
)


def knn_accuracy(features: Tensor, labels: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Returns the share of images whose nearest others, by Euclid, mostly have their label.

    Ties go to the lowest label.

    Args:
        features: (n, D), n at least 2.
        labels: (n,).
        neighbours: How many others vote; all, if there are fewer.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> knn_accuracy(features, torch.tensor([3, 3, 7, 7]), 1)
        1.0
    """
    apart = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    count = min(neighbours, len(features) - 1)
    found, own = torch.unique(labels, return_inverse=True)
    near = own[apart.topk(count, dim=1, largest=False).indices]
    votes = torch.nn.functional.one_hot(near, len(found)).sum(dim=1)
    return float((votes.argmax(dim=1) == own).double().mean())


def knn_choice(accuracies: Sequence[float], classes: int) -> int | None:
    """Returns the first of the sets that separate the new classes best; None if none beats chance.

    Example:
        >>> knn_choice([0.4, 0.9, 0.9], 2), knn_choice([0.4, 0.5], 2)
        (1, None)
    """
    best = max(range(len(accuracies)), key=lambda each: accuracies[each])
    return best if accuracies[best] > 1 / classes else None


def balanced(
    batches: Iterable[tuple[Tensor, Tensor]], most: int = OF_A_CLASS
) -> tuple[Tensor, Tensor]:
    """Returns the first images of each class, and their labels.

    Args:
        batches: Images (B, ...) and labels (B,).
        most: Images of a class.
    """
    left: dict[int, int] = {}
    images, labels = [], []
    for shown, targets in batches:
        rows = []
        for row, label in enumerate(targets.tolist()):
            left[label] = left.get(label, most) - 1
            if left[label] >= 0:
                rows.append(row)
        images.append(shown[rows])
        labels.append(targets[rows])
    return torch.cat(images), torch.cat(labels)


@torch.no_grad()
def separation(
    batches: Iterable[tuple[Tensor, Tensor]], compute: Callable[[Tensor], Tensor]
) -> tuple[float, int]:
    """Returns how well features tell classes apart, by their neighbours, and how many these are.

    Args:
        batches: Images (B, 3, S, S) and labels (B,), of which a few of each class are looked at.
        compute: From images to features (B, D).
    """
    images, labels = balanced(batches)
    found = torch.cat([compute(each) for each in torch.split(images, 64)])
    return knn_accuracy(found, labels), len(torch.unique(labels))


def mean_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the plain mean of modules' states; of whole numbers those of the last.

    Args:
        states: Of the same names, at least one.
    """
    return {
        name: torch.stack([each[name] for each in states]).mean(dim=0)
        if value.is_floating_point()
        else value.clone()
        for name, value in states[-1].items()
    }


def stored_choice(
    start: Start,
    sets: Sequence[int],
    separates: Callable[[int], tuple[float, int]],
    nearest: Callable[[], int] | None = None,
) -> int | None:
    """Returns the stored set that an option names; None where it names none.

    Args:
        start: The option.
        sets: The places of sets, at least one.
        separates: Tells of a stored set how well its features tell the new classes apart, and how
            many these are.
        nearest: Tells which set detectors find nearest; None where there are none.
    """
    if start == "nearest" and nearest is not None:
        return nearest()
    if start != "knn":
        return None
    found = [separates(each) for each in sets]
    best = knn_choice([share for share, _ in found], found[0][1])
    return None if best is None else sets[best]


def stored_start(
    start: Start,
    bank: AdapterBank,
    sets: Sequence[int],
    separates: Callable[[int], tuple[float, int]],
    nearest: Callable[[], int] | None = None,
) -> Sequence[Tensor] | None:
    """Returns the tensors of stored sets that a new one begins with; None where it does not.

    Args:
        start: The option.
        bank: Where sets are stored.
        sets: Their places, at least one.
        separates: As of `stored_choice`.
        nearest: As of `stored_choice`.
    """
    if start == "mean":
        return bank.mean(sets)
    chosen = stored_choice(start, sets, separates, nearest)
    return None if chosen is None else bank.at(chosen)


class GrowthStartConfig(GrowthConfig):
    """Where what is new begins, in a method whose policy says when that is."""

    # Whether the method knows what is nearest under each policy, asked detectors or not.
    knows_nearest: ClassVar[bool] = False
    # What may be said beside a policy under which nothing begins, other than the default.
    idle_starts: ClassVar[tuple[str, ...]] = ()

    start: Start = Field(default="last", description=f"of a new set: {_STARTS}")

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start == "nearest" and not (self.asks_detectors or self.knows_nearest):
            raise ValueError(
                "`start` must be nearest only where detectors are asked, with `policy` per_block "
                f"or whole_network, got policy {self.policy!r}"
            )
        plain = type(self).model_fields["start"].default
        if self.start not in {plain, *self.idle_starts} and self.policy == "never":
            others = "".join(f" or {each}" for each in self.idle_starts)
            raise ValueError(
                f"`start` must stay at {plain}{others} with policy never, under which nothing new "
                f"begins, got {self.start!r}"
            )
        return self


class SetStartConfig(SetGrowthConfig, GrowthStartConfig):
    """Where a new set begins."""


class StartConfig(SetStartConfig, BlockPeftConfig):
    """Where a new set begins, in a method with a set for each experience or regime."""

    def start_tensors(
        self,
        bank: AdapterBank,
        regimes: Regimes | None,
        fresh: tuple[AdaptedViT, int],
        separates: Callable[[int], tuple[float, int]],
    ) -> Sequence[Tensor] | None:
        """Returns what a set of an experience begins with; None where training stands.

        Args:
            bank: The stored sets.
            regimes: The regimes, the current experience counted; None where each has its own set.
            fresh: The backbone and a seed, for sets that are drawn anew.
            separates: As of `stored_choice`.
        """
        if len(bank) == 0:
            return None
        if regimes is not None and not regimes.is_new:
            return bank.at(regimes.active_set)
        if self.start == "fresh":
            return self.build_stack(*fresh).tensors()
        sets = range(len(bank)) if regimes is None else regimes.stored
        nearest = None if regimes is None else regimes.nearest_set
        return stored_start(self.start, bank, sets, separates, nearest)
