"""What every kind of PEFT module must satisfy, as named checks: for those here and for others.

    check_adapter(find_peft("my_adapter.py:MyAdapter"))    a sentence for each rule that is broken

In a test, one check a case:

    @pytest.mark.parametrize("name", ADAPTER_CHECKS)
    def test_my_adapter_is_sound(name: str) -> None:
        assert check_adapter(find_peft("my_adapter.py:MyAdapter"), checks=[name]) == []
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import timm
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.frozen import eval_frozen
from cl_adapters.peft.noise import hand_out
from cl_adapters.peft.registry import Peft
from cl_adapters.plugins.conformance import run_suite
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.calibration import Calibrated, calibrate
from cl_adapters.vit.site_gradients import (
    GradientCalibrated,
    awaiting_gradients,
    calibrate_by_gradient,
)

__all__ = ["ADAPTER_CHECKS", "check_adapter", "tiny_backbone"]

_STEPS: Final = 5
_CLOSE: Final = 1e-4  # of features of order one, when the same image stands in another batch


def tiny_backbone() -> AdaptedViT:
    """Returns a frozen ViT of four blocks and width 32 for 16 pixels, random but fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model(
            "test_vit",
            num_classes=0,
            img_size=16,
            patch_size=4,
            embed_dim=32,
            depth=4,
            num_heads=2,
        )
    return AdaptedViT(vit)


def check_adapter(peft: Peft, *, checks: Iterable[str] | None = None) -> list[str]:
    """Tests a PEFT module from outside, in a tiny frozen ViT.

    Args:
        peft: What `cl_adapters.peft.registry.find_peft` returns.
        checks: Names of the checks; None runs all.

    Returns:
        A sentence for each rule that is broken, headed by the name of its check.

    Raises:
        InputError: If a check is unknown.

    Example:
        >>> from cl_adapters.peft.registry import find_peft
        >>> check_adapter(find_peft("lora"))
        []
    """
    return run_suite(ADAPTER_CHECKS, peft, checks)


def _build(peft: Peft, seed: int = 0, size: int | None = None) -> AdapterSet:
    generator, network = torch.Generator().manual_seed(seed), tiny_backbone()
    blocks = (0, 2)
    modules = peft.build_all(32, size, generator, blocks=blocks, site_of=network.site)
    return AdapterSet(
        {(peft.slot, block): each for block, each in zip(blocks, modules, strict=True)}
    )


