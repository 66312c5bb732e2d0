"""MOS: model surgery.

Every experience trains one adapter set beside the MLPs of all blocks, merging it all the while with
the sets of the experiences before, so that it does not drift from them. The head is realigned on
Gaussians of the classes that are gone. At inference class means of the first adapter's features
guess the experience of an image, and the model corrects its own guess: an adapter whose answer is a
class of another experience hands the image on. Any PEFT module can take the adapter's place
(`peft`).

Reference: Hai-Long Sun, Da-Wei Zhou, Hanbin Zhao, Le Gan, De-Chuan Zhan, Han-Jia Ye, "MOS: Model
Surgery for Pre-Trained Model-Based Class-Incremental Learning", AAAI 2025, arXiv:2412.09441.

With A the set in training (carried over, never reset), A_0 ... A_{t-1} the stored sets, Abar their
mean, f_k(x) the features with set k:

    training       cross-entropy over the current classes
                   + lambda * cross-entropy(Z Z' / 0.8, identity), Z: means of all earlier classes
                   and the features of the batch
    merging        A <- (1 - beta) A + beta Abar after each step
    statistics     mean and covariance of f_t for each class of the experience
    alignment      cross-entropy of the head on samples of all classes, from experience 1 on
    prototypes     class means of f_0
    inference      k <- experience of the nearest prototype by cosine o(x); at most 4 rounds:
                   l = head(f_k(x)); stop if argmax l is a class of k, else k <- its experience
                   score = softmax(l) + softmax(T o), T experiences so far

Differs from the authors' code, unless `fidelity="official"`:
    `merge="per_step"`        once after each step. Theirs ("official") merges 13 times a step: once
                              more for each block of the forward pass, so that block b computes with
                              b + 1 of them and gradients with all.
    `merge_strength=0.01`     beta; theirs is 0.1, which even once a step leaves hardly a difference
                              between the sets (a time constant of ten steps).
    `merge_in_evaluation`     theirs goes on merging stored sets with each batch that is evaluated;
                              ours leaves them alone.
    `task_predictor="discriminant"`    the first guess, and its vote, come from the Gaussians on the
                              directions of f_0 in closed form, their softmax not sharpened by T
                              (theirs: cosines to class means, "prototypes").
    `prototype_dropout`       theirs computes prototypes with the adapter's dropout on, from
                              experience 1 on.
    `scale=1.0`, `lr`, `epochs`  adapters that learn enough in the few steps of a small stream
                              (theirs: 0.1, 0.03, 20, batches of 48).
    `statistics="low_rank"`   128 directions and a diagonal; theirs keeps D x D numbers a class.
Always: merges are done in closed form; the same sample sizes, but other random numbers; the number
of classes need not be known (`num_classes` makes the head at once, as theirs, whose unused rows
then decay); a class that returns belongs to its last experience and keeps the statistics of all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.heads.alignment import Alignment, align_head
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.gaussians import ClassGaussians, Statistics
from cl_adapters.heads.linear import UNSEEN_LOGIT, cross_entropy_over
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank, AdapterStack
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.merging import merge_
from cl_adapters.peft.registry import PARALLEL
from cl_adapters.peft.retrieval import Retrieval, retrieve
from cl_adapters.schedule import cosine
from cl_adapters.strategies.core.config import BlockPeftConfig, StrategyConfig, TrainedHeadConfig
from cl_adapters.strategies.core.feature_cache import AdapterFeatureExtractor
from cl_adapters.strategies.core.loop import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["MOS", "MOSConfig", "MOSModel", "orthogonality_loss"]

# Options that only the parallel adapter has; other PEFT modules see to these things themselves.
_OF_PARALLEL: Final = {"scale": 1.0, "dropout": 0.1, "prototype_dropout": False}


class MOSConfig(StrategyConfig, BlockPeftConfig, TrainedHeadConfig):
    """Options of MOS."""

    batch_size: int = Field(default=32, ge=1, description="images in a training step")
    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    lr: float = Field(default=0.02, gt=0, description="of SGD for the adapters, cosine to 0")
    head_lr: float = Field(default=0.1, gt=0, description="the head's, as a share of `lr`")
    weight_decay: float = Field(default=5e-4, ge=0, description="of SGD")
    scale: float = Field(default=1.0, gt=0, description="of a parallel adapter's output")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="in the middle of a parallel adapter"
    )
    orthogonality: float = Field(default=0.1, ge=0, description="lambda; 0 leaves the term out")
    merge: Literal["per_step", "official", "none"] = Field(
        default="per_step", description="when the adapter in training is merged with the stored"
    )
    merge_strength: float = Field(default=0.01, ge=0, le=1, description="beta")
    merge_in_evaluation: bool = Field(
        default=False, description="go on merging stored adapters with each batch evaluated"
    )
    statistics: Statistics = Field(default="low_rank", description="what is kept of a class")
    rank: int = Field(default=128, ge=1, description="directions of low_rank statistics")
    alignment: bool = Field(default=True, description="realign the head on the statistics")
    alignment_epochs: int = Field(default=30, ge=1, description="rounds of new samples")
    alignment_lr: float = Field(default=0.005, gt=0, description="of SGD, cosine to 0")
    task_predictor: Literal["prototypes", "discriminant"] = Field(
        default="discriminant", description="what the first set's features are classified with"
    )
    prototype_dropout: bool = Field(
        default=False, description="adapter dropout in those features from experience 1 on"
    )
    retrieval: bool = Field(default=True, description="let an adapter hand an image on")
    rounds: int = Field(default=4, ge=1, description="most adapters asked for an image")
    ensemble: bool = Field(default=True, description="add the prototypes' vote to the score")
    num_classes: int | None = Field(default=None, ge=1, description="of the stream, if known")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, default in _OF_PARALLEL.items():
            if self.peft != "parallel" and getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must stay at {default} with peft {self.peft!r}, since only the "
                    f"parallel adapter has it, got {getattr(self, name)}"
                )
        return self

    @property
    def evaluation_options(self) -> frozenset[str]:
        """What only inference asks for; none if evaluating changes the stored sets."""
        options = () if self.merge_in_evaluation else ("retrieval", "rounds", "ensemble")
        return frozenset(options)

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(
            batch_size=48,
            epochs=20,
            lr=0.03,
            scale=0.1,
            merge="official",
            merge_strength=0.1,
            merge_in_evaluation=True,
            statistics="full",
            task_predictor="prototypes",
            prototype_dropout=True,
        )

    def build_stack(self, backbone: AdaptedViT, generator: torch.Generator) -> AdapterStack:
        """Returns a new PEFT module for each block."""
        peft, width = self.chosen
        made = [
            Bottleneck(
                backbone.embed_dim,
                width,
                activation="relu",
                scale=self.scale,
                dropout=self.dropout,
                generator=generator,
            )
            if peft is PARALLEL
            else peft.make(backbone.embed_dim, width, generator)
            for _ in range(backbone.num_blocks)
        ]
        return AdapterStack(made, peft.slot)


def orthogonality_loss(features: Tensor, means: Tensor) -> Tensor:
    """Returns the cross-entropy of Z Z' / 0.8 against the identity, Z = [means; features].

    Shape:
        features: (B, D). means: (C, D), of the classes of earlier experiences. Output: scalar.
    """
    rows = torch.cat([means, features.float()])
    own = torch.arange(len(rows), device=rows.device)
    return functional.cross_entropy(rows @ rows.T / 0.8, own)


class MOSModel(nn.Module):
    """The backbone, the adapter set in training, the stored ones, and what classifies.

    Attributes:
        class_to_task: (C,), the last experience of each class; -1 for one that was not seen.
        features: (B, D) of the last forward pass in train mode, with gradient.
        retrieval: How the last forward pass in eval mode was answered; its logits are the scores.
    """

    def __init__(self, backbone: AdaptedViT, config: MOSConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.current_adapters = config.build_stack(backbone, torch.Generator().manual_seed(seed))
        self.frozen_adapters = AdapterBank(self.current_adapters)
        # Of each stored set the mean of those before it, only for merging in evaluation.
        self.before = AdapterBank(self.current_adapters)
        self.heads = config.build_head(backbone.embed_dim, init_std=0.02)
        self.task_predictor: PrototypeHead | LinearDiscriminant = (
            PrototypeHead(backbone.embed_dim, scale=1.0)
            if config.task_predictor == "prototypes"
            else LinearDiscriminant(backbone.embed_dim, unit_length=True)
        )
        self.classes = ClassGaussians(backbone.embed_dim, config.statistics, rank=config.rank)
        self.class_to_task = torch.zeros(0, dtype=torch.int64)
        self.features = torch.zeros(0, backbone.embed_dim)
        self.retrieval: Retrieval | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Returns the head's logits in train mode, the log of the score in eval mode.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        tokens = self.backbone.tokens(images)
        if self.training or len(self.frozen_adapters) == 0:
            self.features = self._through(tokens, self.current_adapters.adapters())
            return self._logits(self.features)
        return self.answer(
            torch.arange(len(images), device=images.device),
            lambda rows, sets: self._through(tokens[rows], self.frozen_adapters.choose(sets)),
        )

    def answer(self, images: Tensor, see: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Returns the log of the score: the paper's inference.

        Args:
            images: (B,), what `see` calls the images.
            see: From images (b,) and a stored set for each (b,) to features (b, D).
        """
        first = see(images, torch.zeros_like(images))
        votes = self.task_predictor(first)

        def ask(rows: Tensor, sets: Tensor) -> Tensor:
            features = first[rows]  # a copy, right where the first set is asked
            others = sets > 0
            if bool(others.any()):
                seen = see(images[rows[others]], sets[others])
                features[others] = seen.to(features.dtype)
            return self._logits(features)

        # While an experience is trained, its classes have no set of their own yet.
        class_to_task = self.class_to_task.clamp_max(len(self.frozen_adapters) - 1)
        found = retrieve(
            class_to_task[votes.argmax(dim=1)],
            class_to_task,
            ask,
            max_rounds=self.config.rounds if self.config.retrieval else 1,
        )
        self.retrieval = Retrieval(
            self._score(found.logits, votes), self._score(found.first_logits, votes), found.visited
        )
        return self.retrieval.logits

    def _score(self, logits: Tensor, votes: Tensor) -> Tensor:
        if not self.config.ensemble:
            return logits
        if self.config.task_predictor == "prototypes":
            votes = len(self.frozen_adapters) * votes  # cosines grow sharper with the experiences
        score = (logits.softmax(dim=1) + votes.softmax(dim=1)) / 2
        return score.clamp_min(torch.finfo(score.dtype).tiny).log()

    def _through(self, tokens: Tensor, adapters: AdapterSet) -> Tensor:
        return self.backbone.features(self.backbone.run(tokens, adapters=adapters))

    def _logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.heads(features)
        return logits.float().masked_fill(self.class_to_task.to(logits.device) < 0, UNSEEN_LOGIT)


