"""Avalanche's own supervised strategies on the frozen backbone, as `avalanche:NAME`.

What is trained is what Finetune trains: one PEFT module, and a head that grows by the classes of
each experience. What protects it is Avalanche's: its strategy class stands behind `AdapterStrategy`
in the order of inheritance, so that its constructor adds its plugins and what it overrides of
Avalanche's loop counts. Its constructor's arguments are options with Avalanche's defaults, or with
those of `DEFAULTS` where Avalanche has none.

Other than in plain Avalanche:
    optimiser   a fresh Adam for each experience, as for every method here
    batches     of the experience's images are drawn with the strategy's generator, not balanced by
                task labels
    backbone    no part of the model that plugins walk over, copy and keep importances of
    randomness  plugins draw from the global random states: those are seeded from the run's seed
                before an experience and before what follows it, and given back after training

Which of Avalanche's classes fit is asked of the classes themselves (`_refusal`); `UNFIT` names
those whose needs cannot be read off their constructor.
"""

import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any, Final, Unpack, get_args

import torch
from avalanche.training import supervised
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    GEMPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from avalanche.training.plugins.clock import Clock
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.base_sgd import PeriodicEval
from pydantic import Field, create_model
from torch import Tensor, nn

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.aligning import align_weights
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.randomness import kept_random_states, seed_random_states
from cl_adapters.strategies.core.arguments import StrategyArgs
from cl_adapters.strategies.core.config import PeftConfig, StrategyConfig, TrainedConfig
from cl_adapters.strategies.core.head_options import SimplexHeadConfig, WeightAligningConfig
from cl_adapters.strategies.core.loop import Loop
from cl_adapters.strategies.core.method import Method
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["PREFIX", "AvalancheConfig", "AvalancheMethod", "avalanche_names", "find_avalanche"]

PREFIX: Final = "avalanche:"
# Of constructor arguments for which Avalanche has no default.
DEFAULTS: Final[Mapping[str, int | float]] = {
    "alpha": 1.0,
    "ewc_lambda": 1.0,
    "mem_size": 200,
    "patterns_per_exp": 64,
    "si_lambda": 1.0,
    "subsample": 200,
    "temperature": 2.0,
}
UNFIT: Final[Mapping[str, str]] = {
    "CoPE": "it replaces the head by prototypes of a fixed number of classes",
    "DER": "it keeps logits of one width, and the head grows",
    "ExpertGateStrategy": "it trains a network an experience and an auto-encoder to choose",
    "GSS_greedy": "it keeps raw inputs of a size that has to be known",
    "GenerativeReplay": "it trains a generator of small grey images",
    "LFL": "it asks for a model with Avalanche's `get_features` and one last layer",
    "JointTraining": "it trains once on a whole stream; `joint` and avalanche:Cumulative train on "
    "all data after each experience",
    "PNNStrategy": "it needs a progressive neural network",
}
# Plugins whose state is a function of an experience's images, the model after it, and the seed.
_REPEATABLE: Final = (ReplayPlugin, AGEMPlugin, GEMPlugin, LwFPlugin)
_STATELESS: Final = (EvaluationPlugin, Clock, PeriodicEval)
# Methods of `AdapterStrategy` that go on to those of the strategy behind it.
_COOPERATIVE: Final = {"_before_training_exp", "_after_training_exp", "_after_update"}
_SIMPLE: Final = (bool, int, float, str)


class AvalancheConfig(TrainedConfig, PeftConfig, SimplexHeadConfig, WeightAligningConfig):
    """Options of every `avalanche:NAME`, which those of its constructor join."""

    def constructor_arguments(self) -> dict[str, Any]:
        """Returns the options that Avalanche's constructor takes."""
        names = set(type(self).model_fields) - set(AvalancheConfig.model_fields)
        return {name: getattr(self, name) for name in sorted(names)}

    def template_arguments(self) -> dict[str, Any]:
        """Returns what Avalanche's strategy takes beside the template's arguments."""
        return {"criterion": nn.CrossEntropyLoss(), **self.constructor_arguments()}


class _Shared:
    """Holds a module where torch does not look for submodules; copies hold the same one."""

    def __init__(self, module: AdaptedViT) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> "_Shared":
        return self


