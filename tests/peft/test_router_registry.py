"""Routers by name: those here, and those of a user's own file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.router import ScoreRouter
from cl_adapters.peft.router_registry import ROUTERS, find_router
from cl_adapters.peft.routing import ExpandableSlot
from cl_adapters.strategies.sema import SEMAConfig

OWN = '''
import torch
from torch import nn
from cl_adapters.peft.router import ScoreRouter


class Even(ScoreRouter):
    """All adapters alike, times a gain."""

    def __init__(self, embed_dim):
        super().__init__(embed_dim)
        self.gains = nn.ParameterList([])

    def add_adapter(self, generator):
        self.gains.append(nn.Parameter(torch.zeros(1)))

    def newest_parameters(self):
        return [self.gains[-1]]

    def scores(self, mean_tokens, count):
        return torch.stack(list(self.gains), dim=1).expand(len(mean_tokens), -1)


Half = "no class"
'''


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slot(router: str, adapters: int) -> ExpandableSlot:
    made, source = ExpandableSlot(6, 2, router=router), seeded()
    for adapter in range(adapters):
        made.add_adapter(source)
        made.update_router(torch.randn(15, 6, generator=source) + adapter, adapter)
    with torch.no_grad():
        for value in made.adapters.parameters():
            value.normal_(generator=source)
    return made


def test_a_router_of_a_file_mixes_a_slot_and_is_part_of_its_state(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN, "utf-8")
    name = f"{file}:Even"
    made = slot(SEMAConfig(watch="slots", router=name).router, 2)
    assert {key for key in made.state_dict() if "adapters." not in key} == {"gains.0", "gains.1"}
    assert sum(each is made.gains[1] for each in made.newest_parameters()) == 1
    tokens = torch.randn(3, 4, 6, generator=seeded(1))
    expected = sum(each(tokens) for each in made.adapters) / 2
    torch.testing.assert_close(made(tokens), expected)
    with pytest.raises(InputError, match=r"Half' must be a class derived from Router .*'no class'"):
        find_router(f"{file}:Half")


@pytest.mark.parametrize("name", ["discriminate", "no_such_router"])
def test_an_unknown_router_is_refused_by_the_option(name: str) -> None:
    with pytest.raises(InputError, match=f"option `router`: unknown router '{name}'"):
        SEMAConfig().override({"router": name})


def test_a_router_may_not_keep_what_a_slot_has() -> None:
    class Clash(ScoreRouter):
        def __init__(self, embed_dim: int) -> None:
            super().__init__(embed_dim)
            self.adapters = nn.Linear(embed_dim, 1)

        def add_adapter(self, generator: torch.Generator) -> None: ...

        def scores(self, mean_tokens: Tensor, count: int) -> Tensor: ...

    with pytest.raises(InputError, match="names that a slot does not have itself.*'adapters'"):
        ExpandableSlot(6, 2, router=Clash(6))


# The names under which earlier versions wrote what a slot with two adapters holds.
STORED = {
    "learned": ["columns.0.weight", "columns.0.bias", "columns.1.weight", "columns.1.bias"],
    "learned_null": [
        *("columns.0.weight", "columns.0.bias", "columns.1.weight", "columns.1.bias"),
        *("nothing.weight", "nothing.bias"),
    ],
    "discriminant": ["discriminant.sums", "discriminant.counts", "discriminant.scatter"],
    "memory": ["memories.centre", "memories.spread", "memories.memories"],
}


@pytest.mark.parametrize("name", STORED)
def test_what_is_stored_keeps_its_names_and_the_mixture_its_bits(name: str) -> None:
    made, tokens = slot(name, 2), torch.randn(4, 5, 6, generator=seeded(3))
    state = made.state_dict()
    assert [key for key in state if "adapters." not in key] == STORED[name]
    with torch.no_grad():
        means = tokens.mean(dim=1)
        if "learned" in name:
            lines = [name for name in STORED[name] if name.endswith("weight")]
            scores = torch.cat(
                [
                    nn.functional.linear(means, state[key], state[key.replace("weight", "bias")])
                    for key in lines
                ],
                dim=1,
            )
        elif name == "discriminant":
            scores = made.discriminant(means)  # type: ignore[operator]
        else:
            scores = made.memories(means)  # type: ignore[operator]
        weights = scores.softmax(dim=1)[:, :2]
        if name == "memory":
            weights = nn.functional.one_hot(scores.argmax(dim=1), 2).float()
        assert torch.equal(made.route(means), weights)
        down, up = (
            torch.cat([state[f"adapters.{k}.{part}"] for k in (0, 1)], dim=dim)
            for part, dim in (("down", 0), ("up", 1))
        )
        offsets = torch.cat([state[f"adapters.{k}.down_bias"] for k in (0, 1)])
        hidden = nn.functional.relu(nn.functional.linear(tokens, down, offsets))
        hidden = hidden * weights.repeat_interleave(2, dim=1)[:, None]
        biases = torch.stack([state[f"adapters.{k}.up_bias"] for k in (0, 1)])
        assert torch.equal(
            made(tokens), nn.functional.linear(hidden, up) + (weights @ biases)[:, None]
        )


def test_every_router_counts_what_an_adapter_adds() -> None:
    for name in ROUTERS:
        router = find_router(name)(6)
        before = sum(
            value.numel() for part in router.parts().values() for value in part.parameters()
        )
        router.add_adapter(seeded())
        after = sum(
            value.numel() for part in router.parts().values() for value in part.parameters()
        )
        assert router.cost() == after - before, name
