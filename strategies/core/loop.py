"""What every strategy shares: Avalanche's plumbing, once.

`AdapterStrategy` turns Avalanche's template into nine questions that a method answers:

    build_model(backbone)   the frozen backbone and what is learned beside it
    grow(classes)           make room for classes that have not been seen
    begin_data()            what comes before an experience's images are touched
    begin_experience()      copy, freeze or reset before an experience
    phases()                what an experience is made of: names and numbers of epochs
    begin_epoch(epoch)      change what is trained between epochs
    batch_loss(...)         the loss of one batch
    after_step()            averages after an optimiser step
    end_experience()        statistics and merging after an experience

The model answers the rest: in train mode its forward returns logits for the loss, in eval mode
logits whose softmax are the predicted probabilities. This is the only file that touches methods
which Avalanche marks as private.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Final, Literal, TypedDict, Unpack

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError, RunError
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.peft.retrieval import Retrieval
from cl_adapters.randomness import as_text, from_text, random_states, set_random_states
from cl_adapters.records.events import Event, make_event, parse_event
from cl_adapters.records.upgrade import add_new_tensors
from cl_adapters.strategies.core.checkpointing import (
    Checkpointer,
    CheckpointMismatchError,
    IndexBatches,
    ResumableBatchSampler,
    ResumablePlugin,
    ResumableSampler,
    TrainerState,
    load_optimizer,
    optimizer_tensors,
)
from cl_adapters.strategies.core.config import StrategyConfig, TrainedConfig
from cl_adapters.strategies.core.feature_cache import (
    AdapterFeatureExtractor,
    CachedAdapterFeatures,
    CachedFeatures,
    FeatureExtractor,
    extractor_digest,
)
from cl_adapters.strategies.core.views import FixedViews, Views
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["EXPLODED", "AdapterStrategy", "Phase", "TemplateArgs", "classes_of"]

# No training comes back from such a loss; a class that no head knows yet costs a thousand.
EXPLODED: Final = 1e6
_LOSSES: Final = 32  # batches between two looks at the loss on a GPU


@dataclass(frozen=True)
class Phase:
    """Some epochs of training under one name, as timings call them."""

    name: str
    epochs: int


class TemplateArgs(TypedDict, total=False):
    """Arguments that go on to Avalanche's `SupervisedTemplate`, with its meaning and defaults."""

    device: str | torch.device
    plugins: Sequence[Any] | None
    evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin]
    eval_mb_size: int
    eval_every: int


