"""What every router of a slot must satisfy, as named checks: for those here and for a user's own.

    check_router(find_router("my_router.py:MyRouter"))    a sentence for each rule that is broken

In a test, one check a case:

    @pytest.mark.parametrize("name", ROUTER_CHECKS)
    def test_my_router_is_sound(name: str) -> None:
        assert check_router(MyRouter, checks=[name]) == []
"""

import copy
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from cl_adapters.peft.noise import hand_out
from cl_adapters.peft.router import Router
from cl_adapters.peft.routing import ExpandableSlot
from cl_adapters.plugins.conformance import run_suite
from cl_adapters.randomness import kept_random_states, random_states, seed_random_states

__all__ = ["ROUTER_CHECKS", "check_router"]

Make = Callable[[int], Router]

_WIDTH: Final = 8  # D
_MOST: Final = 3  # adapters of a slot
_CLOSE: Final = 1e-5  # of weights, when the same image stands in another batch


def check_router(make: Make, *, checks: Iterable[str] | None = None) -> list[str]:
    """Tests a router from outside, in a slot of up to three small adapters.

    Args:
        make: The class, or whatever makes a new router of a width; otherwise always the same.
        checks: Names of the checks; None runs all.

    Returns:
        A sentence for each rule that is broken, headed by the name of its check.

    Raises:
        InputError: If a check is unknown.

    Example:
        >>> from cl_adapters.peft.router_registry import find_router
        >>> check_router(find_router("learned"))
        []
    """
    return run_suite(ROUTER_CHECKS, make, checks)


def _source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _tokens(number: int = 0, count: int = 24) -> Tensor:
    """Returns the tokens of an experience's images, (count, 3, D)."""
    centre = 2 * torch.randn(_WIDTH, generator=_source(100 + number))
    return centre + torch.randn(count, 3, _WIDTH, generator=_source(number))


def _means(number: int = 0) -> Tensor:
    return _tokens(number).mean(dim=1)


def _mixed() -> Tensor:
    """Returns tokens of images of all experiences, (B, 3, D)."""
    return torch.cat([_tokens(number, 8) for number in range(_MOST)])


def _slot(make: Make, adapters: int, seed: int = 0) -> ExpandableSlot:
    """Returns a slot in eval mode after as many experiences, each with an adapter of its own."""
    slot, source = ExpandableSlot(_WIDTH, 2, router=make(_WIDTH)), _source(seed)
    for number in range(adapters):
        _grow(slot, source)
        _learn(slot, number)
    return slot.eval()


def _grow(slot: ExpandableSlot, source: torch.Generator) -> None:
    """Begins an experience, whose adapter is new."""
    if len(slot):
        slot.router.begin_experience(source)
    slot.add_adapter(source)
    slot.update_router(_means(len(slot) - 1), len(slot) - 1)


def _learn(slot: ExpandableSlot, number: int) -> None:
    """Moves the newest adapter and what the router trains with it, and takes their gradients."""
    source = _source(number)
    trained = slot.requires_grad_(requires_grad=False).newest_parameters()
    with torch.no_grad():
        for each in trained:
            each.add_(0.3 * torch.randn(each.shape, generator=source))
            each.requires_grad = True
    hand_out(slot.train(), source)
    slot(_tokens(number)).square().sum().backward()
    slot.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def _answers(slot: ExpandableSlot, tokens: Tensor) -> tuple[Tensor, Tensor]:
    mixed = slot(tokens)
    return slot.route(tokens.mean(dim=1)), mixed


def _numbers(slot: ExpandableSlot, *, trained: bool = False) -> int:
    """Returns how many numbers the router holds."""
    parts = list(slot.router.parts().values())
    if trained:
        return sum(value.numel() for part in parts for value in part.parameters())
    return sum(value.numel() for part in parts for value in part.state_dict().values())


