"""What older versions called things: tables of old and new names, and what applies them on reading.

    format 1    without checksums
    format 2    checksums; PEFT modules were `pet`, the feature cache was `memo`
    format 3    the names of today, and the role of a strategy
    format 4    digests of tables and events in `run.json`, and how the images were read; a recipe
                over `data` names no `stream`, which had no effect
    format 5    SEMA's defaults of today; a recipe names only the options that were given, so that
                earlier ones get the defaults of their time

Nothing is rewritten on disk for its own sake: a file is turned into the present format when it is
read, and what is then written has the present one. The names of options are public, since a command
or a recipe may still use the old ones.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

__all__ = [
    "EARLIER_DEFAULTS",
    "EARLIER_NAMES",
    "EVENT_NAMES",
    "NEW_TENSORS",
    "OPTION_NAMES",
    "ROLES",
    "TENSOR_NAMES",
    "add_earlier_defaults",
    "add_new_tensors",
    "as_named",
    "name_earlier_defaults",
    "option_names",
    "role_of",
    "upgrade_config",
    "upgrade_event",
    "upgrade_options",
    "upgrade_record",
    "upgrade_state",
]

Value = TypeVar("Value")

# Old name -> new name of a strategy's options; under `*` those that every strategy may have.
OPTION_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "*": {"pet": "peft"},
    "sema": {"width": "size", "classifier": "head", "memo_megabytes": "cache_megabytes"},
    "mos": {"width": "size", "guess": "task_predictor"},
}

# Defaults that a strategy's options had before format 5, where today's are others.
EARLIER_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sema": {
        "watch": "slots",
        "expandable": 3,
        "detector": "descriptor",
        "start": "fresh",
        "beside": False,
        "classifiers": "one",
        "head_init_std": None,
    },
}

# What these defaults together are called.
EARLIER_NAMES: Final[Mapping[str, str]] = {"sema": "in slots"}

# Old kind of event -> its new name, and old key -> new key.
EVENT_NAMES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "memo": ("cache", {"inherited": "earlier_hits"}),
}

# Old pattern -> new text in the names of a strategy's tensors; under `*` those of every strategy.
TENSOR_NAMES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "*": ((r"(^|\.)pet-", r"\1peft-"),),
    "mos": (
        (r"^working\.", "current_adapters."),
        (r"^stored\.", "frozen_adapters."),
        (r"^guess\.", "task_predictor."),
    ),
}

# Part of the names of tensors that older checkpoints lack: a freshly built strategy that has
# met the same experiences has the right ones.
NEW_TENSORS: Final = frozenset({"class_to_task", "votes_offline"})

# What strategies are to each other where a record, or a strategy, does not say it.
ROLES: Final[Mapping[str, str]] = {
    "avalanche.Cumulative": "upper_bound",
    "finetune": "lower_bound",
    "joint": "upper_bound",
    "simplecil": "baseline",
}

# In a checkpoint inside an experience, what comes before a tensor's own name: `0.model.`.
_POINT: Final = re.compile(r"^(\d+\.model\.|model\.|)(.*)$", re.DOTALL)


def option_names(strategy: str) -> dict[str, str]:
    """Returns the earlier names of a strategy's options, each with today's.

    Example:
        >>> option_names("mos")
        {'pet': 'peft', 'width': 'size', 'guess': 'task_predictor'}
    """
    return {**OPTION_NAMES["*"], **OPTION_NAMES.get(strategy, {})}


def upgrade_options(strategy: str, options: Mapping[str, Value]) -> dict[str, Value]:
    """Returns options under today's names; one that has both keeps the newer.

    Example:
        >>> upgrade_options("mos", {"pet": "lora", "width": 4, "lr": 0.1})
        {'peft': 'lora', 'size': 4, 'lr': 0.1}
    """
    names = option_names(strategy)
    found: dict[str, Value] = {}
    for name, value in options.items():
        new = names.get(name, name)
        if new == name or options.get(new) is None:
            found[new] = value
    return found


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe as today's version writes it: one over `data` names no `stream`.

    Example:
        >>> upgrade_config({"stream": "digits", "data": "photos", "seed": 0})
        {'data': 'photos', 'seed': 0}
    """
    has_data = config.get("data") is not None
    return {name: each for name, each in config.items() if name != "stream" or not has_data}


def add_earlier_defaults(
    strategy: str, fidelity: str, options: Mapping[str, Value]
) -> dict[str, Value]:
    """Returns the options of a run before format 5 with the defaults of its time.

    Example:
        >>> add_earlier_defaults("sema", "default", {"lr": 0.1})["watch"]
        'slots'
        >>> add_earlier_defaults("sema", "official", {"lr": 0.1})
        {'lr': 0.1}
    """
    usual = EARLIER_DEFAULTS.get(strategy, {}) if fidelity != "official" else {}
    return {**usual, **options}


