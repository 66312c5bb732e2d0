"""An Avalanche strategy on a frozen backbone: what a method subclasses.

It is a `Method` in a `Loop`, and holds what does the rest, none of which knows a strategy:

    features      frozen features, and their cache on disk (`core/features.py`)
    events        what is said of the run, and times (`core/event_log.py`)
    augmentation  which views training shows (`core/views.py`)
    checkpointer  who keeps states of an experience in training; None keeps none
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_adapters.buffers import learned_sizes
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.records.events import Event
from cl_adapters.records.upgrade import add_new_tensors
from cl_adapters.strategies.core.arguments import TemplateArgs
from cl_adapters.strategies.core.avalanche_types import AvalancheExperience
from cl_adapters.strategies.core.calibrating import show_inputs
from cl_adapters.strategies.core.checkpointing import Checkpointer, ResumablePlugin
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.consistency import Consistency
from cl_adapters.strategies.core.earlier_hooks import earlier_attribute, take_earlier_hooks
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.features import Features
from cl_adapters.strategies.core.labels import classes_of
from cl_adapters.strategies.core.loop import Loop
from cl_adapters.strategies.core.method import Output, Phase
from cl_adapters.strategies.core.optimizers import no_optimizer
from cl_adapters.strategies.core.output import logits_from, of_kind
from cl_adapters.strategies.core.views import Augmentation, Views
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.reweighted import as_differences, from_differences

__all__ = ["AdapterStrategy", "Output", "Phase"]


class AdapterStrategy(Loop):
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
        cache: Where frozen features are kept on disk, for later evaluations and other runs; None
            keeps none. Only for datasets that say which images are equal, as ours do.
        **template: Arguments of Avalanche's `SupervisedTemplate`.
    """

    # Whether `restore` brings back all that matters for the experiences to come.
    resumes: bool = True
    # Whether an experience can go on in its middle (`core/checkpointing.py`).
    resumes_inside: bool = True
    # Name of the option under which each answer changes what is learned; empty if none does.
    option_that_changes: ClassVar[str] = ""
    # What it is put together from, of `core/pieces.py`: who shares some of it is a relative.
    pieces: ClassVar[tuple[str, ...]] = ()
    # Plugins, made for each strategy, that log what evaluation shows beside predictions.
    diagnostics: ClassVar[Sequence[Callable[[], SupervisedPlugin]]] = ()

    def __init_subclass__(cls) -> None:
        """Takes hooks under their earlier names."""
        super().__init_subclass__()
        take_earlier_hooks(cls)

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
        self.backbone = backbone
        self.seed = seed
        self.precision = precision
        self.cache = cache
        self.events = EventLog()
        self.augmentation = Augmentation(fixed_views, seed)
        self.checkpointer: Checkpointer | None = None
        self.output: Output | None = None
        self.phase = "train"
        self.classes_by_experience: list[tuple[int, ...]] = []
        self.current_classes: tuple[int, ...] = ()
        self.classes_seen: list[int] = []
        self.num_steps = 0
        template["plugins"] = plugins = list(template.get("plugins") or ())  # Avalanche appends
        # Plugins from elsewhere may count on something that no state of an experience holds.
        if not all(isinstance(each, ResumablePlugin) for each in plugins):
            self.resumes_inside = False
        model = self.build_model(backbone, self.config, seed)
        # Avalanche puts a constructor into each class that has none: past it, to its methods' own.
        super(Loop, self).__init__(
            model=of_kind(self.build_model, model, nn.Module, "a model"),
            optimizer=no_optimizer(),  # each experience makes its own
            train_mb_size=self.config.batch_size,
            train_epochs=getattr(self.config, "epochs", 1),
            **{"eval_mb_size": 64, **template, **self.config.template_arguments()},
        )
        self.plugins.extend(make() for make in self.diagnostics)
        if weight := getattr(self.config, "consistency", 0.0):
            self.plugins.append(Consistency(weight, self.model))
        self.model.to(self.device)
        half = precision == "bf16"
        self.features = Features(backbone, self.device, half=half, cache=cache)
        self.prepare_loop()

    def _after_training_exp(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Shows PEFT modules that ask for it what the first experience brought."""
        if len(self.classes_by_experience) == 1:
            show_inputs(self.model, self.features, self.experience.dataset)
        super()._after_training_exp(**kwargs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it was called before
        return earlier_attribute(self, name)

    def log_event(self, event: str, /, **values: Any) -> None:  # noqa: ANN401 - of its kind
        """Keeps a fact for the run record; see `EventLog.log_event`."""
        self.events.log_event(event, **values)

    def plain_images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of the current experience, not augmented and in order, and labels.

        For statistics after training, or instead of it.
        """
        return self.features.plain_images(self.experience.dataset)

    def training_images(self, moment: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of the current experience as training shows them, in order, and labels.

        Args:
            moment: Of the experience, whose views are shown where something says which.
        """
        self.set_augmentation_seed(moment)
        return self.features.images(self.experience.dataset.train())

    @property
    def new_classes(self) -> set[int]:
        """Those of the current experience that no earlier one had."""
        return set(self.current_classes).difference(*self.classes_by_experience[:-1])

    @property
    def answers_change_it(self) -> bool:
        """Whether each answer changes what is learned."""
        return bool(self.option_that_changes) and bool(
            getattr(self.config, self.option_that_changes)
        )

    @property
    def answers_by_batch(self) -> bool:
        """Whether an option makes the answer for an image depend on the others of its batch."""
        return False

    # --- what a runner asks ----------------------------------------------------------------------

    @property
    def timings(self) -> dict[str, tuple[float, int]]:
        """Seconds and images of work outside of epochs, by name, in the last experience."""
        return self.events.timings

    def add_plugin(self, plugin: SupervisedPlugin, *, first: bool = False) -> None:
        """Lets a plugin watch training and evaluation; `first` calls it before the others."""
        self.plugins.insert(0 if first else len(self.plugins), plugin)

    def remove_plugin(self, plugin: SupervisedPlugin) -> None:
        """Stops calling a plugin, such as `evaluator`."""
        self.plugins.remove(plugin)

    def load_progress(
        self, events: Sequence[Mapping[str, Any]], timings: Mapping[str, Sequence[float]]
    ) -> None:
        """Takes over what was logged and timed in an experience that was trained before.

        Args:
            events: What `pop_events` gave, as lines.
            timings: What `timings` was: seconds and images by name.
        """
        self.events.load(events, timings)

    def pop_events(self, experience: int) -> list[Event]:
        """Returns the events since the last call, as those of an experience."""
        return self.events.pop_events(experience)

    def set_checkpointer(self, checkpointer: Checkpointer | None) -> None:
        """Names who keeps states of the experiences that are trained from now on; None: nobody."""
        self.checkpointer = checkpointer

    def learned_state(self) -> dict[str, Tensor]:
        """Returns every tensor that was learned: the model's state without the frozen backbone."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("backbone.")}

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Returns `learned_state` as checkpoints hold it: of a copy of all weights what differs."""
        return as_differences(self.model, self.backbone, self.learned_state())

    def restore(
        self, state: Mapping[str, Tensor], experiences: Sequence[AvalancheExperience]
    ) -> None:
        """Returns to the end of an experience that was trained before.

        Args:
            state: What `learned_state` or `checkpoint_state` gave then.
            experiences: The training experiences up to and including that one.

        Raises:
            InputError: If the state does not fit the strategy.
        """
        self._to_reach = []
        for experience in experiences:
            self.register_experience(experience)
        self._load(state, len(experiences))

    def restore_to_answer(
        self, state: Mapping[str, Tensor], classes: Sequence[Sequence[int]]
    ) -> None:
        """Returns to the end of an experience without any image: to answer, not to train on.

        Args:
            state: What `learned_state` or `checkpoint_state` gave then.
            classes: What `classes_by_experience` was then.

        Raises:
            InputError: If the state does not fit the strategy.
        """
        for labels in classes:
            self.register_classes(tuple(labels))
        self._load(state, len(classes))

    def _load(self, state: Mapping[str, Tensor], experiences: int) -> None:
        self.rebuild(state)
        known = self.learned_state()
        state = add_new_tensors(from_differences(self.model, self.backbone, state), known)
        # Buffers take any size that a state has; but what grew with the classes has to fit.
        free = learned_sizes(self.model)
        fits = set(known) == set(state) and all(
            name in free or value.numel() == 0 or value.shape == state[name].shape
            for name, value in known.items()
        )
        try:
            if fits:
                self.model.load_state_dict(dict(state), strict=False)
        except RuntimeError:  # torch's answer to a shape that differs
            fits = False
        if not fits:
            raise InputError(
                f"checkpoint must fit strategy {type(self).__name__} after {experiences} "
                f"experiences, got other tensors"
            )
        self.model.to(self.device)

    @torch.no_grad()
    def answer(self, images: Tensor) -> Output:
        """Answers images outside of a stream, as an evaluation without a cache does.

        Args:
            images: (B, C, S, S), bytes or numbers.

        Returns:
            Logits (B, C) in float32, and what else the model found.

        Raises:
            InputError: If the model gives something else.
        """
        self.model.eval()
        query, inputs = self.query_features(), self.backbone.inputs(images, self.device)
        with self.features.autocast():
            found = self.model(inputs, *([] if query is None else [query.compute(inputs)]))
        output = logits_from(self.model.forward, found, len(images))
        return Output(output.logits.float(), output.extras)

    @property
    def stream_length(self) -> int | None:
        """How many experiences the stream of the current one has; None if it does not say."""
        stream: Any = getattr(self.experience, "origin_stream", None)
        return len(stream) if hasattr(stream, "__len__") else None

    def register_experience(self, experience: AvalancheExperience) -> None:
        """Learns which classes an experience brings; trains nothing.

        Raises:
            InputError: If its dataset does not say its labels, a label is no class number, or the
                method cannot learn from it.
        """
        classes = classes_of(experience.dataset)
        self.check_experience(experience.dataset)
        self.register_classes(classes)
        if self.trains_on_all_data:
            self._datasets.append(experience.dataset)

    def register_classes(self, classes: tuple[int, ...]) -> None:
        """Makes room for the classes of one more experience."""
        self.classes_by_experience.append(classes)
        self.current_classes = classes
        self.classes_seen = sorted({*self.classes_seen, *classes})
        self.add_classes(classes, self.generator("weights"))
        self.model.to(self.device)
