"""What every strategy must satisfy, as named checks: for those here and for a user's own.

    check_strategy(MyMethod)    a sentence for each rule that is broken

In a test, one check a case:

    @pytest.mark.parametrize("name", STRATEGY_CHECKS)
    def test_my_method_is_sound(name: str) -> None:
        assert check_strategy(MyMethod, checks=[name]) == []

Each looks from outside, through Avalanche's `train` and `eval` and the state that a checkpoint
holds, at a network and streams that are tiny (`cl_adapters.strategies.checks.trial`).
"""

import gc
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from cl_adapters.buffers import count_numbers
from cl_adapters.errors import InputError
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.plugins.conformance import run_suite
from cl_adapters.randomness import kept_random_states, seed_random_states
from cl_adapters.records.event_kinds import Growth
from cl_adapters.strategies.checks.probes import (
    bytes_held,
    changed,
    global_settings,
    module_parts,
    same_bits,
)
from cl_adapters.strategies.checks.resuming import resumes, resumes_inside
from cl_adapters.strategies.checks.trial import EXPERIENCES, TinyStream, Trial, copied
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.checks import tiny_backbone

__all__ = ["STRATEGY_CHECKS", "check_strategy"]

_SLACK: Final = 0.1  # share of what grew that need not be noted as growth
_HIDDEN: Final = 4096  # bytes that may come and go outside of what was learned
_ROUNDING: Final = 1e-3  # of logits, between batches of different sizes
_GREYS: Final = 9  # even images from far below black to far above white
_AGREE: Final = 0.95  # share of test images with the same answer


def check_strategy(
    kind: type[AdapterStrategy],
    *,
    options: Mapping[str, object] | None = None,
    checks: Iterable[str] | None = None,
) -> list[str]:
    """Tests a strategy from outside.

    Args:
        kind: The class.
        options: Options that differ from the defaults; `batch_size` and `epochs` are set to keep it
            short.
        checks: Names of the checks; None runs all.

    Returns:
        A sentence for each rule that is broken, headed by the name of its check.

    Raises:
        InputError: If a check or an option is unknown.

    Example:
        >>> from cl_adapters.strategies.simplecil import SimpleCIL
        >>> check_strategy(SimpleCIL, checks=["backbone", "seen_classes"])
        []
    """
    trial = Trial(kind, options or {})
    trial.config  # noqa: B018 - an unknown option is the caller's mistake, not a broken rule
    return run_suite(STRATEGY_CHECKS, trial, checks)


def _describes(trial: Trial) -> Iterator[str]:
    """Says what it is and what each option means."""
    if not (trial.kind.__doc__ or "").strip():
        yield "the class must have a docstring, whose first line `cl-adapters list` shows, got none"
    for name, option in trial.kind.config_class.model_fields.items():
        if not option.description:
            yield f"option `{name}` must have a description, got none"


def _answers(trial: Trial) -> Iterator[str]:
    """Trains and evaluates, on classes to come as well, and notes only what JSON can hold."""
    run, seen = trial.straight, set[int]()
    for classes, outputs, events in zip(EXPERIENCES, run.outputs, run.events, strict=True):
        seen |= set(classes)
        if outputs.ndim != 2 or outputs.shape[1] <= max(seen):
            yield f"logits must have a column for each label, 0 to {max(seen)}, got shape " + str(
                tuple(outputs.shape)
            )
        if not bool(torch.isfinite(outputs).all()):
            yield "logits must be finite, got NaN or infinity"
        json.dumps([event.as_line() for event in events])
        if set(run.strategy.classes_seen) < seen:
            yield f"`classes_seen` must hold {sorted(seen)}, got {run.strategy.classes_seen}"


def _backbone(trial: Trial) -> Iterator[str]:
    """Leaves the backbone bit-identical, frozen, and without hooks."""
    backbone, fresh = trial.straight.strategy.backbone, tiny_backbone()
    yield from (
        f"the backbone must stay bit-identical, got another {name!r}"
        for name in changed(fresh.state_dict(), backbone.state_dict())[:1]
    )
    for name, value in backbone.named_parameters():
        if value.requires_grad or value.grad is not None:
            yield f"the backbone must get no gradients, but {name!r} was asked for one"
            break
    if any(module.training for module in backbone.vit.modules()):
        yield "the backbone must stay in eval mode, got train mode"
    if module_parts(backbone) != module_parts(fresh):
        yield "the backbone must be left without hooks and additions, got some"


def _declares(trial: Trial) -> Iterator[str]:
    """Trains only what its checkpoint holds."""
    first, strategy = trial.straight.first, trial.straight.strategy
    state, declared = strategy.model.state_dict(), strategy.learned_state()
    for name, value in first.items():
        is_fixed = name not in declared and not name.startswith("backbone.")
        if is_fixed and not same_bits(value, state.get(name)):
            yield f"{name!r} must be in `learned_state` or stay as it is, it changed outside"
    known = {id(value) for name, value in strategy.model.named_parameters() if name in declared}
    for group in strategy.optimizer.param_groups:
        for value in group["params"]:
            if value.grad is not None and id(value) not in known:
                yield (
                    "the optimiser must train only parameters in `learned_state`, got one of shape "
                    f"{tuple(value.shape)} that is not"
                )
                return