def as_named(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe as the names of directories count it: as it always was.

    Runs and searches that an earlier version began are so found under the names that they have. A
    recipe whose strategy has other defaults today gets another name than it had then.

    Example:
        >>> as_named({"data": "photos", "seed": 0})
        {'data': 'photos', 'seed': 0, 'stream': 'digits'}
        >>> as_named({"stream": "mine.py:make", "data": None})
        {'stream': 'mine.py:make', 'data': None}
    """
    is_other = config.get("strategy") in EARLIER_DEFAULTS and config.get("fidelity") != "official"
    new = {"defaults": 5} if is_other else {}
    old = {"stream": "digits"} if config.get("data") is not None else {}
    return {**config, **old, **new}


def name_earlier_defaults(
    strategy: str, options: Mapping[str, object], differing: Collection[str]
) -> tuple[list[str], frozenset[str]]:
    """Returns one name for all defaults of an earlier version, and the options that it stands for.

    Args:
        strategy: Its name.
        options: Those of a run.
        differing: In which of them it differs from the runs beside it.

    Returns:
        Nothing where one of the defaults is another, or where all runs have them.

    Example:
        >>> name_earlier_defaults("sema", {**EARLIER_DEFAULTS["sema"], "lr": 0.1}, {"watch"})[0]
        ['in slots']
    """
    earlier = EARLIER_DEFAULTS.get(strategy, {})
    if earlier.keys().isdisjoint(differing) or not earlier.items() <= options.items():
        return [], frozenset()
    return [EARLIER_NAMES[strategy]], frozenset(earlier)


def upgrade_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a `run.json` of an earlier format as those of today's.

    The format that it names stays: it says who wrote it.
    """
    strategy, version = str(values.get("strategy")), values.get("format")
    found, has_todays_names = dict(values), version in {3, 4}
    if not has_todays_names:
        found["role"] = role_of(strategy, values.get("role"))
    if version != 4:
        found |= {"files": None, "data": {}}
    config = values.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("options", {}), Mapping):
        options = config.get("options", {})
        options = options if has_todays_names else upgrade_options(strategy, options)
        options = add_earlier_defaults(strategy, str(config.get("fidelity")), options)
        found["config"] = {**config, "options": options} if options else config
    return found


def role_of(strategy: str, said: str | None = None) -> str:
    """Returns what a strategy is to others; see `RunRecord.role`.

    Args:
        strategy: Its name.
        said: What it says itself, if it does; `method` is what it says if its author says nothing.

    Example:
        >>> role_of("joint"), role_of("sema"), role_of("mine", "baseline")
        ('upper_bound', 'method', 'baseline')
    """
    return said if said and said != "method" else ROLES.get(strategy, "method")


def upgrade_event(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line of `events.jsonl` as today's version would have written it.

    Example:
        >>> upgrade_event({"event": "memo", "read": 3, "inherited": 2})
        {'event': 'cache', 'read': 3, 'earlier_hits': 2}
    """
    kind = line.get("event")
    if not isinstance(kind, str) or kind not in EVENT_NAMES:
        return dict(line)
    new, keys = EVENT_NAMES[kind]
    return {keys.get(name, name): value for name, value in {**line, "event": new}.items()}


def upgrade_state(state: Mapping[str, Value], strategy: str) -> dict[str, Value]:
    """Returns the tensors of a checkpoint of format 1 or 2 under today's names.

    Args:
        state: Tensors by name; those of points inside an experience begin with `0.model.`.
        strategy: Name of the strategy, as the record has it.

    Example:
        >>> upgrade_state({"stored.pet-up": 1, "0.model.guess.sums": 2}, "mos")
        {'frozen_adapters.peft-up': 1, '0.model.task_predictor.sums': 2}
    """
    return {_tensor_name(name, strategy): value for name, value in state.items()}


def _tensor_name(name: str, strategy: str) -> str:
    place = _POINT.match(name)
    start, own = (place[1], place[2]) if place else ("", name)
    for old, new in (*TENSOR_NAMES["*"], *TENSOR_NAMES.get(strategy, ())):
        own = re.sub(old, new, own)
    return start + own


def add_new_tensors(state: Mapping[str, Value], own: Mapping[str, Value]) -> dict[str, Value]:
    """Returns a state with those tensors of the strategy's own that older checkpoints lack.

    Args:
        state: What a checkpoint holds.
        own: What the strategy has after it met the checkpoint's experiences.

    Example:
        >>> add_new_tensors({"head": 1}, {"head": 2, "class_to_task.rows": 3, "other": 4})
        {'head': 1, 'class_to_task.rows': 3}
    """
    lacking = {
        name: value
        for name, value in own.items()
        if name not in state and not NEW_TENSORS.isdisjoint(name.split("."))
    }
    return {**state, **lacking}
