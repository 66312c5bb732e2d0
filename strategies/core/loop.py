"""Avalanche's training loop for the methods here: the one file that knows its private methods.

`Loop` asks a `Method` its questions at the right moments, in phases that may be interrupted and
taken up again (`core/checkpointing.py`), and lets a guard watch what it gives.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final

import torch
from avalanche.benchmarks.utils import concat_datasets
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SequentialSampler

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.peft.frozen import eval_frozen
from cl_adapters.peft.noise import PeftNoise
from cl_adapters.randomness import kept_random_states
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset, AvalancheExperience
from cl_adapters.strategies.core.batches import Batches, BatchMaker, Frozen
from cl_adapters.strategies.core.calibrating import show_gradients
from cl_adapters.strategies.core.checkpointing import (
    Checkpointer,
    TrainerState,
    load_trainer_state,
    trainer_state,
)
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.extractors import FeatureExtractor
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.strategies.core.features import Features
from cl_adapters.strategies.core.labels import classes_of
from cl_adapters.strategies.core.loaders import Group, IndexBatches
from cl_adapters.strategies.core.loss_guard import LossGuard, Place, advice_on
from cl_adapters.strategies.core.method import Method, Output, Phase
from cl_adapters.strategies.core.optimizers import clip_gradients, no_optimizer
from cl_adapters.strategies.core.output import logits_from, loss_from, of_kind, phases_from
from cl_adapters.strategies.core.samplers import ResumableBatchSampler, ResumableSampler
from cl_adapters.strategies.core.seeding import purpose_generator
from cl_adapters.strategies.core.views import Augmentation
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["Loop"]

# What a batch in training leaves for the plugins after it, some of which evaluate in between.
_OF_TRAINING: Final = ("mbatch", "mb_output", "loss", "output", "_frozen")


class Loop(Method, SupervisedTemplate):  # type: ignore[misc] # Avalanche ships no types
    """The loop; `AdapterStrategy` completes it."""

    backbone: AdaptedViT
    cache: FeatureCache | None
    features: Features
    events: EventLog
    augmentation: Augmentation
    checkpointer: Checkpointer | None
    output: Output | None
    classes_by_experience: list[tuple[int, ...]]
    # The order of the images in training, of which a pass may begin in the middle.
    order: ResumableSampler

    def prepare_loop(self) -> None:
        """Makes what the loop keeps, once the device is known."""
        self.peft_noise = PeftNoise()
        self.guard = LossGuard(self.device, self._place)
        self.maker = BatchMaker(self.device, self.augmentation, self.cache)
        self._frozen = Frozen()
        self._batches = {True: Batches(None), False: Batches(None)}  # in training or not
        self._datasets: list[AvalancheDataset] = []  # only where all are trained on
        self._ends: list[TrainerState] = []  # of the phases of the experience in training
        self._to_reach: list[TrainerState] = []
        self._now = (0, 0, "")  # phase, epoch, and what drew the order of its images
        self._outside = ""  # of the epochs of an experience: before or after them
        self._evaluated = 0  # batches of the experience that is evaluated

    @abstractmethod
    def register_experience(self, experience: AvalancheExperience) -> None:
        """Learns which classes an experience brings; trains nothing."""

    def load_state(self, states: Sequence[TrainerState]) -> None:
        """Lets the next experience that is trained go on where its training was interrupted.

        Args:
            states: What its checkpointer was given last. The strategy is as it was before that
                experience, and so are the global random states.
        """
        self._to_reach = list(states)

    def set_augmentation_seed(self, moment: str) -> None:
        """Draws which view each image shows from now on; the same moment draws the same."""
        self.augmentation.set_augmentation_seed(len(self.classes_by_experience), moment)

    def set_modes(self) -> None:
        """Puts what is trained in train mode, and in eval mode what is frozen and must not draw."""
        self.model.train()
        eval_frozen(self.model)
        self.peft_noise.hand_out(self.model)

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Returns a fresh source of randomness for one purpose in the current experience."""
        return purpose_generator(self.seed, len(self.classes_by_experience), purpose, device)

    def train_on_features(
        self,
        features: FeatureExtractor | CachedFeatures | None,
        order: ResumableSampler | None = None,
    ) -> None:
        """Trains from now on with frozen features in place of images.

        Of an extractor: the inputs have to come again, and the order is the same as over images.
        Features are kept on disk where the extractor has a namespace, else in memory; where they
        would not be kept at all, training goes on with images, and so it does where a plugin has
        put its own loader in place, as replay does.

        Args:
            features: What is frozen; None goes back to images. Cached features are taken as they
                are, and images where they would be computed at each use.
            order: The order of the images from now on, with cached features.
        """
        self.set_modes()
        if features is None:
            self._replace_loader(self._images)
            return
        if isinstance(features, CachedFeatures):
            self.order = order or self.order
            batches: Any = self.order
            self._replace_loader(features.minibatches(batches, images=True))
            return
        # What needs nothing but features is trained without augmentation.
        same = True if self.trains_on_features else self.augmentation.fixed_views
        keep = not features.namespace
        rows = CachedFeatures(
            self.adapted_dataset, features, same=same, keep=keep, cache=self.cache
        )
        with self.events.timed("frozen", len(rows)):
            rows.prepare()
        if rows.is_kept and isinstance(self.order, ResumableBatchSampler):
            self._replace_loader(rows.minibatches(IndexBatches(self.order)))

    # --- Avalanche's hooks -----------------------------------------------------------------------

    def train(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - Avalanche's signature
        """Trains; raises `RunError` where a feature, a loss or an output is no longer a number."""
        with self.guard.on(self.backbone):
            return super().train(*given, **named)

    def eval(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - Avalanche's signature
        """Evaluates; raises `RunError` where a feature or an output is not a number."""
        # Inside training, which then goes on as if nobody had asked.
        state = kept_random_states() if self.is_training else nullcontext()
        with self.guard.on(self.backbone), state:
            return super().eval(*given, **named)

    def make_train_dataloader(
        self,
        num_workers: int = 0,
        shuffle: bool = True,  # noqa: FBT001, FBT002 - Avalanche's signature
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Shuffles with the strategy's own generator."""
        if self.trains_on_features:
            self.adapted_dataset = self.experience.dataset.eval()
        elif self.trains_on_all_data:
            everything = concat_datasets([*self._datasets, self.experience.dataset])
            self.adapted_dataset = everything.train()
        # An experience smaller than one batch would have nothing left without its last batch.
        can_drop = len(self.adapted_dataset) >= self.train_mb_size
        whole: Any = self.adapted_dataset
        generator = self.generator("order")
        self.order = ResumableBatchSampler(
            RandomSampler(whole, generator=generator) if shuffle else SequentialSampler(whole),
            self.train_mb_size,
            drop_last=can_drop and getattr(self.config, "drop_last", False),
            generator=generator,
        )
        group: Group = "eval" if self.trains_on_features else "train"
        self._frozen = Frozen(query=self.query_features())
        batches = self._batches[True] = self.maker.training(
            whole, self.order, group=group, num_workers=num_workers, query=self._frozen.query
        )
        self._images = self._own_loader = self.dataloader = batches.loader
        if self.trains_on_features and self.cache is not None:
            self.train_on_features(self.frozen_features())
        self.num_steps = len(self.dataloader) * self.train_epochs

    def make_eval_dataloader(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Reads frozen features where they are kept, else the images."""
        self._evaluated = 0
        workers = kwargs.get("num_workers") or 0
        batches = self.maker.evaluation(
            self.adapted_dataset, self.eval_mb_size, self._frozen, workers
        )
        self._batches[False], self.dataloader = batches, batches.loader
        if self.dataloader is None:
            super().make_eval_dataloader(**{**kwargs, "pin_memory": self.device.type == "cuda"})

    def check_model_and_optimizer(self, **_: Any) -> None:  # noqa: ANN401
        """Grows the model and makes the optimiser over what is trainable, frozen parts left out."""
        self._outside = "before its first epoch"
        self.events.begin_experience()
        self.register_experience(self.experience)
        self.peft_noise.renew(self.model, self.generator("noise", self.device))
        self.begin_experience()
        show_gradients(self.model, self.features, self.adapted_dataset, self.events)
        self.make_optimizer()

    def make_optimizer(self, **_: Any) -> None:  # noqa: ANN401
        """Makes a fresh optimiser over the parameters that require gradients."""
        trainable = [value for value in self.model.parameters() if value.requires_grad]
        made = self.build_optimizer(trainable) if trainable else no_optimizer()
        self.optimizer = of_kind(self.build_optimizer, made, torch.optim.Optimizer, "an optimiser")

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        """Leaves the model as it is: it grows in `register_experience`, never in evaluation."""
        return self.model if model is None else model

    def forward(self) -> Tensor:
        """Computes the model's output for the current batch."""
        if self.is_training and not self.learns_by_gradient:
            with torch.no_grad():
                given = self.accumulate(self.mb_x, self.mb_y)
            found = logits_from(self.accumulate, given, len(self.mb_y))
            return self._watched(found.logits.float())
        if not self.classes_by_experience:
            return self._chance()
        with self.features.autocast():
            answer = self._answer()
        columns = self.classes_seen[-1] + 1 if self.is_training else 0
        self.output = logits_from(self.model.forward, answer, len(self.mb_y), columns)
        logits = self.output.logits.float()
        return logits if self.is_training else self._watched(logits)

    def criterion(self) -> Tensor:
        """Computes the method's loss in training, plain cross-entropy in evaluation."""
        logits, targets = self.mb_output, self.mb_y
        if self.is_training:
            found = self.batch_loss(logits, targets)
            return loss_from(self.batch_loss, found, is_followed=self.learns_by_gradient)
        # A class beyond the head is one that was never seen: it gets a column like the others.
        more = max(0, int(targets.max()) + 1 - logits.shape[1])
        logits = nn.functional.pad(logits, (0, more), value=UNSEEN_LOGIT)
        return nn.functional.cross_entropy(logits, targets)

    def backward(self) -> None:
        """Computes gradients, unless the loss has exploded or is no longer a number."""
        if self.learns_by_gradient:
            self.guard.watch("loss", self.loss)
            super().backward()

    def optimizer_step(self) -> None:
        """Takes an optimiser step."""
        if self.learns_by_gradient:
            clip_gradients(self.optimizer, getattr(self.config, "clip_norm", None))
            self.before_step()
            super().optimizer_step()

    # --- its private ones ------------------------------------------------------------------------

    def _unpack_minibatch(self) -> None:
        images, targets, *others = self.mbatch  # type: ignore[has-type] # Avalanche ships no types
        # Labels are int64 whatever whole numbers the dataset has.
        self.mbatch = [self.backbone.inputs(images, self.device), targets.long(), *others]
        super()._unpack_minibatch()

    def _answer(self) -> Output | Tensor:
        answered, query = self._batches[self.is_training].answered, self._frozen.query
        if answered is not None:
            found: Output | Tensor = self.model.answer(self.mb_x, answered.rows)
        elif query is None:
            found = self.model(self.mb_x)
        else:
            found = self.model(self.mb_x, self._query_rows(query))
        return found

    def _query_rows(self, query: FeatureExtractor) -> Tensor:
        """Returns the query features of the current batch, (B, ...), from the cache if there."""
        known = self._batches[self.is_training].queries
        if known is not None and len(self.mbatch) > 3:  # a plugin's batch has no indices
            return known.rows(self.mbatch[2].cpu()).to(self.device)
        with torch.no_grad():
            return query.compute(self.mb_x)

    def _replace_loader(self, loader: Any) -> None:  # noqa: ANN401 - anything that gives batches
        if self.dataloader is self._own_loader:  # else a plugin has put its own in place
            self._own_loader = self.dataloader = loader

    def _chance(self) -> Tensor:
        """Answers for a model that knows no class yet: each class of the images is as likely."""
        columns = max(classes_of(self.experience.dataset), default=0) + 1
        self.output = Output(torch.zeros(len(self.mb_y), columns, device=self.device))
        return self.output.logits

    def _watched(self, logits: Tensor) -> Tensor:
        # A class may be ruled out by minus infinity; that all are, or one for certain, may not be.
        if logits.numel():
            self.guard.watch("outputs", logits.amax(dim=1), patient=not self.is_training)
        self._evaluated += not self.is_training
        return logits

    def _place(self) -> Place:
        known = f"experience {len(self.classes_by_experience) - 1}"
        advice = advice_on(self.optimizer) if self.learns_by_gradient else ""
        if not self.is_training:
            shown = getattr(self.experience, "current_experience", 0)
            return Place(f"{known}, evaluation of experience {shown}", self._evaluated, advice)
        if self._outside:
            return Place(f"{known}, {self._outside}", None, advice)
        moment = f"{known}, phase {self.phase!r}, epoch {self.clock.train_exp_epochs}"
        return Place(moment, self.clock.train_epoch_iterations, advice)

    def _train_exp(
        self,
        experience: AvalancheExperience,  # noqa: ARG002
        eval_streams: object = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        # Avalanche runs `train_epochs` epochs; here each phase says how many.
        reach, self._to_reach, self._ends = self._to_reach, [], []
        for number, phase in enumerate(phases_from(self.phases)):
            start = reach[number] if number < len(reach) else None
            if not self._train_phase(number, phase, start, **kwargs):
                return
            if self.checkpointer is not None:
                end = number, phase.epochs, self.order.place()
                self._ends.append(trainer_state(self, *end, 0))

    def _train_phase(
        self,
        number: int,
        phase: Phase,
        start: TrainerState | None,
        **kwargs: Any,  # noqa: ANN401
    ) -> bool:
        """Trains a phase, or what is left of it; returns whether training goes on."""
        first = start.epoch if start else 0
        for epoch in range(phase.epochs):
            self.phase, self._outside = phase.name, ""
            self.set_augmentation_seed(f"phase {number} epoch {epoch}")
            self.begin_epoch(epoch)
            self.set_modes()
            if epoch < first:
                continue
            self._before_training_epoch(**kwargs)
            if self._stop_training:  # type: ignore[has-type] # Avalanche ships no types
                self._stop_training = False
                return False
            if start and epoch == first:  # after what prepares an epoch, whatever that changed
                load_trainer_state(self, start)
            self._now = number, epoch, self.order.place()
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
        if start and first == phase.epochs:
            load_trainer_state(self, start)
        return True

    def _after_training_iteration(self, **kwargs: Any) -> None:  # noqa: ANN401
        super()._after_training_iteration(**kwargs)
        if self.checkpointer is not None and self.checkpointer.is_due():
            self.guard.check()
            now = trainer_state(self, *self._now, self.clock.train_epoch_iterations)
            self.checkpointer.keep([*self._ends, now])

    def _after_training_epoch(self, **kwargs: Any) -> None:  # noqa: ANN401
        self.guard.check()
        super()._after_training_epoch(**kwargs)

    def _save_train_state(self) -> dict[str, Any]:
        kept = {name: getattr(self, name, None) for name in _OF_TRAINING}
        return {**super()._save_train_state(), "kept": kept}

    def _load_train_state(self, prev_state: dict[str, Any]) -> None:
        super()._load_train_state(prev_state)
        if self.is_training:
            for name, value in prev_state["kept"].items():
                setattr(self, name, value)

    def _before_eval(self, **kwargs: Any) -> None:  # noqa: ANN401
        is_cached = self.cache is not None
        self._frozen = Frozen(
            self.frozen_features() if is_cached else None,
            self.frozen_adapter_features() if is_cached else None,
            self.query_features(),
        )
        super()._before_eval(**kwargs)

    def _after_update(self, **kwargs: Any) -> None:  # noqa: ANN401
        self.after_step()
        super()._after_update(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:  # noqa: ANN401
        self._outside = "after its last epoch"
        self.end_experience()
        self.guard.check()  # before anything that the experience left is kept
        self._ends = []  # copies of what was learned, of no use from here on
        super()._after_training_exp(**kwargs)