def _begins(make: Make) -> Iterator[str]:
    """Begins without an adapter, and makes room for the first as for others."""
    slot = _slot(make, 0)
    if any(value.numel() for value in slot.router.newest_parameters()):
        yield "a router without an adapter must train nothing, got parameters"
    held = [_numbers(slot)]
    for _ in range(2):
        slot.add_adapter(_source())
        held.append(_numbers(slot))
    first, second = held[1] - held[0], held[2] - held[1]
    if first != second:
        yield (
            "the first adapter must add to the state what the second adds, got "
            f"{first} and {second} numbers"
        )


def _weights(make: Make) -> Iterator[str]:
    """Gives each image finite weights in [0, 1], one an adapter, of a sum of at most 1."""
    for adapters in range(1, _MOST + 1):
        slot, tokens = _slot(make, adapters), _mixed()
        for name, asked in (("images", tokens), ("images a thousand times as large", tokens * 1e3)):
            weights, mixed = _answers(slot, asked)
            if weights.shape != (len(tokens), adapters):
                yield (
                    f"the weights of {adapters} adapters must have shape "
                    f"{(len(tokens), adapters)}, got {tuple(weights.shape)}"
                )
                return
            if not bool(torch.isfinite(weights).all() and torch.isfinite(mixed).all()):
                yield f"weights and mixtures must be finite for {name}, got others"
                return
            sums = weights.sum(dim=1)
            if float(weights.min()) < -_CLOSE or float(sums.max()) > 1 + _CLOSE:
                yield (
                    "weights must be in [0, 1] and sum to at most 1, got a weight of "
                    f"{float(weights.min()):.3g} and a sum of {float(sums.max()):.3g}"
                )
                return


def _images(make: Make) -> Iterator[str]:
    """Treats each image alone, and the same each time."""
    slot, tokens = _slot(make, _MOST), _mixed()
    together, again = _answers(slot, tokens), _answers(slot, tokens)
    if not all(map(torch.equal, together, again)):
        yield "the same images must get the same weights, got others at the second time"
    alone = [torch.cat(each) for each in zip(*(_answers(slot, row[None]) for row in tokens))]  # noqa: B905
    if not all(torch.allclose(*pair, atol=_CLOSE, rtol=1e-4) for pair in zip(together, alone)):  # noqa: B905
        yield "an image's weights must not depend on the others of its batch, but they do"


def _grows(make: Make) -> Iterator[str]:
    """Grows by what is the new adapter's, and leaves the rest as it is."""
    slot, tokens = _slot(make, _MOST - 1), _mixed()
    before = {name: value.clone() for name, value in slot.state_dict().items()}
    earlier, numbers = list(slot.parameters()), _numbers(slot, trained=True)
    slot.add_adapter(_source(1))
    after = slot.state_dict()
    for name, old in before.items():
        if name not in after or not _begins_with(after[name], old):
            yield f"an adapter more must leave the state of earlier ones, got another {name!r}"
    added, said = _numbers(slot, trained=True) - numbers, slot.router.cost()
    if added != said:
        yield f"`cost` must be the parameters that an adapter adds, got {said} for {added}"
    newest = slot.router.newest_parameters()
    if not slot.router.knows_experiences and any(old is new for old in earlier for new in newest):
        yield "`newest_parameters` must be the newest adapter's, got those of earlier ones too"
    slot = _slot(make, _MOST - 1)
    answers = _answers(slot, tokens)
    slot.router.begin_experience(_source(1))
    if not all(map(torch.equal, answers, _answers(slot.eval(), tokens))):
        yield "an experience that begins must leave the weights as they are, got others"


def _begins_with(new: Tensor, old: Tensor) -> bool:
    if new.ndim != old.ndim:
        return False
    return torch.equal(new[tuple(slice(size) for size in old.shape)], old)


def _learns(make: Make) -> Iterator[str]:
    """Trains what takes part and is in its state."""
    slot = _slot(make, _MOST)
    trained = [value for value in slot.router.newest_parameters() if value.numel()]
    if any(value.grad is None for value in trained):
        yield "each of `newest_parameters` must take part in the weights, one got no gradient"
    held = list(slot.parameters())
    if not all(any(each is value for value in held) for each in trained):
        yield "`newest_parameters` must be of modules that the router keeps, got one of none"


