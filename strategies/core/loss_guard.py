"""A watch on features, losses and outputs: a run ends where one is no longer a number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from cl_adapters.finiteness import NotFiniteError, mark
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["EXPLODED", "LossGuard", "Place", "Watched", "advice_on"]

Watched = Literal["features", "loss", "outputs"]

# No training comes back from such a loss; a class that no head knows yet costs a thousand.
EXPLODED: Final = 1e6
_PATIENCE: Final = 64  # values between two looks at them on a GPU: a loss and features a batch


class Place(NamedTuple):
    """Where in a run something was computed.

    Attributes:
        moment: In words, such as `experience 0, phase 'train', epoch 1`.
        batch: Of that moment, from 0; None where there are no batches.
        advice: What may help, as the end of the sentence.
    """

    moment: str
    batch: int | None = None
    advice: str = ""

    def __str__(self) -> str:
        batch = "" if self.batch is None else f", batch {self.batch}"
        return f"in {self.moment}{batch}{self.advice}"


def advice_on(optimizer: torch.optim.Optimizer) -> str:
    """Returns the end of a sentence about what an optimiser may have led to."""
    rates = sorted({group["lr"] for group in optimizer.param_groups}, reverse=True)
    named = ", ".join(f"{rate:g}" for rate in rates)
    return f" at learning rate {named}; a lower one may help"


class LossGuard:
    """Looks at what each batch gives: at once on the CPU, later on a GPU.

    A GPU has to finish its work before it answers, so marks of several batches are left there and
    asked for together: every few batches in training, at the end of an evaluation.

    Args:
        device: Where things are computed.
        place: Says where the run is.
    """

    def __init__(self, device: torch.device, place: Callable[[], Place]) -> None:
        self._asks_at_once = device.type == "cpu"
        self._place = place
        self._seen: list[tuple[Watched, Place, Tensor]] = []

    def __deepcopy__(self, memo: object) -> "LossGuard":
        """Returns itself: a copy of a model that is watched is watched by the same guard."""
        return self

    def watch(self, what: Watched, values: Tensor, *, patient: bool = False) -> None:
        """Takes what a batch gave, of any shape.

        Args:
            what: What it is; of a loss, a scalar, the size counts too.
            values: The numbers.
            patient: Leave a GPU alone until `check`.

        Raises:
            NotFiniteError: If numbers that were taken so far are no numbers, and it is known.
        """
        found = values.detach().reshape(()).float() if what == "loss" else mark(values)
        if self._asks_at_once:
            if _is_odd(what, value := found.item()):
                raise _error(what, value, self._place())
            return
        place = self._place()  # which has moved on by the time that a GPU answers
        self._seen.append((what, place, found))
        if len(self._seen) >= _PATIENCE and not patient:
            self.check()

    def check(self) -> None:
        """Looks at what was taken since the last call.

        Raises:
            NotFiniteError: If something is not finite, or a loss at least a million.
        """
        seen, self._seen = self._seen, []
        values = torch.stack([found for *_, found in seen]).tolist() if seen else []
        for (what, place, _), value in zip(seen, values, strict=True):
            if _is_odd(what, value):
                raise _error(what, value, place)

    @contextmanager
    def on(self, backbone: AdaptedViT) -> Iterator[None]:
        """Watches the features of a network; what else then fails may follow from what it saw."""
        before, backbone.watcher = backbone.watcher, self._features
        try:
            yield
        except NotFiniteError as error:
            if error.placed:
                raise
            raise NotFiniteError(f"{error} {self._place()}", placed=True) from error
        except Exception:
            self.check()
            raise
        finally:
            backbone.watcher = before
        self.check()

    def _features(self, features: Tensor) -> None:
        self.watch("features", features, patient=not torch.is_grad_enabled())


def _is_odd(what: Watched, value: float) -> bool:
    return not abs(value) < EXPLODED if what == "loss" else value != 0  # NaN is odd as either


def _error(what: Watched, value: float, place: Place) -> NotFiniteError:
    rule = f"stay finite and below {EXPLODED:g}" if what == "loss" else "be finite"
    return NotFiniteError(f"{what} must {rule}, got {value:g} {place}", placed=True)