def _data_to_come(trial: Trial) -> Iterator[str]:
    """Reads neither test data nor later experiences while it trains."""
    last = 1
    stream = TinyStream(poison_after=last)
    strategy = trial.build()
    for number, experience in enumerate(stream.benchmark.train_stream[: last + 1]):
        strategy.train(experience)
        read = [
            *(
                f"test data of experience {t}"
                for t, each in enumerate(stream.test_sets)
                if each.reads
            ),
            *(
                f"training data of experience {t}"
                for t, each in enumerate(stream.train_sets)
                if each.reads and t > number
            ),
        ]
        if read:
            yield f"training experience {number} must not read {read[0]}, but it did"
            return
        names = changed(trial.straight.states[number], strategy.learned_state())
        if names and _repeats(trial, strategy, number, last):
            yield (
                f"what experience {number} teaches must not depend on test data or later "
                f"experiences, but {names[0]!r} did"
            )
        if names:
            return


def _repeats(trial: Trial, strategy: AdapterStrategy, number: int, last: int) -> bool:
    """Says whether training comes out as it did; else it differs whatever it reads."""
    again = trial.build()
    again.train(TinyStream(poison_after=last).benchmark.train_stream[: number + 1])
    return not changed(strategy.learned_state(), again.learned_state())


def _test_labels(trial: Trial) -> Iterator[str]:
    """Learns nothing from an evaluation, and answers without the labels."""
    run, strategy = trial.straight, trial.straight.strategy
    other = TinyStream(names={label: (label + 3) % 7 for label in range(7)})
    outputs = trial.evaluate(strategy, other)
    names = changed(run.states[-1], strategy.learned_state())
    if names:
        yield f"an evaluation must change nothing that was learned, but {names[0]!r} did"
    # Whatever an evaluation may keep elsewhere shows in the next one.
    again = trial.evaluate(strategy, TinyStream())
    if not torch.equal(outputs, again) or not torch.equal(outputs, run.outputs[-1]):
        yield "answers must not depend on the labels of test data or on earlier evaluations"


def _seen_classes(trial: Trial) -> Iterator[str]:
    """Predicts classes that it has seen."""
    seen: set[int] = set()
    for number, (classes, outputs) in enumerate(
        zip(EXPERIENCES, trial.straight.outputs, strict=True)
    ):
        seen |= set(classes)
        strange = set(outputs.argmax(dim=1).tolist()) - seen
        if strange:
            yield (
                f"predictions after experience {number} must be among the classes seen, "
                f"{sorted(seen)}, got {min(strange)}"
            )


def _seeds(trial: Trial) -> Iterator[str]:
    """Gives the same result for the same seed, whatever ran before."""
    with kept_random_states():
        seed_random_states(11)
        run = trial.train(trial.build(), TinyStream(), only_last=True)
    names = changed(trial.straight.states[-1], run.states[-1])
    if names:
        yield (
            f"two runs with one seed must learn the same, but {names[0]!r} differs; draw from "
            "`self.generator(...)`"
        )
    elif not torch.equal(trial.straight.outputs[-1], run.outputs[-1]):
        yield "two runs with one seed must answer the same, got other logits"


def _small(trial: Trial) -> Iterator[str]:
    """Survives one class and classes that return; learns one image, or refuses it in a sentence."""
    run = trial.train(trial.build(), TinyStream(experiences=((2,), (2, 0), (0,))))
    if not all(bool(torch.isfinite(outputs).all()) for outputs in run.outputs):
        yield "one class and returning classes must leave the logits finite, got NaN or infinity"
    strategy = trial.build()
    stream = TinyStream(experiences=((1,),), per_class=1)
    before = copied(strategy.learned_state())
    try:
        trial.train(strategy, stream)
    except InputError:
        if changed(before, strategy.learned_state()) or strategy.classes_seen:
            yield "an experience of one image must be refused before anything changes"


def _released(trial: Trial) -> Iterator[str]:
    """Holds on to nothing once it is dropped."""
    references = _references(trial)
    gc.collect()
    for name, reference in references:
        if reference() is not None:
            yield f"nothing must be held once the strategy is dropped, but {name} is"
            return


def _references(trial: Trial) -> list[tuple[str, weakref.ref[Any]]]:
    strategy, stream = trial.build(), TinyStream(experiences=EXPERIENCES[:1])
    trial.train(strategy, stream)
    return [
        ("the model", weakref.ref(strategy.model)),
        ("a dataset", weakref.ref(stream.train_sets[0])),
        *((repr(name), weakref.ref(value)) for name, value in strategy.model.named_parameters()),
    ]


