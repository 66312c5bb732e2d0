"""Where the weights of a new set begin: drawn anew, where training stands, or at stored sets.

References: knn, Prateek Yadav, Mohit Bansal, "Exclusive Supermask Subnetwork Training for Continual
Learning" (ExSSNeT), Findings of ACL 2023, arXiv:2210.10209 (theirs holds out a third of a sample
and always asks 100 neighbours); mean, Lucas Caccia et al., "Multi-Head Adapter Routing for
Cross-Task Generalization" (MHR-mu), NeurIPS 2023, arXiv:2211.03831.

Shapes: n images, D features.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cl_adapters.peft.bank import AdapterBank
from cl_adapters.strategies.core.config import BlockPeftConfig
from cl_adapters.strategies.core.regimes import Regimes, SetGrowthConfig
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["Start", "StartConfig", "balanced", "knn_accuracy", "knn_choice", "separation"]

Start = Literal["fresh", "last", "mean", "nearest", "knn"]
NEIGHBOURS: Final = 5
OF_A_CLASS: Final = 20  # images that are asked


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


class StartConfig(SetGrowthConfig, BlockPeftConfig):
    """Where a new set begins."""

    start: Start = Field(
        default="last",
        description="of a new set: fresh, last in training, mean of the stored, the nearest one to "
        "the detectors, or knn, the one whose features tell the new classes apart",
    )

    @model_validator(mode="after")
    def _check_start(self) -> "StartConfig":
        if self.start == "nearest" and not self.asks_detectors:
            raise ValueError(
                "`start` must be nearest only where detectors are asked, with `policy` per_block "
                f"or whole_network, got policy {self.policy!r}"
            )
        return self

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
            separates: Tells of a stored set how well its features tell the new classes apart, and
                how many these are.
        """
        if len(bank) == 0:
            return None
        if regimes is not None and not regimes.is_new:
            return bank.at(regimes.active_set)
        sets = [*range(len(bank))] if regimes is None else regimes.stored
        if self.start in {"fresh", "mean"}:
            is_mean = self.start == "mean"
            return bank.mean(sets) if is_mean else self.build_stack(*fresh).tensors()
        chosen: int | None = None
        if self.start == "nearest" and regimes is not None:
            chosen = int(regimes.set_of[regimes.nearest])
        if self.start == "knn":
            found = [separates(each) for each in sets]
            best = knn_choice([share for share, _ in found], found[0][1])
            chosen = None if best is None else sets[best]
        return None if chosen is None else bank.at(chosen)