def _state(make: Make) -> Iterator[str]:
    """Is all in its state."""
    slot, tokens = _slot(make, _MOST), _mixed()
    twin = _slot(make, 0)
    for _ in range(_MOST):
        twin.add_adapter(_source(1))
    twin.load_state_dict(copy.deepcopy(slot.state_dict()))
    twin.requires_grad_(requires_grad=False)
    if not all(map(torch.equal, _answers(slot, tokens), _answers(twin, tokens))):
        yield "a state loaded into a new router must give the same weights, got others"


def _moves(make: Make) -> Iterator[str]:
    """Keeps its tensors as parameters and buffers, which move with the slot."""
    slot, source = _slot(make, 0), _source()
    for _ in range(2):  # without an answer, which may leave something behind to save time
        _grow(slot, source)
    moved = {id(value) for value in (*slot.parameters(), *slot.buffers())}
    found = _Tensors()
    found.dump(slot.router)
    for value in found.held:
        if id(value) not in moved:
            yield (
                "tensors must be parameters or buffers of modules that are the router's "
                f"attributes, got one of shape {tuple(value.shape)} elsewhere"
            )


class _Tensors(pickle.Pickler):
    """Finds whatever tensors and arrays can be reached from an object."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.held: list[Tensor | np.ndarray] = []

    def persistent_id(self, each: object) -> str | None:
        """Says that what holds no more is stored elsewhere."""
        if isinstance(each, Tensor | np.ndarray):
            self.held.append(each)
        elif not (callable(each) and not isinstance(each, nn.Module)):
            return "generator" if isinstance(each, torch.Generator) else None
        return "kept"


def _global_state(make: Make) -> Iterator[str]:
    """Draws from the generators that it is given alone."""
    with kept_random_states():
        seed_random_states(5)  # a state that no one else would choose
        before = random_states()
        one = _slot(make, _MOST)
        _answers(one, _mixed())
        if random_states() != before:
            yield "global random states must stay as they are, got one of them changed"
    two = _slot(make, _MOST).state_dict()
    if any(not torch.equal(value, two[name]) for name, value in one.state_dict().items()):
        yield "two routers of one seed must hold the same, got others"


def _left_out(make: Make) -> Iterator[str]:
    """Gives nothing to adapters that are left out."""
    slot, tokens = _slot(make, _MOST), _mixed()
    for left_out in ({1}, {0, 2}, {0, 1, 2}):
        slot.left_out = frozenset(left_out)
        weights, mixed = _answers(slot, tokens)
        if weights[:, sorted(left_out)].any() or not bool(torch.isfinite(mixed).all()):
            yield (
                "an adapter that is left out must get a weight of 0, and mixtures stay finite, "
                f"with {sorted(left_out)} of {_MOST} left out they do not"
            )


def _refuses(make: Make) -> Iterator[str]:
    """Refuses images and adapters that it cannot know."""
    slot = _slot(make, _MOST)
    wide = torch.cat([_means(), _means()], dim=1)
    if not _raises(lambda: slot.route(wide)):
        yield f"mean tokens of width {2 * _WIDTH} for {_WIDTH} must raise an error, got weights"
    slot = _slot(make, 0)
    slot.add_adapter(_source())
    if not slot.router.asks():
        return
    if not _raises(lambda: slot.update_router(wide, 0)):
        yield f"`update` with width {2 * _WIDTH} for {_WIDTH} must raise an error, got none"
    if not slot.router.knows_experiences and not _raises(lambda: slot.update_router(_means(), 1)):
        yield "`update` must raise an error for an adapter that is not there, got none"


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:  # noqa: BLE001 - torch's own will do
        return True
    return False


ROUTER_CHECKS: Final[dict[str, Callable[[Make], Iterator[str]]]] = {
    "begins": _begins,
    "weights": _weights,
    "images": _images,
    "grows": _grows,
    "learns": _learns,
    "state": _state,
    "moves": _moves,
    "global_state": _global_state,
    "left_out": _left_out,
    "refuses": _refuses,
}