class AdapterStrategy(SupervisedTemplate, ABC):  # type: ignore[misc] # Avalanche ships no types
    """An Avalanche strategy on a frozen backbone.

    Args:
        backbone: The frozen ViT.
        config: The method's options; None takes its defaults.
        seed: Seed of initial weights and of the order of images. Torch's global random state is not
            used for either, so two runs with one seed agree whatever ran before them.
        precision: `bf16` computes forward passes under autocast; parameters stay in float32.
        fixed_views: Says that the training images are not augmented at random, so that what the
            frozen part computes from them may be kept for an experience; or which view each of
            them shows, a new one or one of some, which the dataset's transforms follow.
        cache: Where the rows of `frozen_features` are kept on disk, for later evaluations and other
            runs; None keeps none. Only for datasets that say which images are equal, as ours do.
        **template: Arguments of Avalanche's `SupervisedTemplate`.
    """

    config_class: ClassVar[type[StrategyConfig]] = StrategyConfig
    learns_by_gradient: ClassVar[bool] = True
    # Whether training needs nothing of an image but the row of `frozen_features`, without
    # augmentation.
    trains_on_features: ClassVar[bool] = False
    # Whether `restore` brings back all that matters for the experiences to come.
    resumes: bool = True
    # Whether an experience can go on in its middle (`cl_adapters.strategies.core.checkpointing`).
    resumes_inside: bool = True
    # Who keeps points of the experience in training; None keeps none.
    checkpointer: Checkpointer | None = None
    # The order of the images in training, of which a pass may begin in the middle.
    order: ResumableSampler

    def __init__(
        self,
        *,
        backbone: AdaptedViT,
        config: StrategyConfig | None = None,
        seed: int = 0,
        precision: Literal["fp32", "bf16"] = "fp32",
        fixed_views: bool | Views = False,
        cache: FeatureCache | None = None,
        **template: Unpack[TemplateArgs],
    ) -> None:
        self.config = config or self.config_class()
        self.seed = seed
        self.precision = precision
        self.fixed_views = fixed_views
        self.cache = cache
        self._evaluated_part: FeatureExtractor | None = None
        self._evaluated_choice: AdapterFeatureExtractor | None = None
        self._part_digests: list[str] = []
        self._backbone_part: tuple[object, tuple[str, int, int]] = (None, ("", 0, 0))
        # In evaluation under a `frozen_adapter_features`: what a batch's inputs, indices of images,
        # lead to.
        self.chosen: CachedAdapterFeatures | None = None
        # Plugins from elsewhere may count on something that no point of an experience holds.
        given = template.get("plugins") or ()
        if not all(isinstance(each, ResumablePlugin) for each in given):
            self.resumes_inside = False
        self.phase = "train"
        self._events: list[Event] = []
        self.timings: dict[str, tuple[float, int]] = {}
        self.classes_by_experience: list[tuple[int, ...]] = []
        self.num_steps = 0
        self._losses: list[tuple[int, Tensor]] = []  # of batches whose loss was not looked at yet
        self._ends: list[TrainerState] = []  # of the phases of the experience in training
        self._to_reach: list[TrainerState] = []
        self._now = (0, 0, "")  # phase, epoch, and what drew the order of its images
        super().__init__(
            model=self.build_model(backbone),
            optimizer=_no_optimizer(),  # each experience makes its own
            train_mb_size=self.config.batch_size,
            train_epochs=getattr(self.config, "epochs", 1),
            **{"eval_mb_size": 64, **template, **self.template_arguments()},
        )
        self.model.to(self.device)

    # --- what a method answers -----------------------------------------------------------------

    @abstractmethod
    def build_model(self, backbone: AdaptedViT) -> nn.Module:
        """Returns the model: the backbone as `backbone`, beside it everything that is learned."""

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes room for the classes of an experience, of which some may have been seen."""

    def template_arguments(self) -> dict[str, Any]:
        """Returns further arguments for the constructor of Avalanche's template."""
        return {}

    def begin_data(self) -> None:
        """Comes first in each experience, before its images are touched; nothing by default."""

    def begin_experience(self) -> None:
        """Prepares training; `classes_by_experience` and `num_steps` are up to date."""

    def phases(self) -> Iterator[Phase]:
        """Yields what is trained in an experience, one after the other.

        What stands between two yields runs between them, so a method may look at what a phase has
        learned before it decides on the next.
        """
        yield Phase("train", self.train_epochs)

    def begin_epoch(self, epoch: int) -> None:
        """Prepares an epoch, counted from 0 in each phase."""

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss.

        Shape:
            logits: (B, C). targets: (B,). Output: scalar.
        """
        return nn.functional.cross_entropy(logits, targets)

    def after_step(self) -> None:
        """Follows each optimiser step."""

    def end_experience(self) -> None:
        """Follows the last epoch of an experience, before any evaluation."""

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns the part of the model, from images on, that is not in training; None by default.

        In evaluation the model then gets the rows of this part in place of images.
        """
        return None

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns frozen parts of which evaluation asks, image by image; None by default.

        In evaluation a batch then holds indices of images, and `chosen` gives their rows.
        """
        return None

    def generators(self) -> Mapping[str, torch.Generator]:
        """Returns, by name, what training steps draw from.

        Beside the order of the images and torch's global source, which are seen to.
        """
        return {}

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimiser of an experience."""
        if not isinstance(self.config, TrainedConfig):
            return _no_optimizer()
        return torch.optim.Adam(parameters, lr=self.config.lr, fused=True)

    # --- what the runner and other users ask ---------------------------------------------------

    @property
    def backbone(self) -> AdaptedViT:
        """The frozen network."""
        backbone: AdaptedViT = self.model.backbone
        return backbone

    @property
    def current_classes(self) -> tuple[int, ...]:
        """Labels of the experience that was trained last."""
        return self.classes_by_experience[-1]

    @property
    def classes_seen(self) -> list[int]:
        """All labels seen so far, sorted."""
        return sorted({label for classes in self.classes_by_experience for label in classes})

    @property
    def views(self) -> Views | None:
        """What says which view each training image shows; None if all show one, or any."""
        return self.fixed_views if isinstance(self.fixed_views, Views) else None

    @property
    def inputs_come_again(self) -> bool:
        """Whether training images show the same input, or one of some, more than once."""
        return self.fixed_views is True or isinstance(self.views, FixedViews)

    def set_augmentation_seed(self, moment: str) -> None:
        """Draws which view each training image shows from now on, where something says so.

        Args:
            moment: Of the experience; the same moment draws the same.
        """
        if self.views is not None:
            self.views.show(f"{self.seed} {len(self.classes_by_experience)} {moment}")

    def autocast(self) -> torch.autocast:
        """Returns the context that computes in the strategy's precision."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def feature_extractor(
        self, compute: Callable[[Tensor], Tensor], *modules: nn.Module
    ) -> FeatureExtractor:
        """Returns a part of the model for `frozen_features` or `train_on_features`.

        Args:
            compute: From images (B, C, S, S) on the strategy's device to rows (B, ...).
            *modules: All that it computes with; none for rows that are not to be kept on disk.
        """

        def rows(images: Tensor) -> Tensor:
            with self.autocast():
                return compute(self.backbone.inputs(images, self.device))

        if self.cache is None or not modules:
            return FeatureExtractor(rows, device=self.device)
        weights = [value for module in modules for value in module.state_dict().values()]
        # The backbone alone stays as it is, unless somebody writes into its weights.
        key = compute, tuple((value.data_ptr(), value._version) for value in weights)
        if modules == (self.backbone,) and self._backbone_part[0] == key:
            space, size, asked = self._backbone_part[1]
        else:
            passes = self.backbone.num_passes  # the digest's own are no pass of an image
            space, size = extractor_digest(rows, weights, self.backbone.input_shape)
            asked = int(self.backbone.num_passes > passes)
            self.backbone.num_passes = passes
        if modules == (self.backbone,):
            self._backbone_part = key, (space, size, asked)
        answered = partial(self._count_passes, asked)
        return FeatureExtractor(rows, space, self.device, size, answered)

    def _count_passes(self, each: int, images: int) -> None:
        # What a cache answers stands for passes: they are the method's, whoever computed them.
        self.backbone.num_passes += each * images

    def adapter_feature_extractor(
        self, compute: Callable[[Tensor, Tensor], Tensor], weights: Sequence[Sequence[Tensor]]
    ) -> AdapterFeatureExtractor:
        """Returns parts of the model for `frozen_adapter_features`.

        Args:
            compute: From images (B, C, S, S) and the part of each (B,), on the strategy's device,
                to rows (B, ...); the backbone does the rest.
            weights: What each part alone computes with. A part that was given before is the same.
        """

        def rows(images: Tensor, parts: Tensor) -> Tensor:
            with self.autocast():
                return compute(
                    self.backbone.inputs(images, self.device),
                    parts.to(self.device, non_blocking=True),
                )

        passes = self.backbone.num_passes
        for part in range(len(self._part_digests), len(weights)):
            shown = partial(_under_one, rows, part)
            shape = self.backbone.input_shape
            self._part_digests.append(extractor_digest(shown, weights[part], shape)[0])
        self.backbone.num_passes = passes
        space = self.feature_extractor(self.backbone, self.backbone).space
        answered = partial(self._count_passes, 1)
        return AdapterFeatureExtractor(
            rows, space, tuple(self._part_digests), self.device, answered
        )

    def learned_state(self) -> dict[str, Tensor]:
        """Returns every tensor that was learned: the model's state without the frozen backbone."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("backbone.")}

    def restore(self, state: Mapping[str, Tensor], experiences: Sequence[Any]) -> None:
        """Returns to the end of an experience that was trained before.

        Args:
            state: What `learned_state` gave then.
            experiences: The training experiences up to and including that one.

        Raises:
            InputError: If the state does not fit the strategy.
        """
        self._to_reach = []
        for experience in experiences:
            self.register_experience(experience)
        self.rebuild(state)
        state = add_new_tensors(state, self.learned_state())
        try:
            fits = set(self.learned_state()) == set(state)
            self.model.load_state_dict(dict(state), strict=False)
        except RuntimeError:  # torch's answer to a shape that differs
            fits = False
        if not fits:
            raise InputError(
                f"checkpoint must fit strategy {type(self).__name__} after {len(experiences)} "
                f"experiences, got other tensors"
            )
        self.model.to(self.device)

    def load_state(self, points: Sequence[TrainerState]) -> None:
        """Lets the next experience that is trained go on where its training was interrupted.

        Args:
            points: What its `checkpointer` was given last. The strategy is as it was before that
                experience, and so are the global random states.
        """
        self._to_reach = list(points)

    def register_experience(self, experience: Any) -> None:  # noqa: ANN401 - Avalanche ships no types
        """Learns which classes an experience brings; trains nothing.

        Raises:
            InputError: If its dataset does not say its labels, or a label is no class number.
        """
        classes = classes_of(experience.dataset)
        self.classes_by_experience.append(classes)
        self.add_classes(classes, self.generator("weights"))
        self.model.to(self.device)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Grows what a state holds beyond what `register_experience` grew; nothing by default."""

    def add_plugin(self, plugin: SupervisedPlugin, *, first: bool = False) -> None:
        """Lets a plugin watch training and evaluation; `first` calls it before the others."""
        self.plugins.insert(0 if first else len(self.plugins), plugin)

    def remove_plugin(self, plugin: SupervisedPlugin) -> None:
        """Stops calling a plugin, such as `evaluator`."""
        self.plugins.remove(plugin)

    def set_checkpointer(self, checkpointer: Checkpointer | None) -> None:
        """Names who keeps states of the experiences that are trained from now on; None: nobody."""
        self.checkpointer = checkpointer

    def load_progress(
        self, events: Sequence[Mapping[str, Any]], timings: Mapping[str, Sequence[float]]
    ) -> None:
        """Takes over what was logged and timed in an experience that was trained before.

        Args:
            events: What `pop_events` gave, as lines.
            timings: What `timings` was: seconds and images by name.
        """
        for event in events:
            typed = parse_event(event)
            self.log_event(typed.event, **typed.values)
        self.timings = {name: (each[0], int(each[1])) for name, each in timings.items()}

    def log_event(self, event: str, /, **values: Any) -> None:  # noqa: ANN401 - of its kind
        """Keeps a fact for the run record.

        Args:
            event: Kind of event, one of `records.event_kinds` or one of your own.
            **values: Its keys, as JSON can hold them.

        Raises:
            InputError: If they do not fit a known kind.
        """
        self._events.append(make_event(event, **values))

    def pop_events(self, experience: int) -> list[Event]:
        """Returns the facts noted since the last call, as events of an experience."""
        events, self._events = self._events, []
        return [each.of_experience(experience) for each in events]

    def retrieval(self) -> Retrieval | None:
        """Returns how the batch evaluated last was answered; None if there was nothing to choose.

        What it holds goes into `retrieval.parquet`, with the class of `first_logits` as
        `uncorrected`.
        """
        return None

    @contextmanager
    def timed(self, name: str, images: int) -> Iterator[None]:
        """Adds the block's time to `timings`, under a name, for work outside of epochs."""
        since = time.perf_counter()
        yield
        seconds, before = self.timings.get(name, (0.0, 0))
        self.timings[name] = (seconds + time.perf_counter() - since, before + images)

    def cached_features(
        self,
        dataset: Any,  # noqa: ANN401 - Avalanche ships no types
        part: FeatureExtractor,
    ) -> CachedFeatures:
        """Returns what a frozen part makes of a dataset without augmentation.

        Args:
            dataset: Avalanche's dataset, its images those of the group `eval`.
            part: The part.
        """
        return CachedFeatures(dataset, part, same=True, keep=False, cache=self.cache)

    def plain_images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of the current experience, not augmented and in order, and labels.

        For statistics after training, or instead of it.
        """
        dataset = self.experience.dataset.eval()
        # A loader draws a number for its workers: from a generator of its own, not torch's global.
        for images, labels, *_ in DataLoader(dataset, batch_size=64, generator=torch.Generator()):
            yield self.backbone.inputs(images, self.device), labels.to(self.device).long()

    def generator(self, purpose: str) -> torch.Generator:
        """Returns a fresh source of randomness for one purpose in the current experience."""
        index = len(self.classes_by_experience)
        offset = sum(purpose.encode()) * 1_000_003
        return torch.Generator().manual_seed(self.seed * 1_000_000_007 + index * 7919 + offset)

    # --- Avalanche's hooks ---------------------------------------------------------------------

    @property
    def mb_y(self) -> Tensor:
        """Labels of the current batch, (B,) int64 whatever whole numbers the dataset has."""
        labels: Tensor = super().mb_y
        return labels.long()

    def make_train_dataloader(
        self,
        num_workers: int = 0,
        shuffle: bool = True,  # noqa: FBT001, FBT002 - Avalanche's signature
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Shuffles with the strategy's own generator."""
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
        images: Any = DataLoader(
            whole,
            batch_sampler=self.order,
            generator=generator,
            num_workers=num_workers,
            pin_memory=self.device.type == "cuda",
        )
        self._images = self._own_loader = self.dataloader = images
        if self.trains_on_features and self.cache is not None:
            self.train_on_features(self.frozen_features())
        self.num_steps = len(self.dataloader) * self.train_epochs

    def train_on_features(self, part: FeatureExtractor | None) -> None:
        """Trains from now on with the rows of a part in place of images; None goes back to images.

        The inputs have to come again (`fixed_views`). The order is the same as over images. Rows
        are kept on disk where the part has a space, else in memory; where they would not be kept at
        all, training goes on with images, and so it does where a plugin has put its own loader in
        place, as replay does.
        """
        if part is None:
            self.replace_loader(self._images)
            return
        keep = not part.space
        # What needs nothing but rows is trained without augmentation.
        same = True if self.trains_on_features else self.fixed_views
        rows = CachedFeatures(self.adapted_dataset, part, same=same, keep=keep, cache=self.cache)
        with self.timed("frozen", len(rows)):
            rows.prepare()
        if rows.is_kept:
            order: Any = self.order
            self.replace_loader(rows.minibatches(IndexBatches(order), images=False))

    def replace_loader(self, loader: Any) -> None:  # noqa: ANN401 - anything that gives batches
        """Lets training read its batches from elsewhere, unless a plugin has done so before."""
        if self.dataloader is self._own_loader:
            self._own_loader = self.dataloader = loader

    def make_eval_dataloader(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Reads what the frozen part made of the images, where that is kept, else the images."""
        part, choice = self._evaluated_part, self._evaluated_choice
        self.chosen = None
        if choice is not None and self.cache is not None:
            chosen = CachedAdapterFeatures(self.adapted_dataset, choice, self.cache)
            self.chosen = chosen if chosen.is_kept else None
        if self.chosen is not None:
            targets = torch.tensor([int(label) for label in self.adapted_dataset.targets])
            places = torch.split(torch.arange(len(targets)), self.eval_mb_size)
            self.dataloader = [[each, targets[each], torch.zeros_like(each)] for each in places]
            return
        rows = None if part is None else self.cached_features(self.adapted_dataset, part)
        if rows is None or not rows.is_kept:
            pinned = self.device.type == "cuda"
            super().make_eval_dataloader(**{**kwargs, "pin_memory": pinned})
        else:
            order = rows.in_order(self.eval_mb_size)
            self.dataloader = rows.minibatches(order, images=False)

    def check_model_and_optimizer(self, **_: Any) -> None:  # noqa: ANN401
        """Grows the model and makes the optimiser over what is trainable, frozen parts left out."""
        self.timings = {}
        self.register_experience(self.experience)
        self.begin_experience()
        self.make_optimizer()

    def make_optimizer(self, **_: Any) -> None:  # noqa: ANN401
        """Makes a fresh optimiser over the parameters that require gradients."""
        trainable = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = self.build_optimizer(trainable) if trainable else _no_optimizer()

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        """Leaves the model as it is: it grows in `register_experience`, never in evaluation."""
        return self.model if model is None else model

    def _unpack_minibatch(self) -> None:
        images, *others = self.mbatch  # type: ignore[has-type] # Avalanche ships no types
        self.mbatch = [self.backbone.inputs(images, self.device), *others]
        super()._unpack_minibatch()

    def forward(self) -> Tensor:
        """Computes the model's output for the current batch."""
        with self.autocast():
            logits: Tensor = self.model(self.mb_x)
        return logits.float()

    def criterion(self) -> Tensor:
        """Computes the method's loss in training, plain cross-entropy in evaluation."""
        if self.is_training:
            return self.batch_loss(self.mb_output, self.mb_y)
        # A class beyond the head is one that was never seen: it gets a column like the others.
        missing = max(0, int(self.mb_y.max()) + 1 - self.mb_output.shape[1])
        logits = nn.functional.pad(self.mb_output, (0, missing), value=UNSEEN_LOGIT)
        return nn.functional.cross_entropy(logits, self.mb_y)

    def backward(self) -> None:
        """Computes gradients, unless the loss has exploded or is no longer a number."""
        if not self.learns_by_gradient:
            return
        self._losses.append((self.clock.train_epoch_iterations, self.loss.detach().reshape(())))
        if self.device.type == "cpu" or len(self._losses) == _LOSSES:
            self._check_losses()
        super().backward()

    def _check_losses(self) -> None:
        # A GPU has to finish its work before it answers, so it is asked about several batches.
        losses, self._losses = self._losses, []
        values = torch.stack([loss for _, loss in losses]).tolist() if losses else []
        for (batch, _), value in zip(losses, values, strict=True):
            if not abs(value) < EXPLODED:  # neither is NaN
                rates = sorted({group["lr"] for group in self.optimizer.param_groups}, reverse=True)
                raise RunError(
                    f"loss must stay finite and below {EXPLODED:g}, got {value:g} in experience "
                    f"{len(self.classes_by_experience) - 1}, epoch {self.clock.train_exp_epochs}, "
                    f"batch {batch} at learning rate "
                    f"{', '.join(f'{rate:g}' for rate in rates)}; a lower one may help"
                )

    def optimizer_step(self) -> None:
        """Takes an optimiser step."""
        if self.learns_by_gradient:
            super().optimizer_step()

    def _train_exp(
        self,
        experience: Any,  # noqa: ANN401, ARG002
        eval_streams: Any = None,  # noqa: ANN401, ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        # Avalanche runs `train_epochs` epochs; here each phase says how many.
        reach, self._to_reach, self._ends = self._to_reach, [], []
        for number, phase in enumerate(self.phases()):
            start = reach[number] if number < len(reach) else None
            if not self._train_phase(number, phase, start, **kwargs):
                return
            if self.checkpointer is not None:
                self._ends.append(self._point(number, phase.epochs, self.order.place(), 0))

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
            self.phase = phase.name
            self.set_augmentation_seed(f"phase {number} epoch {epoch}")
            self.begin_epoch(epoch)
            if epoch < first:
                continue
            self._before_training_epoch(**kwargs)
            if self._stop_training:  # type: ignore[has-type] # Avalanche ships no types
                self._stop_training = False
                return False
            if start and epoch == first:  # after what prepares an epoch, whatever that changed
                self._go_to(start)
            self._now = number, epoch, self.order.place()
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
        if start and first == phase.epochs:
            self._go_to(start)
        return True

    # --- points of an experience ---------------------------------------------------------------

    def _point(self, phase: int, epoch: int, order: str, skip: int) -> TrainerState:
        """Returns the present moment of an experience.

        Args:
            phase: Its phase.
            epoch: Its epoch.
            order: What `order` says of its place before the pass.
            skip: Batches of the pass that are done.
        """
        optimizer, groups = optimizer_tensors(self.optimizer)
        learned = self.learned_state().items()
        facts = {
            "order": order,
            "skip": skip,
            "groups": groups,
            "random": random_states(),
            "generators": {
                name: as_text(source.get_state()) for name, source in self.generators().items()
            },
            "clock": {name: each for name, each in vars(self.clock).items() if _is_count(each)},
            "plugins": [
                each.state_dict() for each in self.plugins if isinstance(each, ResumablePlugin)
            ],
        }
        tensors = {f"model.{name}": value.detach().clone() for name, value in learned}
        return TrainerState(phase, epoch, {**tensors, **optimizer}, facts)

    def _go_to(self, point: TrainerState) -> None:
        """Takes up an experience at a point, its preparations being done.

        Raises:
            CheckpointMismatchError: If the preparations led elsewhere than before.
        """
        try:
            self._take_up(point)
        except (InputError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointMismatchError(
                f"a point of an experience must fit strategy {type(self).__name__} in phase "
                f"{point.phase}, got another state: {str(error).splitlines()[0]}"
            ) from error

    def _take_up(self, point: TrainerState) -> None:
        start = "model."
        state = {
            name.removeprefix(start): value
            for name, value in point.tensors.items()
            if name.startswith(start)
        }
        state = add_new_tensors(state, self.learned_state())
        if set(state) != set(self.learned_state()):
            raise InputError("tensors of other names")
        self.model.load_state_dict(state, strict=False)
        facts = point.facts
        load_optimizer(self.optimizer, point.tensors, facts["groups"])
        for name, source in self.generators().items():
            source.set_state(from_text(facts["generators"][name]))
        for name, count in facts["clock"].items():
            setattr(self.clock, name, count)
        self.order.go_to(facts["order"], facts["skip"])
        plugins = [each for each in self.plugins if isinstance(each, ResumablePlugin)]
        for plugin, known in zip(plugins, facts["plugins"], strict=True):
            plugin.load_state_dict(known)
        set_random_states(facts["random"])

    def _after_training_iteration(self, **kwargs: Any) -> None:  # noqa: ANN401
        super()._after_training_iteration(**kwargs)
        if self.checkpointer is not None and self.checkpointer.is_due():
            self._check_losses()
            now = self._point(*self._now, self.clock.train_epoch_iterations)
            self.checkpointer.keep([*self._ends, now])

    def _after_training_epoch(self, **kwargs: Any) -> None:  # noqa: ANN401
        self._check_losses()
        super()._after_training_epoch(**kwargs)

    def _before_training_exp(self, **kwargs: Any) -> None:  # noqa: ANN401
        self.begin_data()
        super()._before_training_exp(**kwargs)

    def _before_eval(self, **kwargs: Any) -> None:  # noqa: ANN401
        self._evaluated_part = None if self.cache is None else self.frozen_features()
        self._evaluated_choice = None if self.cache is None else self.frozen_adapter_features()
        super()._before_eval(**kwargs)

    def _after_update(self, **kwargs: Any) -> None:  # noqa: ANN401
        self.after_step()
        super()._after_update(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:  # noqa: ANN401
        self.end_experience()
        super()._after_training_exp(**kwargs)


def _under_one(compute: Callable[[Tensor, Tensor], Tensor], part: int, images: Tensor) -> Tensor:
    return compute(images, torch.full((len(images),), part))


def classes_of(dataset: Any) -> tuple[int, ...]:  # noqa: ANN401 - Avalanche ships no types
    """Returns the labels that occur in one of Avalanche's datasets, sorted.

    Raises:
        InputError: If it does not say its labels, or one is no class number.
    """
    targets = getattr(dataset, "targets", None)
    if targets is None:
        raise InputError(
            "dataset of an experience must have `targets`, which Avalanche's "
            f"`as_classification_dataset` gives it, got a {type(dataset).__name__} without"
        )
    labels: list[Any] = sorted(targets.uniques)
    for label in labels:
        if not isinstance(label, Real) or label % 1 != 0 or label < 0:
            raise InputError(f"labels must be whole numbers from 0 on, got {label!r}")
    return tuple(map(int, labels))


def _is_count(value: object) -> bool:
    return isinstance(value, int)


def _no_optimizer() -> torch.optim.Optimizer:
    # Avalanche wants an optimiser and torch refuses one without parameters.
    return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)
