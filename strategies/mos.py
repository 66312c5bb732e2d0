"""MOS: model surgery.

Every experience trains one adapter set beside the MLPs of all blocks, merging it all the while with
the sets of the experiences before, so that it does not drift from them. The head is realigned on
Gaussians of the classes that are gone. At inference class means of the first adapter's features
guess the experience of an image, and the model corrects its own guess: an adapter whose answer is a
class of another experience hands the image on. Any PEFT module can take the adapter's place.

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

Starts, storage and growth (ours): A may begin elsewhere (`start`), and A_k be stored in bits
(`set_storage`). `policy` and `detector` may give an experience no set of its own: A then starts
from the set that recognises its images and is merged into it, an experience's share at a time
(`merge_back`); its classes are that set's too. Policies and bits are refused beside
`fidelity="official"`.

Differs from the authors' code, unless `fidelity="official"`:
    `merge="per_step"`        once after each step. Theirs ("official") merges 13 times a step: once
                              more for each block of the forward pass, so that block b computes, its
                              gradients too, with b + 1 of them; and in the batches of a class that
                              statistics come from.
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

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.linear import UNSEEN_LOGIT, cross_entropy_over
from cl_adapters.heads.orthogonality import orthogonality_loss
from cl_adapters.heads.registry import build_closed_head
from cl_adapters.peft.merging import merge_, merge_by_block
from cl_adapters.strategies.core.config import SGDConfig, StoredSetsConfig, TrainedHeadConfig
from cl_adapters.strategies.core.features import AdapterFeatureExtractor
from cl_adapters.strategies.core.growing import GrowingStrategy
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.retrieving import RetrievingModel
from cl_adapters.strategies.core.starting import StartConfig, separation
from cl_adapters.strategies.core.statistics import AlignmentConfig, collect_features
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.by_set import features_by_set

__all__ = ["MOS", "MOSConfig", "MOSModel", "orthogonality_loss"]


class MOSConfig(SGDConfig, TrainedHeadConfig, AlignmentConfig, StoredSetsConfig, StartConfig):
    """Options of MOS."""

    head_lr: float = Field(default=0.1, gt=0, description="the head's, as a share of `lr`")
    scale: float = Field(default=1.0, gt=0, description="of a parallel adapter's output")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="in a parallel adapter's middle")
    orthogonality: float = Field(default=0.1, ge=0, description="lambda; 0 leaves the term out")
    merge: Literal["per_step", "official", "none"] = Field(
        default="per_step", description="when the adapter in training is merged with the stored"
    )
    merge_strength: float = Field(default=0.01, ge=0, le=1, description="beta")
    merge_in_evaluation: bool = Field(default=False, description="merge with each batch evaluated")
    task_predictor: Literal["prototypes", "discriminant"] = Field(
        default="discriminant", description="what the first set's features are classified with"
    )
    prototype_dropout: bool = Field(default=False, description="dropout in them from experience 1")
    retrieval: bool = Field(default=True, description="let an adapter hand an image on")
    rounds: int = Field(default=4, ge=1, description="most adapters asked for an image")
    ensemble: bool = Field(default=True, description="add the prototypes' vote to the score")
    num_classes: int | None = Field(default=None, ge=1, description="of the stream, if known")
    merge_back: float | None = Field(
        default=None, gt=0, le=1, description="share of a continued set; None: an experience's"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decides and (self.merge == "official" or self.merge_in_evaluation):
            raise ValueError(
                "`policy` must stay at every_experience, without a budget, where sets are merged "
                f"as the authors' are (`merge`, `merge_in_evaluation`), got {self.policy!r}"
            )
        self.refuse_beside_bits({"merge": "official", "merge_in_evaluation": True})
        self.refuse_beside_parallel({"scale": 1.0, "dropout": 0.1, "prototype_dropout": False})
        return self

    @property
    def evaluation_options(self) -> frozenset[str]:
        """What only inference asks for; none if evaluating changes the stored sets."""
        return frozenset(() if self.merge_in_evaluation else ("retrieval", "rounds", "ensemble"))

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


class MOSModel(RetrievingModel):
    """The backbone, the adapter set in training, the frozen ones, and what classifies."""

    config: MOSConfig

    def __init__(self, backbone: AdaptedViT, config: MOSConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.current_adapters = config.build_stack(
            backbone, seed, scale=config.scale, dropout=config.dropout
        )
        self.frozen_adapters = config.build_bank(self.current_adapters)
        # Of each frozen set the mean of those before it, only for merging in evaluation.
        self.before = config.build_bank(self.current_adapters)
        self.average: list[Tensor] | None = None  # of the frozen sets, while another is trained
        self.heads = config.build_head(backbone.embed_dim, init_std=0.02)
        predictor = "prototype" if config.task_predictor == "prototypes" else "discriminant"
        self.task_predictor = build_closed_head(predictor, backbone.embed_dim, scale=1.0)
        self.classes = config.build_statistics(backbone.embed_dim)
        self.class_to_task = ClassToTask()  # the last experience of each class
        self.unaligned = config.build_unaligned()
        self.regimes = config.build_regimes(backbone.embed_dim, seed, self.current_adapters)

    def forward(self, images: Tensor) -> Output:
        """Returns the head's logits in train mode, the log of the score in eval mode.

        Shape:
            images: (B, 3, S, S). Output: (B, C); in train mode `features` (B, D) with gradient,
            in eval mode `retrieval`, how each image was answered.
        """
        if self.training or len(self.frozen_adapters) == 0:
            with self.merged_pass(training=self.training):
                features = self.backbone(images, self.current_adapters.adapters())
            return Output(self.logits(features), {"features": features})
        features_under = features_by_set(self.backbone, self.frozen_adapters, images)
        with self.merged_pass(training=False):
            return self.answer(torch.arange(len(images), device=images.device), features_under)

    def logits(self, features: Tensor) -> Tensor:
        """Returns the head's logits (B, C) of features (B, D)."""
        logits: Tensor = self.heads(features).float()
        return logits.masked_fill(self.class_to_task.experience_of < 0, UNSEEN_LOGIT)

    def merge(self, times: int | Sequence[int]) -> None:
        """Merges the set in training with the mean of the frozen ones."""
        if self.average is not None:
            tensors, strength = self.current_adapters.tensors(), self.config.merge_strength
            # Between a pass and its gradients these have to be those of the weights of the pass.
            merge_(tensors, self.average, strength, times, renew=True)

    def _merge_frozen(self, times: int | Sequence[int]) -> None:
        for index in range(1, len(self.frozen_adapters)):  # the first is merged with nothing
            tensors, averages = self.frozen_adapters.at(index), self.before.at(index)
            merge_(tensors, averages, self.config.merge_strength, times)

    def merged_pass(self, *, training: bool) -> AbstractContextManager[None]:
        """Returns the context of a forward pass: `official` merges inside, block after block."""
        if training and self.config.merge == "official":
            return merge_by_block(self.merge, self.backbone.num_blocks)
        if not training and self.config.merge_in_evaluation:
            return merge_by_block(self._merge_frozen, self.backbone.num_blocks)
        return nullcontext()


