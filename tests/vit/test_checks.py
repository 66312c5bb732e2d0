"""Every kind of PEFT module and every stream passes its checks; planted offenders fail by rule."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source, digits_source
from cl_adapters.benchmarks.streams.checks import STREAM_CHECKS, check_stream
from cl_adapters.peft.registry import PEFTS, Peft, build_adapters
from cl_adapters.vit.checks import ADAPTER_CHECKS, check_adapter


@pytest.mark.parametrize("name", PEFTS)
def test_every_kind_passes_its_checks(name: str) -> None:
    assert check_adapter(PEFTS[name]) == []


class Gain(nn.Module):
    """A gain for each channel of each of some heads: what the broken ones are made from."""

    def __init__(self, embed_dim: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        build_adapters(
            "adapter", embed_dim=8, blocks=[0], size=size, generator=generator
        )  # refuses 0
        self.gain = nn.Parameter(torch.zeros(size, embed_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.gain.sum(dim=0)


class StartsElsewhere(Gain):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + 0.1


class Idle(Gain):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.unused = nn.Parameter(torch.zeros(3))


class Detached(Gain):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 0 + (inputs * 0).detach()


class Mixes(Gain):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.mean(dim=0, keepdim=True).expand_as(inputs))


class Noisy(Gain):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + 0.1 * torch.randn_like(inputs))


class Global(Gain):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.register_buffer("noise", torch.rand(3))


class Forgets(Gain):
    def forward(self, inputs: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + self.training
        return super().forward(inputs) * (1 + self.calls)


class Restless(Gain):
    # Goes by gradients that are enabled for others, not by its mode.

    def forward(self, inputs: Tensor) -> Tensor:
        scale = 1 + 0.1 * torch.rand(()) if torch.is_grad_enabled() else 1
        return super().forward(inputs) * scale


class Shown(Gain):
    # Sets itself from a gradient, outside of its state, and says nothing of it.
    slot_gain = 0.0

    @property
    def awaits_gradient(self) -> bool:
        return True

    def calibrate_by(self, gradients: dict[str, Tensor]) -> None:
        self.slot_gain = float(gradients["fc1"].abs().sum()) + float(torch.rand(()))

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        return output * (self.gain.sum() + self.slot_gain)


class TakesZero(Gain):
    def __init__(self, embed_dim: int, size: int, generator: torch.Generator) -> None:
        super().__init__(embed_dim, max(size, 1), generator)


class Half(Gain):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.gain.data = self.gain.data.bfloat16()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.gain.float().sum(dim=0)


def test_the_sound_module_that_the_broken_ones_are_made_from_passes() -> None:
    assert check_adapter(Peft("mlp", 2, Gain)) == []


OFFENDERS = [
    (StartsElsewhere, "identity", "must leave the network as it is"),
    (Idle, "learns", "every parameter must take part, but 'unused' got no gradient"),
    (Detached, "learns", "must change the features, they did not"),
    (Mixes, "pure", "must not depend on the others of its batch"),
    (Noisy, "pure", "must give the same features in eval mode"),
    (Global, "seeds", "torch's global random state must stay"),
    (Global, "seeds", "two modules from one seed must have equal weights"),
    (Forgets, "state", "a loaded state must give the same features"),
    (Restless, "frozen", "a frozen module must draw nothing"),
    (Restless, "frozen", "must give the same features while it is frozen"),
    (TakesZero, "sizes", "size 0 must be refused with InputError"),
    (Half, "bf16", "parameters must be float32"),
]


@pytest.mark.parametrize(("kind", "name", "sentence"), OFFENDERS)
def test_broken_kinds_fail_with_the_rule_that_they_break(
    kind: type[Gain], name: str, sentence: str
) -> None:
    found = check_adapter(Peft("mlp", 2, kind), checks=[name])
    assert any(re.search(sentence, each) for each in found), found


@pytest.mark.parametrize(
    "sentence",
    [
        "calibration must leave the features as they are",
        "must await none, it still does",
        "calibration changed it",
        "must hold what calibration set",
    ],
)
def test_a_kind_that_sets_itself_badly_fails_with_each_rule(sentence: str) -> None:
    found = check_adapter(Peft("fc1", 2, Shown), checks=["calibrated"])
    assert any(sentence in each for each in found), found


def test_every_check_of_kinds_has_an_offender() -> None:
    assert {name for _, name, _ in OFFENDERS} | {"calibrated"} == set(ADAPTER_CHECKS)


def test_the_built_in_stream_passes_its_checks() -> None:
    assert check_stream(digits_source) == []


def source(seed: int = 0, *, same: bool = False) -> ImageSource:
    generator = np.random.default_rng(seed)
    train, test = generator.random((2, 6, 8, 8))
    labels = [0, 1, 2] * 2
    return array_source("noise", (train, labels), (train if same else test, labels))


def unlike() -> ImageSource:
    return source(int(np.random.default_rng().integers(2**30)))


def overlapping() -> ImageSource:
    return source(same=True)


def seeding() -> ImageSource:
    np.random.seed(0)  # noqa: NPY002
    return source()


def fleeting() -> ImageSource:
    """Hands out its own array, which a reader can overwrite."""
    found = source()
    images = np.repeat(found.train.store.images[..., None], 3, axis=3)

    class Store(type(found.train.store)):  # type: ignore[misc]
        def pixels(self, row: int) -> np.ndarray:
            return images[row]

    object.__setattr__(found.train, "store", Store("noise", images))
    return found


def misnamed() -> ImageSource:
    found = source()
    object.__setattr__(found.train, "classes", ("x", "y", "z"))
    return found


STREAM_OFFENDERS: list[tuple[Callable[[], ImageSource], str, str]] = [
    (misnamed, "opens", "must name the source's classes"),
    (fleeting, "pixels", "train image 0 must be the same at each reading"),
    (unlike, "repeats", "two openings must give the same images"),
    (overlapping, "apart", "must share no image, got 6 in both, such as 0 of noise"),
    (seeding, "global_state", "global random states must stay"),
]


@pytest.mark.parametrize(("make", "name", "sentence"), STREAM_OFFENDERS)
def test_broken_streams_fail_with_the_rule_that_they_break(
    make: Callable[[], ImageSource], name: str, sentence: str
) -> None:
    found = check_stream(make, checks=[name])
    assert any(re.search(sentence, each) for each in found), found


def test_every_check_of_streams_has_an_offender() -> None:
    assert {name for _, name, _ in STREAM_OFFENDERS} == set(STREAM_CHECKS)
