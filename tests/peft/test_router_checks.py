"""Every router passes its checks; planted offenders fail the one whose rule they break."""

import random
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_adapters.peft.column_routers import LearnedRouter
from cl_adapters.peft.router import Router
from cl_adapters.peft.router_checks import ROUTER_CHECKS, check_router
from cl_adapters.peft.router_registry import ROUTERS, find_router
from cl_adapters.peft.told_routers import DiscriminantRouter


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_passes_its_checks(name: str) -> None:
    assert check_router(find_router(name)) == []


class HasOne(LearnedRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.is_spare = False
        self.add_adapter(torch.Generator())
        self.is_spare = True

    def add_adapter(self, generator: torch.Generator) -> None:
        if not self.is_spare:
            super().add_adapter(generator)
        self.is_spare = False


class HasAGroup(DiscriminantRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.discriminant.add_classes([0])
        self.groups = 0

    def add_adapter(self, generator: torch.Generator) -> None:
        del generator
        self.discriminant.add_classes([self.groups])
        self.groups += 1


class Doubles(LearnedRouter):
    def weights(self, scores: Tensor, count: int) -> Tensor:
        return 2 * super().weights(scores, count)


class Negative(LearnedRouter):
    def weights(self, scores: Tensor, count: int) -> Tensor:
        return super().weights(scores, count) - 0.9 * (scores > -torch.inf)


class Overflows(LearnedRouter):
    def weights(self, scores: Tensor, count: int) -> Tensor:
        return scores.exp() / scores.exp().sum(dim=1, keepdim=True)


class Sums(LearnedRouter):
    def shares(self, portions: Tensor) -> Tensor:
        return portions.sum(dim=1, keepdim=True)


class Compares(LearnedRouter):
    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(mean_tokens - mean_tokens.mean(dim=0), count)


class Tires(LearnedRouter):
    answered = 1

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        self.answered += 1
        return super().scores(mean_tokens, count) / self.answered


class Shrinks(LearnedRouter):
    def add_adapter(self, generator: torch.Generator) -> None:
        for column in self.columns:
            column.weight.data *= 0.9
        super().add_adapter(generator)


class Free(LearnedRouter):
    def cost(self) -> int:
        return 0


class TrainsAll(LearnedRouter):
    def newest_parameters(self) -> list[nn.Parameter]:
        return list(self.columns.parameters())


class BeginsAnew(LearnedRouter):
    def begin_experience(self, generator: torch.Generator) -> None:
        self.columns[0].weight.data.normal_(generator=generator)


class Idle(LearnedRouter):
    def add_adapter(self, generator: torch.Generator) -> None:
        super().add_adapter(generator)
        self.columns[-1].register_parameter("spare", nn.Parameter(torch.zeros(1)))


class Elsewhere(LearnedRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.gains: list[nn.Parameter] = []

    def add_adapter(self, generator: torch.Generator) -> None:
        super().add_adapter(generator)
        self.gains.append(nn.Parameter(torch.ones(1)))

    def newest_parameters(self) -> list[nn.Parameter]:
        return [*super().newest_parameters(), *self.gains[-1:]]

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(mean_tokens, count) * torch.cat(list(self.gains))


class Forgets(DiscriminantRouter):
    told = 0

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        super().update(mean_tokens, adapter)
        self.told += len(mean_tokens)

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(mean_tokens, count) * (1 + self.told)


class Stays(LearnedRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.constants = {"scale": torch.full((embed_dim,), 0.5)}

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(mean_tokens * self.constants["scale"], count)


class StaysInAList(LearnedRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.norms = [nn.LayerNorm(embed_dim)]

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(self.norms[0](mean_tokens), count)


class StaysInNumpy(LearnedRouter):
    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.scale = np.ones(embed_dim, dtype=np.float32)


class Draws(LearnedRouter):
    def add_adapter(self, generator: torch.Generator) -> None:
        torch.rand(1)
        super().add_adapter(generator)


class DrawsFromNumpy(LearnedRouter):
    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().scores(mean_tokens, count)


class DrawsFromPython(LearnedRouter):
    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        random.random()
        return super().scores(mean_tokens, count)


class Unseeded(LearnedRouter):
    def add_adapter(self, generator: torch.Generator) -> None:
        super().add_adapter(generator)
        self.columns[-1].bias.data += np.random.default_rng().random()


class KeepsAll(LearnedRouter):
    def route(
        self, mean_tokens: Tensor, count: int, left_out: Collection[int] = frozenset()
    ) -> Tensor:
        del left_out
        return super().route(mean_tokens, count)


class Cuts(LearnedRouter):
    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        return super().scores(mean_tokens[:, : self.embed_dim], count)


class CutsWhatItIsTold(DiscriminantRouter):
    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        super().update(mean_tokens[:, : self.embed_dim], adapter)


class Passes(DiscriminantRouter):
    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        if adapter < len(self.discriminant.counts):
            super().update(mean_tokens, adapter)


OFFENDERS: list[tuple[type[Router], str, str]] = [
    (HasOne, "begins", "a router without an adapter must train nothing"),
    (HasOne, "begins", "must add to the state what the second adds, got 0 and 9 numbers"),
    (HasAGroup, "begins", "must add to the state what the second adds, got 0 and 9 numbers"),
    (Doubles, "weights", "sum to at most 1, got a weight of .* and a sum of 2$"),
    (Negative, "weights", r"must be in \[0, 1\].*, got a weight of -0\.\d+ and"),
    (Overflows, "weights", "finite for images a thousand times as large"),
    (Compares, "images", "must not depend on the others of its batch"),
    (Shrinks, "grows", "must leave the state of earlier ones, got another 'columns.0.weight'"),
    (Free, "grows", "`cost` must be the parameters that an adapter adds, got 0 for 9"),
    (TrainsAll, "grows", "must be the newest adapter's, got those of earlier ones too"),
    (BeginsAnew, "grows", "an experience that begins must leave the weights as they are"),
    (Idle, "learns", "must take part in the weights, one got no gradient"),
    (Forgets, "state", "loaded into a new router must give the same weights"),
    (Stays, "moves", r"must be parameters or buffers .*, got one of shape \(8,\) elsewhere"),
    (StaysInAList, "moves", r"must be parameters or buffers .*, got one of shape \(8,\) elsewhere"),
    (StaysInNumpy, "moves", r"must be parameters or buffers .*, got one of shape \(8,\) elsewhere"),
    (Draws, "global_state", "global random states must stay"),
    (DrawsFromNumpy, "global_state", "global random states must stay"),
    (DrawsFromPython, "global_state", "global random states must stay"),
    (Unseeded, "global_state", "two routers of one seed must hold the same"),
    (KeepsAll, "left_out", r"must get a weight of 0.*, with \[1\] of 3 left out they do not"),
    (Cuts, "refuses", "mean tokens of width 16 for 8 must raise an error, got weights"),
    (CutsWhatItIsTold, "refuses", "`update` with width 16 for 8 must raise an error, got none"),
    (Passes, "refuses", "`update` must raise an error for an adapter that is not there"),
]


@pytest.mark.parametrize(("kind", "name", "sentence"), OFFENDERS)
def test_a_router_that_breaks_one_rule_fails_its_check_alone(
    kind: type[Router], name: str, sentence: str
) -> None:
    found = check_router(kind)
    assert {line.partition(": ")[0] for line in found} == {name}, found
    assert any(re.search(sentence, each) for each in found), found


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        (Sums, "weights", r"of 2 adapters must have shape \(24, 2\), got \(24, 1\)"),
        (Tires, "images", "must get the same weights, got others at the second time"),
        (Elsewhere, "learns", "must be of modules that the router keeps, got one of none"),
    ],
)
def test_what_breaks_several_rules_is_told_of_each(kind: Any, name: str, sentence: str) -> None:
    found = check_router(kind, checks=[name])
    assert any(re.search(sentence, each) for each in found), found


def test_every_check_of_routers_has_an_offender() -> None:
    assert {name for _, name, _ in OFFENDERS} == set(ROUTER_CHECKS)
