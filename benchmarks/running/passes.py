"""How many passes of the bare network a run of each method takes, counted from its options.

A pass is one image forward; a step of training counts what its way back costs in passes. A network
that never changes sees an image once. One that learns sees it anew in each evaluation, and an
evaluation shows the test images of all experiences so far.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

__all__ = ["PASSES"]

# Of a training step, in passes: forward and back to the activations, or to all weights as well.
_STEP, _STEP_OF_ALL = 2.1, 3.0
# A query comes on top of the step, and L2P's tokens make every block longer.
_STEP_OF_L2P, _STEP_OF_PROMPTS = 3.3, 3.1
_DISTILLATION = 1.6  # of CL-LoRA: half of the network, now and as it was, and back

# Takes a method's options, the train images of each experience and the number of test images.
_Count = Callable[[Any, Sequence[float], int], float]


def _seen(train: Sequence[float], test: int) -> list[float]:
    """Returns how many test images each evaluation shows; a class has its share on both sides."""
    return [test * images / sum(train) for images in accumulate(train)]


def _of_one_look(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    return _first_session(options, train) + sum(train) + test


def _of_aper(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    return _first_session(options, train) + 2 * (sum(train) + test)


def _first_session(options: Any, train: Sequence[float]) -> float:  # noqa: ANN401
    if not getattr(options, "first_session", False):
        return 0.0
    step = _STEP_OF_ALL if options.variant == "finetune" else _STEP
    return float(options.epochs * step * train[0])


def _of_ease(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    plain = 1 if options.beta else 0  # the plain network as one more
    means = sum((place + 1 + plain) * images for place, images in enumerate(train))
    trained = float(options.epochs * _STEP * sum(train))
    return trained + means + (len(train) + plain) * test


def _of_prompts(step: float) -> _Count:
    def count(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
        return float(options.epochs * step * sum(train) + sum(_seen(train, test)) + test)

    return count


def _of_hide(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    steps = options.epochs * _STEP + options.guess_epochs  # the guess learns on frozen features
    statistics = 2  # of features with and without a prompt
    return float((steps + statistics) * sum(train) + sum(_seen(train, test)) + test)


def _of_learning(step: float, more: int) -> _Count:
    """Counts for a network that learns on; `more` passes of each train image are not training."""

    def count(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
        return float((options.epochs * step + more) * sum(train) + sum(_seen(train, test)))

    return count


def _of_cofima(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    information = _STEP_OF_ALL * sum(train)
    return _of_learning(_STEP_OF_ALL, 1)(options, train, test) + information


def _of_ssiat(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    later = sum(train[1:])
    epochs = options.epochs * train[0] + (options.later_epochs or options.epochs) * later
    looks = options.drift * (1 if options.pairing == "image" else 2)  # before, and once more after
    return float(epochs * _STEP + sum(train) + looks * later + sum(_seen(train, test)))


def _of_tuna(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    seen = _seen(train, test)
    # A set that is stored moves no more where it is detached, and is asked once of each image.
    moved = sum((place + 1) * images for place, images in enumerate(seen))
    answers = float(len(train) * test) if options.detach_stored else moved
    universal = sum(seen[1:]) if options.second == "universal" else 0.0
    return float((options.epochs * _STEP + 1) * sum(train) + answers + universal)


def _of_cl_lora(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    distilled = (_DISTILLATION if options.distillation else 0.0) * sum(train[1:])
    answers = sum((place + 2) / 2 * images for place, images in enumerate(_seen(train, test)))
    return float(options.epochs * (_STEP * sum(train) + distilled) + sum(train) + answers)


def _of_acmap(options: Any, train: Sequence[float], test: int) -> float:  # noqa: ANN401
    merged, seen = train[: options.limit], _seen(train, test)
    moved = [(place + 1) * images for place, images in enumerate(merged)]
    # Once no set is merged any more, features stay, and only what is new is looked at.
    answers = sum(seen[: len(merged)]) + seen[-1] - seen[len(merged) - 1]
    rest = sum(train[len(merged) :])
    return float(options.epochs * _STEP * sum(merged) + sum(moved) + rest + answers)


PASSES: Final[dict[str, _Count]] = {
    "acmap": _of_acmap,
    "aper": _of_aper,
    "cl_lora": _of_cl_lora,
    "coda_prompt": _of_prompts(_STEP_OF_PROMPTS),
    "cofima": _of_cofima,
    "dualprompt": _of_prompts(_STEP_OF_PROMPTS),
    "ease": _of_ease,
    "fecam": _of_one_look,
    "hide_prompt": _of_hide,
    "inflora": _of_learning(_STEP, 2),
    "l2p": _of_prompts(_STEP_OF_L2P),
    "loranpac": _of_one_look,
    "ranpac": _of_one_look,
    "sd_lora": _of_learning(_STEP, 0),
    "simplecil": _of_one_look,
    "slca": _of_learning(_STEP_OF_ALL, 1),
    "ssiat": _of_ssiat,
    "tuna": _of_tuna,
}