class MOS(AdapterStrategy):
    """Trains and merges one adapter set an experience and retrieves the one that fits an image."""

    config_class = MOSConfig
    config: MOSConfig
    model: MOSModel

    # --- the paper's algorithm -----------------------------------------------------------------

    def begin_experience(self) -> None:
        """Trains the adapters and the head from where they are."""
        self.model.requires_grad_(requires_grad=False)
        self.model.current_adapters.requires_grad_(requires_grad=True)
        self.model.heads.requires_grad_(requires_grad=True)
        self.old_means = self.model.classes.class_means(without=frozenset(self.current_classes))
        self.average = (
            self.model.frozen_adapters.mean() if len(self.model.frozen_adapters) else None
        )
        self.model.current_adapters.noise = self._noise("dropout")

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes and the orthogonality term."""
        loss = cross_entropy_over(self.current_classes, logits, targets)
        if self.config.orthogonality == 0:
            return loss
        apart = orthogonality_loss(self.model.features, self.old_means)
        return loss + self.config.orthogonality * apart

    def after_step(self) -> None:
        """Merges the adapters with the mean of the stored ones."""
        if self.config.merge != "none":
            self._merge(1)

    def forward(self) -> Tensor:
        """Computes the logits of a batch; `official` merges while it does."""
        if not self.is_training and self.chosen is not None:
            with self.autocast():
                images: Tensor = self.mb_x
                return self.model.answer(images, self.chosen.rows)
        with self._merging(evaluation=not self.is_training):
            return super().forward()

    def end_experience(self) -> None:
        """Stores the adapters, keeps statistics, realigns the head, learns to guess."""
        self._store()
        features, labels = self._keep_statistics()
        if len(self.classes_by_experience) > 1 and self.config.alignment:
            self._align()
        self._learn_to_guess(features, labels)

    def _store(self) -> None:
        tensors = self.model.current_adapters.tensors()
        if self.config.merge_in_evaluation:
            self.model.before.append(self.average or tensors)
        self.model.frozen_adapters.append(tensors)
        self.log_event("drift", distances=self.model.frozen_adapters.distances().tolist())

    def _keep_statistics(self) -> tuple[Tensor, Tensor]:
        """Returns the features of the experience with its own set, and their labels."""
        rows: list[Tensor] = []
        targets: list[Tensor] = []
        self.model.current_adapters.eval()
        with self.timed("statistics", len(self.experience.dataset)), torch.no_grad():
            for images, labels in self.plain_images():
                with self._merging():
                    rows.append(self._features(images, self.model.current_adapters.adapters()))
                targets.append(labels)
            features, labels = torch.cat(rows), torch.cat(targets)
            for label in self.current_classes:
                if not self.model.classes.add(label, features[labels == label]):
                    self.log_event(
                        "statistics", **{"class": label}, rule="spread of an average class"
                    )
        self.model.current_adapters.train()
        return features, labels

    def _align(self) -> None:
        labels = torch.unique(self.model.classes.labels).tolist()
        head = self.model.heads.joined(labels)
        per_step = 5 * self.config.batch_size
        drawn = self.config.alignment_epochs * per_step * len(labels)
        with self.timed("alignment", drawn):
            options = Alignment(
                epochs=self.config.alignment_epochs,
                batch_size=per_step,
                lr=self.config.alignment_lr,
                weight_decay=self.config.weight_decay,
            )
            align_head(head, self.model.classes, self.generator("alignment"), options)
        self.model.heads.assign(labels, head)

    def _learn_to_guess(self, features: Tensor, labels: Tensor) -> None:
        """Adds the classes as the first set sees them; in experience 0 that is known already."""
        if len(self.model.frozen_adapters) == 1:
            self.model.task_predictor.add(features, labels)
            return
        dropout = self.config.dropout if self.config.prototype_dropout else 0.0
        noise = self._noise("prototypes")
        with self.timed("prototypes", len(features)), torch.no_grad():
            for images, targets in self.plain_images():
                adapters = self.model.frozen_adapters.choose(0, dropout=dropout, noise=noise)
                self.model.task_predictor.add(self._features(images, adapters), targets)

    # --- what it is made of --------------------------------------------------------------------

    def build_model(self, backbone: AdaptedViT) -> MOSModel:
        """Returns the backbone with one adapter set that has learned nothing yet."""
        return MOSModel(backbone, self.config, self.seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head and to the guess, and an owner to each class."""
        known = self.config.num_classes
        self.model.heads.add_classes(range(known) if known else classes, generator)
        self.model.task_predictor.add_classes(range(known) if known else classes)
        missing = max(self.model.heads.classes) + 1 - len(self.model.class_to_task)
        class_to_task = functional.pad(self.model.class_to_task, (0, missing), value=-1)
        class_to_task[list(classes)] = len(self.classes_by_experience) - 1
        self.model.class_to_task = class_to_task.to(self.device)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rates along a cosine that reaches 0 after the experience."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * cosine(epoch, self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9, slower for the head."""
        head = {id(value) for value in self.model.heads.parameters()}
        rates = {False: self.config.lr, True: self.config.lr * self.config.head_lr}
        groups: list[dict[str, Any]] = [
            {
                "params": [value for value in parameters if (id(value) in head) == of_head],
                "lr": rate,
                "initial_lr": rate,
            }
            for of_head, rate in rates.items()
        ]
        return torch.optim.SGD(
            groups, momentum=0.9, weight_decay=self.config.weight_decay, fused=True
        )

    def generators(self) -> dict[str, torch.Generator]:
        """Returns what the adapters' dropout draws from."""
        noise = self.model.current_adapters.noise
        return {} if noise is None else {"dropout": noise}

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns the stored sets, unless evaluation changes them."""
        if self.config.merge_in_evaluation or len(self.model.frozen_adapters) == 0:
            return None
        return self.adapter_feature_extractor(
            self._see, [*zip(*self.model.frozen_adapters.tensors(), strict=True)]
        )

    def _see(self, images: Tensor, sets: Tensor) -> Tensor:
        features: Tensor = self.backbone(images, self.model.frozen_adapters.choose(sets))
        return features

    def retrieval(self) -> Retrieval | None:
        """Returns how the batch evaluated last was answered."""
        return self.model.retrieval

    def _noise(self, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.generator(purpose).initial_seed())

    @contextmanager
    def _merging(self, *, evaluation: bool = False) -> Iterator[None]:
        """Merges around a forward pass as the authors' code does inside: once for each block.

        Block b computes with b + 1 merges; what follows the pass, gradients too, sees all.
        """
        merge = self._merge_stored if evaluation else self._merge
        wanted = self.config.merge_in_evaluation if evaluation else self.config.merge == "official"
        blocks = self.backbone.num_blocks
        if wanted:
            merge(range(1, blocks + 1))
        yield
        if wanted:
            merge(range(blocks - 1, -1, -1))

    def _merge(self, times: int | Sequence[int]) -> None:
        if self.average is not None:
            tensors = self.model.current_adapters.tensors()
            merge_(tensors, self.average, self.config.merge_strength, times)

    def _merge_stored(self, times: int | Sequence[int]) -> None:
        # The first set is merged with nothing.
        for index in range(1, len(self.model.frozen_adapters)):
            tensors = [value[index] for value in self.model.frozen_adapters.tensors()]
            averages = [value[index] for value in self.model.before.tensors()]
            merge_(tensors, averages, self.config.merge_strength, times)

    def _features(self, images: Tensor, adapters: AdapterSet) -> Tensor:
        with self.autocast():
            tokens = self.backbone.tokens(images)
            features = self.backbone.features(self.backbone.run(tokens, adapters=adapters))
        return features.float()