def _growth(trial: Trial) -> Iterator[str]:
    """Counts all that it grows in its checkpoint, and notes growth as it is."""
    strategy = trial.build()
    stream = TinyStream(experiences=((0, 1),) * 3, inverted=(1,))
    sizes, hidden, noted = [], [], []
    for number, experience in enumerate(stream.benchmark.train_stream):
        strategy.train(experience)
        state = strategy.learned_state()
        sizes.append(count_numbers(strategy.model, state))
        hidden.append(bytes_held(strategy) - sum(value.nbytes for value in state.values()))
        events = [event for event in strategy.pop_events(number) if isinstance(event, Growth)]
        noted.append(sum(event.parameters for event in events))
    for number in (1, 2):
        grown, claimed = sizes[number] - sizes[number - 1], noted[number]
        if claimed > grown or (claimed and grown > claimed * (1 + _SLACK)):
            yield f"growth must be noted as it is, {grown} numbers, got {claimed}"
    if hidden[2] > hidden[1] + _HIDDEN:
        yield (
            "all that grows must be in `learned_state`, but an experience added "
            f"{hidden[2] - hidden[1]} bytes elsewhere"
        )


def _global_state(trial: Trial) -> Iterator[str]:
    """Leaves random generators and settings of the process as they are."""
    with kept_random_states():
        seed_random_states(5)  # a state that no one else would choose
        before = global_settings()
        strategy = trial.build()
        for experience in TinyStream(experiences=EXPERIENCES[:2]).benchmark.train_stream:
            strategy.train(experience)
        for name, value in global_settings().items():
            if value != before[name]:
                yield f"{name} must stay as before, but training changed it"


def _relabelled(trial: Trial) -> Iterator[str]:
    """Gives the same answers under other names of the classes."""
    names = {label: 2 * label + 1 for label in range(7)}
    run = trial.train(trial.build(), TinyStream(names=names), only_last=True)
    guesses = trial.straight.outputs[-1].argmax(dim=1).tolist()
    expected = torch.tensor([names[guess] for guess in guesses])
    share = float((run.outputs[-1].argmax(dim=1) == expected).float().mean())
    if share < _AGREE:
        yield (
            "with labels 1, 3, 5 ... for 0, 1, 2 ... the same images must get the same classes, "
            f"got {share:.0%} of them"
        )


def _bf16(trial: Trial) -> Iterator[str]:
    """Computes in bfloat16 and keeps what it learned in full precision."""
    run = trial.train(trial.build(precision="bf16"), TinyStream(), only_last=True)
    short = {torch.bfloat16, torch.float16}
    for name, value in run.states[-1].items():
        if value.dtype in short:
            yield f"what is learned must not be in 16 bits, got {name!r} in {value.dtype}"
            return
    if not all(bool(torch.isfinite(outputs).all()) for outputs in run.outputs):
        yield "logits must be finite under bf16, got NaN or infinity"


def _batches(trial: Trial) -> Iterator[str]:
    """Answers each image by itself, whatever else is in its batch."""
    strategy = trial.straight.strategy
    if strategy.answers_change_it:  # an option says so, and another image then comes later
        return
    size, stream = strategy.eval_mb_size, TinyStream()
    whole = trial.evaluate(strategy, stream)
    strategy.eval_mb_size = 1
    alone = trial.evaluate(strategy, stream)
    strategy.eval_mb_size = size
    # The stream's images are much alike, and where all of a batch vote alike a vote does not show.
    greys = torch.linspace(-5, 5, _GREYS)[:, None, None, None]
    greys = greys.expand(-1, *strategy.backbone.input_shape)
    other = strategy.answer(greys).logits
    each = torch.cat([strategy.answer(grey[None]).logits for grey in greys])
    for together, one_by_one in ((whole, alone), (other, each)):
        known = together[together > UNSEEN_LOGIT / 2].abs()
        gap = float((one_by_one - together).abs().max())
        if not gap <= _ROUNDING * max(1.0, float(known.max())):
            yield f"an image must get the same logits alone as in a batch, got a gap of {gap:.3g}"
            return


def _passes(trial: Trial) -> Iterator[str]:
    """Counts each image's passes through the network, in `backbone.num_passes`."""
    strategy, seen = trial.straight.strategy, [0]
    backbone = strategy.backbone

    def count(_: object, tokens: tuple[torch.Tensor]) -> None:
        seen[0] += len(tokens[0])

    before = backbone.num_passes
    watch = backbone.vit.blocks[-1].norm1.register_forward_pre_hook(count)
    trial.evaluate(strategy, TinyStream())
    watch.remove()
    if backbone.num_passes - before != seen[0]:
        yield (
            f"passes of an evaluation must be those through the last block, {seen[0]} images, got "
            f"{backbone.num_passes - before} in `backbone.num_passes`"
        )


STRATEGY_CHECKS: Final[dict[str, Callable[[Trial], Iterator[str]]]] = {
    "describes": _describes,
    "answers": _answers,
    "backbone": _backbone,
    "declares": _declares,
    "data_to_come": _data_to_come,
    "test_labels": _test_labels,
    "seen_classes": _seen_classes,
    "seeds": _seeds,
    "resumes": resumes,
    "resumes_inside": resumes_inside,
    "small": _small,
    "released": _released,
    "growth": _growth,
    "global_state": _global_state,
    "relabelled": _relabelled,
    "bf16": _bf16,
    "batches": _batches,
    "passes": _passes,
}
