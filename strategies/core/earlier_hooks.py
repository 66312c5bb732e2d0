"""Hooks and tools under the names they had before; for one version.

A class that defines `grow` gets it as `add_classes`, and so on, with one sentence. What a method
called on itself, such as `self.note(...)`, is found under its new name.
"""

import inspect
import warnings
from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Final

__all__ = ["earlier_attribute", "take_earlier_hooks"]

_HOOKS: Final = {
    "grow": "add_classes",
    "frozen_part": "frozen_features",
    "frozen_choice": "frozen_adapter_features",
    "trains_on_frozen_rows": "trains_on_features",
    "meet": "register_experience",
}
_TOOLS: Final = {
    "autocast": "features.autocast",
    "freeze": "features.feature_extractor",
    "freeze_choice": "features.adapter_feature_extractor",
    "go_on_from": "load_state",
    "grow": "add_classes",
    "inputs_come_again": "augmentation.inputs_repeat",
    "keeper": "checkpointer",
    "meet": "register_experience",
    "memo": "cache",
    "note": "log_event",
    "take_events": "pop_events",
    "timed": "events.timed",
    "train_on_frozen": "train_on_features",
    "views": "augmentation.views",
}
# Modules between a sentence and the line that it is about: classes are made through the first two.
_BETWEEN: Final = frozenset(("abc", "typing", __name__, "cl_adapters.strategies.core.strategy"))


def take_earlier_hooks(kind: type) -> None:
    """Gives a class's hooks their present names, with one sentence for each that had another."""
    for old, new in _HOOKS.items():
        if old in vars(kind) and new not in vars(kind):
            _warn(f"{kind.__name__}.{old}", new)
            setattr(kind, new, vars(kind)[old])
    made = vars(kind).get("build_model")
    if inspect.isfunction(made):
        old = f"{kind.__name__}.build_model(self, backbone)"
        _warn(old, "a class method with config and seed")
        kind.build_model = classmethod(_as_class_method(made))  # type: ignore[attr-defined]


def earlier_attribute(owner: object, name: str) -> Any:  # noqa: ANN401 - whatever it is
    """Returns what a tool is called now.

    Raises:
        AttributeError: If there never was one of that name.
    """
    if name not in _TOOLS:
        raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")
    _warn(f"{type(owner).__name__}.{name}", _TOOLS[name])
    return attrgetter(_TOOLS[name])(owner)


def _as_class_method(made: Callable[..., Any]) -> Callable[..., Any]:
    def build_model(cls: type, backbone: object, config: object, seed: int) -> object:
        # What such a method asked of the strategy, which is not there yet.
        return made(SimpleNamespace(config=config, seed=seed, kind=cls), backbone)

    return build_model


def _warn(old: str, new: str) -> None:
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=level + 1)
