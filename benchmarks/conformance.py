"""The suites by kind and name, for `cl-adapters check`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cl_adapters.benchmarks.data.sources import SOURCE_NAMES
from cl_adapters.benchmarks.streams.checks import STREAM_CHECKS
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.peft.registry import find_peft
from cl_adapters.peft.router_checks import ROUTER_CHECKS
from cl_adapters.peft.router_registry import find_router
from cl_adapters.plugins.conformance import STOPPED, run_suite
from cl_adapters.shift import find_detector
from cl_adapters.shift.checks import DETECTOR_CHECKS
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import STRATEGY_CHECKS
from cl_adapters.strategies.checks.trial import Trial
from cl_adapters.vit.checks import ADAPTER_CHECKS

__all__ = ["Outcome", "check_plugin"]

_FEATURES: Final = 8  # of what detectors are tried on


@dataclass(frozen=True)
class Outcome:
    """What a check said.

    Attributes:
        name: The check.
        rule: What it asks for, in words.
        sentences: One for each rule that is broken.
    """

    name: str
    rule: str
    sentences: Sequence[str]


def check_plugin(
    kind: str, name: str, *, settings: Sequence[str] = (), checks: Iterable[str] | None = None
) -> Iterator[Outcome]:
    """Runs a suite on what a name stands for, and yields each check's outcome as it comes.

    Where it does not run through, that is the last: the others would find it again.

    Args:
        kind: strategy, detector, adapter, router or stream.
        name: As for `cl-adapters run`.
        settings: Texts `key=value` for the options of a strategy.
        checks: Names of the checks; None runs all.

    Raises:
        InputError: If the kind, the name, an option or a check is unknown.
    """
    if kind not in _SUITES:
        raise unknown_name("kind", kind, _SUITES)
    if settings and kind != "strategy":
        raise InputError(f"--set must go with a strategy, got {kind} {name!r}")
    suite, open_subject = _SUITES[kind]
    chosen = list(suite if checks is None else checks)
    run_suite(suite, None, [each for each in chosen if each not in suite])  # refuses them
    subject = open_subject(name, dict(map(_pair, settings)))
    for each in chosen:
        found = [line.partition(": ")[2] for line in run_suite(suite, subject, [each])]
        yield Outcome(each, (suite[each].__doc__ or "").splitlines()[0], found)
        if any(sentence.startswith(STOPPED) for sentence in found):
            return


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set must have the form key=value, got {text!r}")
    return key.strip(), value.strip()


def _strategy(name: str, options: Mapping[str, str]) -> Trial:
    trial = Trial(find_strategy(name), options)
    trial.config  # noqa: B018 - an unknown option is refused before any check
    return trial


def _detector(name: str, _: Mapping[str, str]) -> Callable[[int], Any]:
    kind = find_detector(name)
    return lambda seed: kind(_FEATURES, seed=seed)


_SUITES: Final[dict[str, tuple[Mapping[str, Any], Callable[[str, Mapping[str, str]], Any]]]] = {
    "strategy": (STRATEGY_CHECKS, _strategy),
    "detector": (DETECTOR_CHECKS, _detector),
    "adapter": (ADAPTER_CHECKS, lambda name, _: find_peft(name)),
    "router": (ROUTER_CHECKS, lambda name, _: find_router(name)),
    "stream": (STREAM_CHECKS, lambda name, _: SOURCE_NAMES.find(name)),
}
