"""The guard looks at once on the CPU; a GPU it asks about several batches together."""

import copy
from typing import Any

import pytest
import torch

from cl_adapters.finiteness import NotFiniteError
from cl_adapters.strategies.core.loss_guard import EXPLODED, LossGuard, Place
from cl_adapters.vit.adapted_vit import AdaptedViT

NAN = torch.tensor(torch.nan)


class Counting(LossGuard):
    """Each value that it takes is of another batch."""

    def __init__(self, device: str) -> None:
        super().__init__(
            torch.device(device), lambda: Place("experience 0", max(self.batch, 0), "; so")
        )
        self.batch = -1

    def watch(self, *given: Any, **named: Any) -> None:
        self.batch += 1
        super().watch(*given, **named)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, EXPLODED, -EXPLODED])
def test_a_loss_on_the_cpu_is_refused_at_once(value: float) -> None:
    guard = Counting("cpu")
    guard.watch("loss", torch.tensor(0.99 * EXPLODED))
    with pytest.raises(
        NotFiniteError, match="loss must stay finite .* in experience 0, batch 1; so"
    ):
        guard.watch("loss", torch.tensor(value))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("what", ["features", "outputs"])
def test_one_feature_or_output_of_many_is_refused_at_once(what, value: float) -> None:
    guard, rows = Counting("cpu"), torch.full((5, 7), 1e38)
    guard.watch(what, rows)
    rows[3, 2] = value
    with pytest.raises(NotFiniteError, match=f"{what} must be finite, got .* batch 1"):
        guard.watch(what, rows)


def test_a_gpu_is_asked_about_several_batches_and_the_first_is_named() -> None:
    guard = Counting("cuda")
    for value in (1.0, torch.nan, 2.0, torch.nan):
        guard.watch("loss", torch.tensor(value))
    with pytest.raises(NotFiniteError, match="got nan in experience 0, batch 1"):
        guard.check()
    guard.check()  # each is told once


def test_a_gpu_is_not_left_alone_for_ever_in_training_but_until_the_end_of_an_evaluation() -> None:
    guard = Counting("cuda")
    for _ in range(500):
        guard.watch("outputs", NAN, patient=True)
    with pytest.raises(NotFiniteError, match="batch 0"):
        guard.check()
    for _ in range(63):
        guard.watch("loss", NAN)
    with pytest.raises(NotFiniteError, match="batch 500"):
        guard.watch("loss", NAN)


def test_what_fails_on_a_gpu_is_told_by_its_first_cause(tiny_vit: AdaptedViT) -> None:
    guard = Counting("cuda")

    def fail() -> None:
        tiny_vit.watcher(NAN)  # type: ignore[misc] # the guard's own
        raise ValueError("a matrix is not definite")

    with (
        pytest.raises(NotFiniteError, match="features must be finite, got nan in experience 0"),
        guard.on(tiny_vit),
    ):
        fail()
    assert tiny_vit.watcher is None


def test_features_of_a_cache_are_told_where_they_were_read(tiny_vit: AdaptedViT) -> None:
    with (
        pytest.raises(
            NotFiniteError, match="features must be finite, got nan in experience 0, batch 0"
        ),
        Counting("cpu").on(tiny_vit),
    ):
        raise NotFiniteError("features must be finite, got nan")


def test_a_copy_of_a_network_that_is_watched_copies_no_strategy(tiny_vit: AdaptedViT) -> None:
    guard = Counting("cpu")
    with guard.on(tiny_vit):
        copied = copy.deepcopy(tiny_vit)
    assert copied.watcher.__self__ is guard  # type: ignore[union-attr]
    assert tiny_vit.watcher is None