class MOS(GrowingStrategy):
    """Trains and merges one adapter set an experience and retrieves the one that fits an image."""

    config_class = MOSConfig
    config: MOSConfig
    model: MOSModel
    pieces = ("heads", "prototypes", "sets", "statistics")
    option_that_changes = "merge_in_evaluation"

    # --- the paper's algorithm -------------------------------------------------------------------

    def begin_experience(self) -> None:
        """Trains the adapters and the head from where they are."""
        model = self.model
        model.requires_grad_(requires_grad=False)
        model.current_adapters.requires_grad_(requires_grad=True)
        model.heads.requires_grad_(requires_grad=True)
        self.old_means = model.classes.class_means(without=frozenset(self.current_classes))
        regimes, bank = self.find_regime(), model.frozen_adapters
        fresh = self.backbone, self.seed * 1_000_003 + len(self.classes_by_experience)
        start = self.config.start_tensors(bank, regimes, fresh, self._separates)
        model.current_adapters.load(start or model.current_adapters.tensors())
        sets = None if regimes is None else regimes.stored
        model.average = bank.mean(sets) if len(bank) else None
        model.current_adapters.noise = self.generator("dropout", self.device)

    def _separates(self, stored: int) -> tuple[float, int]:
        adapters = self.model.frozen_adapters.choose(stored)
        with self.events.timed("start", len(self.experience.dataset)):
            return separation(self.plain_images(), self.features.under(adapters))

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes and the orthogonality term."""
        loss = cross_entropy_over(self.current_classes, logits, targets)
        if self.config.orthogonality == 0 or self.output is None:
            return loss
        apart = orthogonality_loss(self.output.extras["features"], self.old_means)
        return loss + self.config.orthogonality * apart

    def after_step(self) -> None:
        """Merges the adapters with the mean of the frozen ones."""
        if self.config.merge != "none":
            self.model.merge(1)

    def end_experience(self) -> None:
        """Freezes a copy of the adapters, keeps statistics, realigns the head and the predictor."""
        self._freeze_copy()
        features, labels = self._keep_statistics()
        if len(self.classes_by_experience) > 1:
            source = self.generator("alignment")
            self.config.align(self.model, source, self.events)
        self._fit_task_predictor(features, labels)

    def _freeze_copy(self) -> None:
        tensors = self.model.current_adapters.tensors()
        if self.config.merge_in_evaluation:
            self.model.before.append(self.model.average or tensors)
        if self.model.regimes is None:
            self.model.frozen_adapters.append(tensors)
        else:
            self.model.regimes.keep(self.model.frozen_adapters, tensors, self.config.merge_back)
        apart = self.model.frozen_adapters.distances()
        if self.model.regimes is not None:  # of each experience's set from each other's
            sets = self.model.regimes.sets_of(torch.arange(len(self.classes_by_experience)))
            apart = apart[sets][:, sets]
        self.log_event("drift", distances=apart.tolist())

    def _keep_statistics(self) -> tuple[Tensor, Tensor]:
        """Returns the features of the experience with its own set, and their labels."""
        self.model.current_adapters.eval()
        with self.events.timed("statistics", len(self.experience.dataset)):
            features, labels = collect_features(self._images_of_classes(), self._current_features)
            for label in self.model.classes.add_all(features, labels):
                rule = "spread of an average class"
                self.log_event("statistics", **{"class": label}, rule=rule)
        self.model.current_adapters.train()
        return features, labels

    def _images_of_classes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of the experience: class by class, as theirs, where batches merge."""
        if self.config.merge != "official":
            yield from self.plain_images()
            return
        dataset: Any = self.experience.dataset
        for label in self.current_classes:
            own = dataset.subset(list(dataset.targets.val_to_idx[label]))
            yield from self.features.plain_images(own, 3 * self.config.batch_size)

    def _current_features(self, images: Tensor) -> Tensor:
        with self.model.merged_pass(training=True):
            return self.features.under(self.model.newest_adapters())(images)

    def _fit_task_predictor(self, features: Tensor, labels: Tensor) -> None:
        """Adds the classes as the first set sees them; in experience 0 that is known already."""
        model = self.model
        if len(model.frozen_adapters) == 1:
            model.task_predictor.add(features, labels)
            return
        dropout = self.config.dropout if self.config.prototype_dropout else 0.0
        noise = self.generator("prototypes", self.device)
        with self.events.timed("prototypes", len(features)), torch.no_grad():
            for images, targets in self.plain_images():
                adapters = model.frozen_adapters.choose(0, dropout=dropout, noise=noise)
                model.task_predictor.add(self.features.under(adapters)(images), targets)

    # --- what it is made of ----------------------------------------------------------------------

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: MOSConfig, seed: int) -> MOSModel:
        """Returns the backbone with one adapter set that has learned nothing yet."""
        return MOSModel(backbone, config, seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head and to the predictor, and an experience to each class."""
        model, known = self.model, self.config.num_classes
        self.config.restore_head(model)
        rows = range(known) if known else classes
        model.heads.add_classes(rows, generator)
        model.task_predictor.add_classes(rows)
        model.class_to_task.add_classes(rows)
        model.class_to_task.register(classes, len(self.classes_by_experience) - 1)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rates along a cosine that reaches 0 after the experience."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9, slower for the head."""
        lr, decay, share = self.config.lr, self.config.weight_decay, self.config.head_lr
        return sgd(parameters, lr, decay, slower=self.model.heads, share=share)

    def generators(self) -> dict[str, torch.Generator]:
        """Returns what the adapters' dropout draws from."""
        noise = self.model.current_adapters.noise
        return {} if noise is None else {"dropout": noise}

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns the features under each frozen set, unless evaluation changes them."""
        frozen = self.model.frozen_adapters
        if self.config.merge_in_evaluation or len(frozen) == 0:
            return None
        settled = None if self.model.regimes is None else 1  # the others may be continued
        return self.features.adapter_feature_extractor(frozen, settled=settled)
