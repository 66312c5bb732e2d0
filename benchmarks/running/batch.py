"""Several runs in one process: strategies x seeds over one stream, with progress bars."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Unpack

from rich.console import Console

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.joining import JoinedSource
from cl_adapters.benchmarks.data.verifying import verified
from cl_adapters.benchmarks.running.advice import size_advice
from cl_adapters.benchmarks.running.continuing import coverage_notes, go_on_with
from cl_adapters.benchmarks.running.earlier_options import current_option, has_option
from cl_adapters.benchmarks.running.logs import check_loggers
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.parent import Parent
from cl_adapters.benchmarks.running.prepare import (
    PreparedRun,
    open_backbone,
    prepare,
)
from cl_adapters.benchmarks.running.progress import Bars, ctrl_c_is_heard, say
from cl_adapters.benchmarks.running.protocols import apply_protocol, check_images, find_protocol
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.benchmarks.running.runner import Running, run
from cl_adapters.benchmarks.running.scenarios import plan_stream
from cl_adapters.benchmarks.streams.repeated import repeated_images
from cl_adapters.benchmarks.streams.watch import BoundaryDetector
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.plugins.registry import label
from cl_adapters.records.data_notes import data_sentences
from cl_adapters.strategies import STRATEGIES, find_strategy
from cl_adapters.vit.device import find_device
from cl_adapters.vit.pretrained import PretrainedViT

__all__ = ["MOST_SEEDS", "expand", "flat_options", "run_batch", "split_owner"]

MOST_SEEDS: Final = 10_000  # nobody runs more; more is a slip of the finger


def expand(
    given: Mapping[str, Any], *, recipe: Path | None, seeds: int, settings: Sequence[str]
) -> list[RunConfig]:
    """Returns one recipe per seed and strategy, seeds outermost, all of them checked.

    Args:
        given: Recipe keys from the command line; `strategy` may hold several, separated by commas.
        recipe: TOML file with defaults for the keys and a table `options`.
        seeds: Number of seeds, counted from the recipe's `seed`, its protocol's first, or 0.
        settings: Texts `key=value` or `strategy.key=value` for the strategies' options.

    Raises:
        InputError: If a key, a strategy or an option is unknown, or a value breaks its rule.
    """
    values = apply_protocol({**(read_recipe(recipe) if recipe else {}), **given})
    text = str(values.pop("strategy", ""))
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        known = ", ".join(STRATEGIES)
        raise InputError(f"--strategy must name at least one of {known}, got {text!r}")
    shared, start = values.pop("options", {}), values.pop("seed", 0)
    if not isinstance(shared, dict):
        raise InputError(f"recipe key `options` must be a table, got {shared!r}")
    if not isinstance(start, int) or isinstance(start, bool):
        raise InputError(f"recipe key `seed` must be a whole number, got {start!r}")
    if not isinstance(seeds, Integral) or not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds must be from 1 to {MOST_SEEDS}, got {seeds!r}")
    options = _options_by_strategy(names, flat_options(shared), settings)
    return [
        RunConfig.parse(
            {**values, "strategy": name, "seed": start + seed, "options": options[name]}
        )
        for seed in range(seeds)
        for name in names
    ]


def run_batch(
    configs: Sequence[RunConfig],
    out: Path,
    *,
    quiet: bool = False,
    cache: FeatureCache | None = None,
    parent: Parent | None = None,
    notes: Sequence[str] = (),
    **running: Unpack[Running],
) -> list[Path]:
    """Runs recipes one after the other and returns their run directories.

    Every recipe is checked, and every image decoded once, before the first run writes anything.

    Args:
        configs: The recipes; they share one source of images.
        out: Folder of all runs.
        quiet: Show nothing. Without it, one line a run where the output is not a terminal.
        cache: Where strategies keep what frozen parts compute; None keeps nothing.
        parent: The run that the one recipe goes on with.
        notes: What to say before anything else.
        **running: See `cl_adapters.benchmarks.running.runner.run`.

    Raises:
        InputError: If anything that a recipe names is unknown, missing or does not fit.
    """
    console = Console(stderr=True, quiet=quiet)
    check_loggers(running.get("loggers", ()))
    _check(configs, out)
    source = open_images(configs[0], parent)
    shared = _Shared(source, parent)
    if parent is not None:
        notes = [*notes, *coverage_notes(source), *_repeated(source, configs[0])]
    _say(console, [*notes, *_protocol_notices(configs[0], source)])
    if any(config.task_free for config in configs):
        _say(console, ["task-free: looking at all training images first"])
    for config in configs:
        shared.prepare(config, cache=None)
    _say(console, [*shared.notices, *size_advice(configs, source.train)])
    with ctrl_c_is_heard() as stopped, Bars(console, stopped) as bars:
        shared.source = _verified(source, bars, cache)
        folders = []
        for config in configs:
            prepared = shared.prepare(config, cache=cache)
            folders.append(run(prepared, out, progress=bars, **running))
            bars.finish(_line(prepared, folders[-1]))
        _say_trouble(cache, bars)
    return folders


def _check(configs: Sequence[RunConfig], out: Path) -> None:
    # The cheap checks first: opening data and weights takes a while.
    if out.exists() and not out.is_dir():
        raise InputError(f"--out must be a folder, got the file {str(out)!r}")
    for config in configs:
        find_strategy(config.strategy)
        find_device(config.device)


def _say(console: Console, notices: Iterable[str]) -> None:
    for notice in notices:
        say(console, f"note: {notice}")


def _protocol_notices(config: RunConfig, source: ImageSource) -> list[str]:
    return check_images(find_protocol(config.protocol), source) if config.protocol else []


def _repeated(source: ImageSource, config: RunConfig) -> list[str]:
    if not isinstance(source, JoinedSource):
        return []
    return repeated_images(source, plan_stream(source.before, config))


class _Shared:
    """What the runs of a batch share: images, each set of weights once, found boundaries."""

    def __init__(self, source: ImageSource, parent: Parent | None) -> None:
        self.source, self._parent = source, parent
        self._loaded: dict[tuple[object, ...], PretrainedViT] = {}
        self._boundary_detector = BoundaryDetector()

    def prepare(self, config: RunConfig, *, cache: FeatureCache | None) -> PreparedRun:
        prepared = prepare(
            config,
            source=self.source,
            backbone=self._backbone(config),
            boundary_detector=self._boundary_detector,
            cache=cache,
        )
        return prepared if self._parent is None else go_on_with(self._parent, prepared)

    def _backbone(self, config: RunConfig) -> PretrainedViT:
        key = (config.backbone, config.weights, config.image_size, config.emoe)
        if key not in self._loaded:
            self._loaded[key] = open_backbone(config)
        return self._loaded[key]

    @property
    def notices(self) -> list[str]:
        return sorted({notice for each in self._loaded.values() for notice in each.notices})


def _verified(source: ImageSource, bars: Bars, cache: FeatureCache | None) -> ImageSource:
    bars.start("checking images", len(source.train) + len(source.test))
    found = verified(source, lambda: bars.advance("", 1), cache)
    for sentence in data_sentences(found.reading.describe()):
        bars.note(sentence)
    return found


def _say_trouble(cache: FeatureCache | None, bars: Bars) -> None:
    if cache is not None and cache.trouble is not None:
        bars.note(cache.trouble)


def _line(prepared: PreparedRun, folder: Path) -> str:
    return f"{prepared.record.strategy} seed {prepared.config.seed}: {folder}"


def _options_by_strategy(
    names: Sequence[str], shared: Mapping[str, Any], settings: Sequence[str]
) -> dict[str, dict[str, Any]]:
    # A plain option goes to every strategy that has it, `strategy.option` to that one; an option
    # that is a group of options takes `option.part`.
    known = {name: set(find_strategy(name).config_class.model_fields) for name in names}
    pairs = [*shared.items(), *map(_pair, settings)]
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in pairs:
        owner, path = split_owner(key, names)
        takers = [owner] if owner else [name for name in names if has_option(path, known[name])]
        if not takers:
            kinds = ", ".join(f"{name}: {', '.join(sorted(known[name]))}" for name in names)
            raise InputError(
                f"options must be those of a strategy of this run, got {key!r}; {kinds}"
            )
        for name in takers:
            option, _, part = current_option(path, known[name]).partition(".")
            if part:
                options[name].setdefault(option, {})[part] = value
            else:
                options[name][option] = value
    return {name: _typed(name, options[name]) for name in names}


def split_owner(key: str, names: Sequence[str]) -> tuple[str | None, str]:
    """Returns the strategy that `strategy.option` names, None for a plain option, and the rest."""
    # `my_method.py:MyMethod.epochs` and `my_method.MyMethod.epochs` are the same option.
    for name in names:
        for start in (f"{name}.", f"{label(name)}."):
            if key.startswith(start) and key != start:
                return name, key.removeprefix(start)
    return None, key


def flat_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a table of options without tables in it."""
    # A recipe's `[options.lae]` with `peft = "lora"` says what `lae.peft=lora` says to `--set`.
    flat: dict[str, Any] = {}
    for key, value in options.items():
        inner = value.items() if isinstance(value, dict) else ()
        flat.update({f"{key}.{option}": each for option, each in inner} or {key: value})
    return flat


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set must have the form key=value, got {text!r}")
    return key.strip(), value.strip()


def _typed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    # The record holds 10, not "10": the same option gives the same recipe however it was written.
    config = find_strategy(name).config_class().override(options)
    values = config.model_dump(mode="json")
    return {key: values[key] for key in options}