def _images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def _learn(network: AdaptedViT, adapters: AdapterSet) -> None:
    """Moves the features of some images apart."""
    images, signs = _images(), torch.tensor([1.0, -1.0] * 3)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(2))
    parameters = [value for value in adapters.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = -(network(images, adapters) @ direction * signs).mean()
        loss.backward()
        optimizer.step()


def _identity(peft: Peft) -> Iterator[str]:
    """Changes nothing before it has learned something; what is attended to may."""
    network, images = tiny_backbone(), _images()
    with torch.no_grad():
        bare, adapted = network(images), network(images, _build(peft))
    if adapted.shape != bare.shape or not bool(torch.isfinite(adapted).all()):
        yield f"features must stay finite and of shape {tuple(bare.shape)}, got something else"
    elif {"prefix", "tokens"}.isdisjoint(peft.slots) and not torch.equal(adapted, bare):
        yield "a new module must leave the network as it is, got other features"


def _learns(peft: Peft) -> Iterator[str]:
    """Learns, and gives its gradients to itself alone."""
    network, adapters = tiny_backbone(), _build(peft)
    parameters = dict(adapters.named_parameters())
    if not parameters:
        yield "a module must have parameters, got none"
        return
    before = network(_images(), adapters).detach()
    _learn(network, adapters)
    idle = [name for name, value in parameters.items() if value.grad is None]
    if idle:
        yield f"every parameter must take part, but {idle[0].rpartition('.')[2]!r} got no gradient"
    if any(value.grad is not None for value in network.parameters()):
        yield "the network must get no gradient, got one"
    if torch.equal(before, network(_images(), adapters).detach()):
        yield f"{_STEPS} steps of gradient descent must change the features, they did not"


def _pure(peft: Peft) -> Iterator[str]:
    """Treats each image alone, and the same each time."""
    network, adapters = tiny_backbone(), _build(peft)
    _learn(network, adapters)
    adapters.eval()
    images = _images()
    with torch.no_grad():
        together, again = network(images, adapters), network(images, adapters)
        alone = torch.cat([network(image[None], adapters) for image in images])
    if not torch.equal(together, again):
        yield "the same images must give the same features in eval mode, got others"
    if not torch.allclose(together, alone, atol=_CLOSE, rtol=_CLOSE):
        yield "an image's features must not depend on the others of its batch, but they do"


def _seeds(peft: Peft) -> Iterator[str]:
    """Draws its weights from the generator that it is given."""
    before = torch.random.get_rng_state()
    one, two = _build(peft).state_dict(), _build(peft).state_dict()
    if not torch.equal(before, torch.random.get_rng_state()):
        yield "torch's global random state must stay as it is, a new module changed it"
    if any(not torch.equal(value, two[name]) for name, value in one.items()):
        yield "two modules from one seed must have equal weights, got others"


def _state(peft: Peft) -> Iterator[str]:
    """Is all in its state."""
    network, adapters = tiny_backbone(), _build(peft)
    _learn(network, adapters)
    twin = _build(peft, seed=1)
    twin.load_state_dict(copy.deepcopy(adapters.state_dict()))
    with torch.no_grad():
        same = torch.equal(network(_images(), adapters.eval()), network(_images(), twin.eval()))
    if not same:
        yield "a loaded state must give the same features, got others"


def _calibrated(peft: Peft) -> Iterator[str]:
    """Sets itself from images once, in its state, and moves the features only if it says so."""
    network, adapters, images = tiny_backbone(), _build(peft), _images()
    if not any(isinstance(each, Calibrated | GradientCalibrated) for each in adapters.modules()):
        return
    before = torch.random.get_rng_state()
    bare = network(images, adapters.eval()).detach()
    moves = any(getattr(each, "moves_on_calibration", False) for each in adapters.modules())
    calibrate_by_gradient(network, [adapters], [(images, torch.tensor([0, 1] * 3))])
    calibrate(network, adapters, [images])
    found = network(images, adapters).detach()
    if not bool(torch.isfinite(found).all()):
        yield "a calibrated module must give finite features, got others"
    elif not moves and not torch.allclose(bare, found, atol=_CLOSE, rtol=_CLOSE):
        yield "calibration must leave the features as they are, unless `moves_on_calibration`"
    if any(True for _ in awaiting_gradients(adapters)):
        yield "a module that has seen a gradient must await none, it still does"
    if not torch.equal(before, torch.random.get_rng_state()):
        yield "torch's global random state must stay as it is, calibration changed it"
    twin = _build(peft, seed=1).eval()
    twin.load_state_dict(copy.deepcopy(adapters.state_dict()))
    if not torch.equal(found, network(images, twin).detach()):
        yield "a loaded state must hold what calibration set, got other features"


def _frozen(peft: Peft) -> Iterator[str]:
    """Draws nothing while it is frozen, whatever the network around it does."""
    network, adapters = tiny_backbone(), _build(peft)
    _learn(network, adapters)
    adapters.requires_grad_(requires_grad=False)
    adapters.train()
    eval_frozen(adapters)
    noise = torch.Generator().manual_seed(3)
    hand_out(adapters, noise)
    before = torch.random.get_rng_state(), noise.get_state()
    first, second = (network(_images(), adapters).detach() for _ in range(2))
    if not all(map(torch.equal, before, (torch.random.get_rng_state(), noise.get_state()))):
        yield "a frozen module must draw nothing, got a draw"
    if not torch.equal(first, second):
        yield "the same images must give the same features while it is frozen, got others"


def _sizes(peft: Peft) -> Iterator[str]:
    """Takes any positive size and no other."""
    counts = [sum(value.numel() for value in _build(peft, size=s).parameters()) for s in (1, 3)]
    if counts[0] > counts[1]:
        yield f"a larger size must not have fewer parameters, got {counts[0]} and {counts[1]}"
    try:
        _build(peft, size=0)
    except InputError:
        return
    yield "size 0 must be refused with InputError, got a module"


def _bf16(peft: Peft) -> Iterator[str]:
    """Computes in bfloat16 on the CPU."""
    network, adapters = tiny_backbone(), _build(peft)
    _learn(network, adapters)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(_images(), adapters)
    if not bool(torch.isfinite(features).all()):
        yield "features must be finite under bf16, got NaN or infinity"
    if any(value.dtype != torch.float32 for value in adapters.parameters()):
        yield "parameters must be float32, got another type"


ADAPTER_CHECKS: Final[dict[str, Callable[[Peft], Iterator[str]]]] = {
    "identity": _identity,
    "learns": _learns,
    "pure": _pure,
    "seeds": _seeds,
    "state": _state,
    "calibrated": _calibrated,
    "frozen": _frozen,
    "sizes": _sizes,
    "bf16": _bf16,
}
