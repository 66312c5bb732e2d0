"""Experts in an MLP against a loop over experts, planted clusters and the network itself."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone
from cl_adapters.vit.clusters import balanced_clusters
from cl_adapters.vit.emoe import ChosenExperts, Experts
from cl_adapters.vit.pretrained import load_backbone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_experts(text: str) -> tuple[AdaptedViT, list[Tensor]]:
    vit: Any = copy.deepcopy(tiny_backbone().vit)
    clusters = Experts.parse(text).install(vit)
    return AdaptedViT(vit), clusters


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=seeded(1))


@torch.no_grad()
def test_with_all_experts_chosen_it_is_the_network_bit_for_bit() -> None:
    plain, (expert, _) = tiny_backbone(), with_experts("4,4,0,2,3")
    module = nn.Linear(32, 96)

    def beside(inputs: Tensor, output: Tensor) -> Tensor:
        return module(inputs)[..., : output.shape[-1]] * 0.1

    for adapters in (None, AdapterSet({("fc1", 2): beside, ("fc2", 0): lambda _, y: y * 0.1})):
        assert torch.equal(plain(images(), adapters), expert(images(), adapters))
    fewer, _ = with_experts("4,2,0,2,3")
    assert (fewer(images()) - plain(images())).abs().max() > 1e-3


@torch.no_grad()
def test_a_token_is_answered_by_its_best_experts_as_in_a_loop_over_them() -> None:
    network, (clusters,) = with_experts("4,2,1")
    mlp: Any = network.vit.blocks[1].mlp
    mlp.fc1.bias.normal_(generator=seeded(2))  # which scores leave out
    mlp.fc2.bias.normal_(generator=seeded(3))
    mlp.act = ChosenExperts(nn.GELU(), clusters, mlp.fc1.bias, 2)
    tokens = torch.randn(2, 5, 32, generator=seeded(4))
    for token, found in zip(tokens.flatten(0, 1), mlp(tokens).flatten(0, 1), strict=True):
        rows = [mlp.fc1.weight[clusters == expert] for expert in range(4)]
        scores = [float(token @ each.mean(dim=0)) for each in rows]
        best = sorted(range(4), key=lambda expert: -scores[expert])[:2]
        expected = torch.zeros(32)
        for expert in best:
            mine = clusters == expert
            hidden = functional.gelu(mlp.fc1.weight[mine] @ token + mlp.fc1.bias[mine])
            expected += mlp.fc2.weight[:, mine] @ hidden + mlp.fc2.bias / 2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert int((mlp.act(mlp.fc1(token)) != 0).sum()) == 2 * len(clusters) // 4


def test_by_hand() -> None:
    rows = torch.tensor([[1.0, 0], [0.8, 0.2], [0, 1], [0.1, 0.9]])
    clusters = balanced_clusters(rows, 2)
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]
    chosen = ChosenExperts(nn.Identity(), clusters, torch.zeros(4), 1)
    hidden = torch.tensor([[[1.0, 0.2]]]) @ rows.T
    torch.testing.assert_close(chosen(hidden), torch.tensor([[[1.0, 0.84, 0, 0]]]))
    torch.testing.assert_close((hidden @ chosen.members.T).sort().values[0, 0, 1].item(), 0.92)


def test_clusters_have_one_size_are_found_again_and_are_those_that_were_planted() -> None:
    centres = torch.linalg.qr(torch.randn(16, 6, generator=seeded(5)))[0].T
    planted = torch.arange(48) % 6
    rows = centres[planted] * (1 + torch.rand(48, 1, generator=seeded(6)))
    rows = rows + 0.05 * torch.randn(48, 16, generator=seeded(7))
    found = balanced_clusters(rows, 6)
    assert torch.bincount(found).tolist() == [8] * 6
    assert len({(int(a), int(b)) for a, b in zip(planted, found, strict=True)}) == 6
    # Of one direction with twice its share, what does not fit goes elsewhere.
    crowded = torch.where(planted == 5, 0, planted)
    noise = torch.rand(len(rows), 16, generator=seeded(8))
    rows = centres[crowded] + 0.05 * noise
    assert torch.bincount(balanced_clusters(rows, 6)).tolist() == [8] * 6
    state = torch.random.get_rng_state()
    assert torch.equal(balanced_clusters(rows, 6), balanced_clusters(rows.clone(), 6))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_backbone_with_experts_is_another_one_whose_weights_are_the_same() -> None:
    given = {"weights": "random", "image_size": 32}
    plain, one, again, other = (
        load_backbone("test_vit", emoe=each, **given)  # type: ignore[arg-type]
        for each in (None, "4,2,0", "4,2,0", "4,1,0")
    )
    assert plain.name == one.name
    assert len({plain.digest, one.digest, other.digest}) == 3
    assert one.digest == again.digest
    assert plain.model.vit.state_dict().keys() == one.model.vit.state_dict().keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,2,1", "divides the MLP's width, 96, got 5"),
        ("4,2,4", "name blocks below 4, got 4"),
        ("4,5,1", "from 1 to all, and blocks, each once, such as 24,4,8,10, got '4,5,1'"),
        ("4,0,1", "got '4,0,1'"),
        ("4,2", "got '4,2'"),
        ("4,2,1,1", "got '4,2,1,1'"),
        ("4,two,1", "got '4,two,1'"),
        ("", "got ''"),
        ("4,2," + "9" * 5000, "got '4,2,999"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"`emoe` must .*{message}"):
        with_experts(text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own look at its graph
@torch.no_grad()
def test_compiled_blocks_choose_the_same_experts() -> None:
    plain, _ = with_experts("8,3,1,3")
    compiled = AdaptedViT(plain.vit, is_compiled=True)
    asked = torch.randn(64, 3, 16, 16, generator=seeded(2))
    torch.testing.assert_close(compiled(asked), plain(asked), rtol=1e-5, atol=1e-5)
    assert (plain(asked) - tiny_backbone()(asked)).abs().max() > 1e-2


def test_another_kind_of_mlp_is_refused() -> None:
    vit: Any = copy.deepcopy(tiny_backbone().vit)
    vit.blocks[1].mlp = nn.Sequential()
    with pytest.raises(InputError, match="`emoe` must split timm's plain Mlp, got Sequential"):
        Experts.parse("4,2,1").install(vit)
