"""What leaves the network: normed tokens, features under several sets, passes counted."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.registry import build_adapters
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.calibration import calibrate


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def adapters(blocks: Sequence[int], seed: int, name: str = "adapter") -> AdapterSet:
    draws = torch.Generator().manual_seed(seed)
    built = build_adapters(name, embed_dim=64, blocks=blocks, generator=draws)
    with torch.no_grad():
        for value in built.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=draws))
    return built


def test_normed_tokens_are_timms_and_are_pooled_to_the_features(tiny_vit: AdaptedViT) -> None:
    tokens = tiny_vit.run(tiny_vit.tokens(images()))
    normed = tiny_vit.normed(tokens)
    assert torch.equal(normed, tiny_vit.vit.forward_features(images()))
    assert torch.equal(tiny_vit.features(tokens), tiny_vit.vit.forward_head(normed, True))


def test_passes_are_counted_in_one_place(tiny_vit: AdaptedViT) -> None:
    tokens = tiny_vit.run(tiny_vit.tokens(images()))
    tiny_vit.normed(tokens)
    tiny_vit.features(tokens)
    assert tiny_vit.num_passes == 8
    tiny_vit.count_passes(5)
    assert tiny_vit.num_passes == 13
    tiny_vit.features_of(images(), [adapters([0], 1), adapters([1], 2)])
    assert tiny_vit.num_passes == 21


@pytest.mark.parametrize(
    "ranges", [[(0, 1, 2)], [(1, 2), (1, 2)], [(2, 3), (1, 4), (3,)], [(), (3, 4)], [(), ()]]
)
def test_features_under_several_sets_equal_whole_passes(
    tiny_vit: AdaptedViT, ranges: list[tuple[int, ...]]
) -> None:
    sets = [adapters(blocks, seed) for seed, blocks in enumerate(ranges)]
    found = tiny_vit.features_of(images(), sets)
    expected = torch.cat([tiny_vit(images(), each) for each in sets])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_lies_before_the_first_filled_slot_is_computed_once(tiny_vit: AdaptedViT) -> None:
    calls: list[tuple[int, int]] = []
    for index, block in enumerate(tiny_vit.vit.blocks):
        block.norm1.register_forward_hook(
            lambda _, inputs, __, index=index: calls.append((index, len(inputs[0])))
        )
    tiny_vit.features_of(images(), [adapters([2, 3], 0), adapters([3], 1), adapters([2, 4], 2)])
    expected = {0: [4], 1: [4], 2: [4] * 3, 3: [4] * 3, 4: [4] * 3, 5: [12]}
    found = {block: [count for index, count in calls if index == block] for block in range(6)}
    assert found == expected


class Tokens(nn.Module):
    is_kept = True

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.ones(count, 64))

    def forward(self) -> Tensor:
        return self.rows


def test_sets_that_keep_learned_tokens_stand_beside_those_that_do_not(
    tiny_vit: AdaptedViT,
) -> None:
    sets = [AdapterSet({("tokens", 1): Tokens(3)}), adapters([1, 2], 0), AdapterSet({})]
    found = tiny_vit.features_of(images(), sets)
    expected = torch.cat([tiny_vit(images(), each) for each in sets])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_features_under_no_set_are_refused(tiny_vit: AdaptedViT) -> None:
    with pytest.raises(InputError, match="at least one set, got none"):
        tiny_vit.features_of(images(), [])


class Whitener(nn.Module):
    """Takes the strongest direction of what enters its slot as its frozen down-projection."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(64, 1))
        self.register_buffer("down", torch.zeros(1, 64))
        self.moment = torch.zeros(64, 64)
        self.count = 0

    def observe(self, *inputs: Tensor) -> None:
        rows = inputs[0].flatten(0, 1)
        self.moment += rows.T @ rows
        self.count += len(rows)

    def calibrate(self) -> None:
        self.down = torch.linalg.eigh(self.moment / self.count).eigenvectors[:, -1:].T
        self.moment = torch.zeros(64, 64)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.down.T @ self.up.T


def test_a_calibration_pass_shows_modules_what_enters_their_slots(tiny_vit: AdaptedViT) -> None:
    plain = adapters([0], 0)
    filled = AdapterSet(
        {
            ("attention", 0): plain.at("attention", 0),
            ("attention", 2): Whitener(),
            ("mlp", 2): Whitener(),
        }  # type: ignore[dict-item]
    )
    batches = [images(4), images(4).flip(0)[:3]]
    calibrate(tiny_vit, filled, batches)
    rows: dict[str, list[Tensor]] = {"attention": [], "mlp": []}
    with torch.no_grad():
        for batch in batches:
            stream = tiny_vit.run(tiny_vit.tokens(batch), 0, 2, adapters=plain)
            block = tiny_vit.vit.blocks[2]
            normed = block.norm1(stream)
            rows["attention"].append(normed.flatten(0, 1))
            rows["mlp"].append((stream + block.attn(normed)).flatten(0, 1))
    for slot, each in rows.items():
        seen = torch.cat(each).numpy()
        direction = torch.linalg.svd(torch.from_numpy(seen)).Vh[0]
        found = filled.at(slot, 2).down[0]  # type: ignore[arg-type, union-attr, index]
        assert abs(float(direction @ found)) == pytest.approx(1, abs=1e-4)  # up to its sign
    assert tiny_vit.num_passes == 0
    assert not filled.at("mlp", 2)._forward_pre_hooks  # type: ignore[union-attr]


def test_a_set_that_asks_for_nothing_is_shown_nothing(tiny_vit: AdaptedViT) -> None:
    def none() -> Tensor:
        raise AssertionError("no batch is to be read")

    calibrate(tiny_vit, adapters([0], 0), (none() for _ in range(1)))
