"""A model with stored sets that asks, image by image, the one that fits: MOS's inference."""

from typing import Protocol

import torch
from torch import Tensor

from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.registry import ClosedHead
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.onebit_bank import OneBitBank
from cl_adapters.peft.retrieval import Retrieval, retrieve
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.strategies.core.grown_sets import GrownSets
from cl_adapters.strategies.core.output import Output
from cl_adapters.vit.by_set import FeaturesUnder

__all__ = ["RetrievalOptions", "RetrievingModel"]


class RetrievalOptions(Protocol):
    """What the inference asks of the options."""

    @property
    def retrieval(self) -> bool:
        """Let a set hand an image on."""

    @property
    def rounds(self) -> int:
        """Most sets asked for an image."""

    @property
    def ensemble(self) -> bool:
        """Add the predictor's vote."""

    @property
    def task_predictor(self) -> str:
        """`prototypes`, whose votes grow sharper, or `discriminant`."""


class RetrievingModel(GrownSets):
    """Stored sets, a predictor on the first one's features, and who is in charge of each class."""

    config: RetrievalOptions
    current_adapters: AdapterStack
    frozen_adapters: AdapterBank
    task_predictor: ClosedHead
    class_to_task: ClassToTask

    def count_sets(self) -> int:
        """Returns how many sets answer, each experience's own where nothing asks detectors."""
        return super().count_sets() if self.regimes else len(self.frozen_adapters)

    def stored_as(self, number: int) -> int:
        """Returns the place in the bank of a regime's set, or of an experience's."""
        return number if self.regimes is None else int(self.regimes.set_of[number])

    def newest_adapters(self) -> AdapterSet:
        """Returns the set of the last experience as it answers, which has been stored."""
        if not isinstance(self.frozen_adapters, OneBitBank):
            return self.current_adapters.adapters()
        newest = len(self.frozen_adapters) - 1
        return self.frozen_adapters.choose(self.regimes.active_set if self.regimes else newest)

    def logits(self, features: Tensor) -> Tensor:
        """Returns the head's logits (B, C) of features (B, D)."""
        raise NotImplementedError

    def answer(self, images: Tensor, features_under: FeaturesUnder) -> Output:
        """Returns the log of the score: the paper's inference.

        `retrieval` calls each set by the experience that brought it.

        Args:
            images: (B,), what `features_under` calls the images.
            features_under: From images (b,) and a frozen set for each (b,) to features (b, D).
        """
        first = features_under(images, torch.zeros_like(images))
        votes = self.task_predictor(first)

        def adapter_logits(rows: Tensor, sets: Tensor) -> Tensor:
            features = first[rows]  # a copy, right where the first set is asked
            others = sets > 0
            if bool(others.any()):
                seen = features_under(images[rows[others]], sets[others])
                features[others] = seen.to(features.dtype)
            return self.logits(features)

        owners = self.owners()
        found = retrieve(
            owners[votes.argmax(dim=1)],
            owners,
            adapter_logits,
            max_rounds=self.config.rounds if self.config.retrieval else 1,
        )
        score, first_score = (self.score(x, votes) for x in (found.logits, found.first_logits))
        asked = found.visited if self.regimes is None else self.regimes.brought_by(found.visited)
        return Output(score, {"retrieval": Retrieval(score, first_score, asked)})

    def owners(self) -> Tensor:
        """Returns the stored set in charge of each class, (C,); -1 where a class was not seen."""
        experiences = self.class_to_task.experience_of
        if self.regimes is not None:
            return self.standing_in(self.regimes.sets_of(experiences))
        # While an experience is trained, its classes have no set of their own yet.
        return self.standing_in(experiences.clamp_max(len(self.frozen_adapters) - 1))

    def score(self, logits: Tensor, votes: Tensor) -> Tensor:
        """Returns the log of the score (B, C), or the logits where the prototypes have no vote."""
        if not self.config.ensemble:
            return logits
        sharper = len(self.frozen_adapters) if self.config.task_predictor == "prototypes" else 1
        score = (logits.softmax(dim=1) + (sharper * votes).softmax(dim=1)) / 2
        return score.clamp_min(torch.finfo(score.dtype).tiny).log()
