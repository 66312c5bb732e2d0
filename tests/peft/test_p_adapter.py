"""The p-adapter against loops over its graph, and against plain attention."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.p_adapter import PAdapter, passed
from cl_adapters.vit.checks import tiny_backbone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_it_equals_a_loop_over_queries_and_values() -> None:
    shares = torch.rand(2, 3, 4, generator=seeded()).softmax(dim=-1)
    query, value = (torch.randn(2, n, 5, generator=seeded(n)) for n in (3, 4))
    query[0, 0] = value[0, 2]
    for p in (1.25, 1.75):
        found = passed(shares, query, value, p, torch.tensor(0.3))
        assert found.isfinite().all()
        for b, i in ((0, 0), (0, 2), (1, 1)):
            total, around = torch.zeros(5), 0.0
            for j in range(4):
                far = max(math.dist(query[b, i].tolist(), value[b, j].tolist()), 1e-4)
                share = float(shares[b, i, j])
                weight = share * (math.sqrt(share) * far) ** (p - 2)
                total, around = total + weight * value[b, j], around + weight
            torch.testing.assert_close(
                found[b, i], total / (around + 2 * 0.3 / p), rtol=1e-3, atol=1e-4
            )


@torch.no_grad()
def test_with_p_2_it_is_plain_attention_that_counts_less() -> None:
    shares = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    found = passed(shares, torch.zeros(2, 2), torch.eye(2), 2.0, torch.tensor(0.1))
    torch.testing.assert_close(found, shares / 1.1)


@torch.no_grad()
def test_a_network_hands_it_its_shares_queries_values_and_output() -> None:
    network, seen = tiny_backbone(), []
    images = torch.randn(2, 3, 16, 16, generator=seeded(1))

    def look(shares: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append((shares, *others))
        return torch.zeros_like(others[-1])

    assert torch.equal(network(images, AdapterSet({("attention_graph", 1): look})), network(images))
    (shares, query, value, output), layer = seen[0], network.vit.blocks[1].attn
    u = network.vit.blocks[1].norm1(network.run(network.tokens(images), 0, 1))
    torch.testing.assert_close(
        torch.cat((query, value), dim=2), layer.qkv(u)[..., [*range(32), *range(64, 96)]]
    )
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(shares.shape[:3]))
    mixed = shares @ value.unflatten(2, (2, 16)).transpose(1, 2)
    torch.testing.assert_close(
        layer.proj(mixed.transpose(1, 2).flatten(2)), output, rtol=1e-3, atol=1e-5
    )


@torch.no_grad()
def test_heads_see_their_own_part_and_the_gate_reads_the_output() -> None:
    module = PAdapter(6, 4, p=2.0, mu=0.05, generator=seeded())
    for number, each in enumerate(module.parameters()):
        each.normal_(generator=seeded(number))
    module.balance.zero_()
    shares = torch.rand(1, 2, 3, 3, generator=seeded(20)).softmax(dim=-1)
    query, value, output = (torch.randn(1, 3, 6, generator=seeded(n)) for n in (21, 22, 23))
    nodes = value[0] @ module.node.T + module.node_bias
    out = torch.cat((shares[0, 0] @ nodes[:, :2], shares[0, 1] @ nodes[:, 2:]), dim=1) / 1.1
    gate = torch.nn.functional.gelu(output[0] @ module.gate.T + module.gate_bias)
    expected = (gate * out) @ module.up.T + module.up_bias
    torch.testing.assert_close(
        module(shares, query, value, output)[0], expected, rtol=1e-4, atol=1e-4
    )


def test_parameters_and_what_does_not_fit() -> None:
    assert (
        sum(value.numel() for value in PAdapter(768, 96, generator=seeded()).parameters())
        == 222_145
    )
    for given, sentence in (
        ({"width": 0}, "`width` must be a positive integer, got 0"),
        ({"width": 2, "p": 1.0}, r"`p` must lie in \(1, 2\], got 1.0"),
        ({"width": 2, "mu": 0.0}, "`mu` must be positive, got 0.0"),
    ):
        with pytest.raises(InputError, match=sentence):
            PAdapter(8, generator=seeded(), **given)  # type: ignore[arg-type]