class BorrowingClassifier(nn.Module):
    """Computes what `AdaptedClassifier` computes, with a backbone that is no submodule.

    Plugins call the model outside of the strategy's loop, so it sees to the precision itself.
    """

    def __init__(self, backbone: AdaptedViT, adapters: AdapterSet, heads: ExperienceHeads) -> None:
        super().__init__()
        self._shared = _Shared(backbone)
        self.is_half = False  # in bfloat16; set by the strategy
        self.adapters = adapters
        self.heads = heads

    @property
    def backbone(self) -> AdaptedViT:
        """The frozen network."""
        return self._shared.module

    def to(self, *args: Any, **kwargs: Any) -> "BorrowingClassifier":  # noqa: ANN401
        """Moves the backbone too."""
        self.backbone.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits over the classes seen.

        Shape:
            images: (B, 3, S, S). Output: (B, C), float32.
        """
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.is_half):
            logits: Tensor = self.heads(self.backbone(images, self.adapters))
        return logits


class AvalancheMethod(AdapterStrategy):
    """A strategy of Avalanche over adapters and a growing head; `find_avalanche` completes it."""

    config_class = AvalancheConfig
    config: AvalancheConfig
    model: BorrowingClassifier
    # What plugins keep between steps, and how they mix batches, is theirs.
    resumes_inside = False

    def __init__(
        self,
        *,
        backbone: AdaptedViT,
        config: StrategyConfig | None = None,
        **arguments: Unpack[StrategyArgs],
    ) -> None:
        try:
            super().__init__(backbone=backbone, config=config, **arguments)
        except (AssertionError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"options of {PREFIX}{type(self).__name__} must be such that Avalanche takes "
                f"them, got: {error}"
            ) from error
        self.model.is_half = self.precision == "bf16"
        known = (*_REPEATABLE, *_STATELESS)
        self.resumes = self.resumes and all(isinstance(each, known) for each in self.plugins)

    @classmethod
    def build_model(
        cls, backbone: AdaptedViT, config: AvalancheConfig, seed: int
    ) -> BorrowingClassifier:
        """Returns the backbone with one PEFT module a block and no heads yet."""
        adapters = config.build_adapters(backbone, seed=seed)
        return BorrowingClassifier(backbone, adapters, config.build_head(backbone.embed_dim))

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:  # noqa: ARG002
        """Adds a head for the classes that have none; GDumb gives all of them up each time."""
        self.model.heads.add_classes(self.classes_seen, generator)

    # --- the global random states that plugins draw from ---------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Avalanche's signature
        """Trains as Avalanche does and leaves the global random states as they were."""
        with kept_random_states(), _no_deprecations():
            return super().train(*args, **kwargs)

    def _before_training_exp(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Seeds what plugins draw before and during an experience."""
        self._seed(len(self.classes_by_experience), after=False)
        super()._before_training_exp(**kwargs)

    def end_experience(self) -> None:
        """Aligns rows if asked for; seeds what plugins draw after an experience."""
        if self.config.weight_aligning:
            align_weights(self.model.heads, self.new_classes)
        self._seed(len(self.classes_by_experience) - 1, after=True)

    def _seed(self, experience: int, *, after: bool) -> None:
        seed_random_states(self.seed % 2**63, experience, int(after))

    # --- resuming ------------------------------------------------------------------------------

    def restore(self, state: Mapping[str, Tensor], experiences: Sequence[Any]) -> None:
        """Returns to the end of an experience and lets the method keep again what it had kept.

        Raises:
            InputError: If the state does not fit, or the method keeps more than can be repeated.
        """
        if not self.resumes:
            raise InputError(
                f"{PREFIX}{type(self).__name__} must be trained from the first experience on, "
                f"since a checkpoint does not hold all that it keeps, got one after "
                f"{len(experiences)} experiences"
            )
        super().restore(state, experiences)
        with kept_random_states(), _no_deprecations():
            for index, self.experience in enumerate(experiences):
                self.train_dataset_adaptation()  # where Cumulative keeps the images
                self._seed(index, after=True)
                for plugin in self.plugins:
                    if isinstance(plugin, _REPEATABLE):
                        plugin.after_training_exp(self)
                self.clock.train_exp_counter += 1
        self.experience = None


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Drops what Avalanche says of its own methods, which no filter set beforehand would."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for each in caught:
        if not issubclass(each.category, DeprecationWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def avalanche_names() -> list[str]:
    """Returns every `avalanche:NAME` that fits, sorted."""
    return [PREFIX + name for name, kind in sorted(_candidates().items()) if not _refusal(kind)]


@cache
def find_avalanche(name: str) -> type[AvalancheMethod]:
    """Returns the strategy class of `avalanche:NAME`.

    Raises:
        InputError: If Avalanche has no such strategy, or it does not fit; says why.
    """
    kinds = _candidates()
    short = name.removeprefix(PREFIX)
    if short not in kinds:
        raise unknown_name("strategy", name, avalanche_names())
    reason = _refusal(kinds[short])
    if reason:
        raise InputError(
            f"strategy {name!r} must fit one model with one growing head, but {reason}"
        )
    return _make(short, kinds[short])


def _candidates() -> dict[str, type]:
    return {
        name: kind
        for name, kind in vars(supervised).items()
        if inspect.isclass(kind) and issubclass(kind, SupervisedTemplate)
    }


def _make(name: str, kind: type) -> type[AvalancheMethod]:
    options: dict[str, Any] = {
        parameter.name: (_kind_of(parameter), _field(kind, parameter))
        for parameter in _own_parameters(kind)
        if _kind_of(parameter) is not None
    }
    config = create_model(f"{name}Config", __base__=AvalancheConfig, **options)
    config.__doc__ = f"Options of {PREFIX}{name}."
    doc = (inspect.getdoc(kind) or name).splitlines()[0].rstrip(".")
    # What a class overrides may keep something; Cumulative's override is repeated by `restore`.
    attributes = {
        "__doc__": f"Avalanche's {name}: {doc}.",
        "__module__": __name__,
        "config_class": config,
        "resumes": _overridden(kind) <= {"train_dataset_adaptation"},
    }
    made: type[AvalancheMethod] = type(name, (AvalancheMethod, kind), attributes)
    return made


def _refusal(kind: type) -> str:
    """Says why a strategy of Avalanche does not fit; empty if it does."""
    return next(_obstacles(kind), "")


def _obstacles(kind: type) -> Iterator[str]:
    if kind.__name__ in UNFIT:
        yield UNFIT[kind.__name__]
    if kind is supervised.GEM and importlib.util.find_spec("quadprog") is None:
        yield "it needs the package quadprog, which is not installed; avalanche:AGEM does not"
    for name in sorted(_overridden(kind) - _COOPERATIVE):
        if any(name in vars(each) for each in (AdapterStrategy, Loop, Method)):
            yield f"it has a `{name}` of its own, which here is Finetune's"
    for parameter in _own_parameters(kind):
        if parameter.name in AvalancheConfig.model_fields:
            yield f"its argument `{parameter.name}` is not what the option of that name is"
        if parameter.default is parameter.empty and parameter.name not in DEFAULTS:
            yield f"it needs a `{parameter.name}`, for which there is no default"


def _overridden(kind: type) -> set[str]:
    """Returns the names of the methods that a strategy has beyond Avalanche's template."""
    own = kind.__mro__[: kind.__mro__.index(SupervisedTemplate)]
    methods = {name for each in own for name, value in vars(each).items() if callable(value)}
    return {name for name in methods if not name.startswith("__")}


def _own_parameters(kind: type) -> list[inspect.Parameter]:
    """Returns the constructor's arguments that the template does not have."""
    shared = inspect.signature(SupervisedTemplate.__init__).parameters
    named = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return [each for each in named if each.name not in shared and each.kind is not each.VAR_KEYWORD]


def _kind_of(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - a type for pydantic
    """Returns the type of option that an argument becomes; None if no text could give it."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        annotation = type(parameter.default)
    choices = [each for each in get_args(annotation) or (annotation,) if each in _SIMPLE]
    if not choices:
        return None
    return choices[0] | None if parameter.default is None else choices[0]


def _field(kind: type, parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - pydantic's
    """Returns default, rule and description of an option; Avalanche documents them itself."""
    is_given = parameter.default is not parameter.empty
    default = parameter.default if is_given else DEFAULTS[parameter.name]
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    doc = re.search(
        rf":param {parameter.name}:(.*?)(?=\n\s*:|\Z)",
        inspect.getdoc(kind.__init__) or "",  # type: ignore[misc]
        flags=re.DOTALL,
    )
    text = " ".join(doc.group(1).split()).partition(". ")[0].rstrip(".") if doc else ""
    return Field(default=copy(default), ge=0 if is_number else None, description=text)
