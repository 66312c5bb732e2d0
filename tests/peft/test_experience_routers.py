"""Routers that keep something of each experience, against loops over images and adapters."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.experience_router import ExperienceRouter
from cl_adapters.peft.mixing import Output, mix_outputs, mix_parameters
from cl_adapters.peft.poly import PolyRouter
from cl_adapters.peft.registry import PEFTS
from cl_adapters.peft.router_registry import build_router, find_router
from cl_adapters.peft.routing import ExpandableSlot, SlotRecord
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.sema import SEMAConfig

DIM = 6
SCALES = ("scalearn", "scalearn_uniform", "scalearn_shared", "scalearn_uniform_shared")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, DIM, generator=seeded(seed))


def own(slot: ExpandableSlot) -> ExperienceRouter:
    assert isinstance(slot.router, ExperienceRouter)
    return slot.router


def grown(
    name: str, adapters: Sequence[int], peft: str = "parallel", splits: int = 1
) -> ExpandableSlot:
    """A slot after experiences, each with its number of adapters, that look apart."""
    router = build_router(name, DIM, {"splits": splits})
    slot, source = ExpandableSlot(DIM, 2, router=router, peft=PEFTS[peft]), seeded()
    slot.add_adapter(source)
    for experience, (before, now) in enumerate(pairwise([1, *adapters])):
        if experience:
            router.begin_experience(source)
        for _ in range(now - before):
            slot.add_adapter(source)
        slot.update_router(torch.randn(40, DIM, generator=source) + experience, 0)
        with torch.no_grad():
            own(slot).rows.row.normal_(generator=source)
    with torch.no_grad():
        for value in slot.adapters.parameters():
            value.normal_(generator=source)
    return slot.eval()


def sigmoids(row: Tensor) -> Tensor:
    gates = 1 / (1 + (-row).exp())
    return gates / gates.sum(dim=-1, keepdim=True)


@torch.no_grad()
def expected_rows(slot: ExpandableSlot, rows: list[Tensor], image: Tensor) -> Tensor:
    """The rows of all experiences, (A, K), by the posterior that plain arithmetic gives."""
    finder = own(slot).finder
    means = finder.sums / finder.counts[:, None]
    inverse = torch.linalg.inv(finder.covariance)
    apart = [image.mean(dim=0).double() - mean for mean in means]
    likely = torch.stack([-each @ inverse @ each / 2 for each in apart]).softmax(dim=0)
    count = len(slot.adapters)
    filled = [functional.pad(row, (0, count - row.shape[1])) for row in rows]
    return sum(float(share) * row for share, row in zip(likely, filled, strict=True))  # type: ignore[return-value] # a tensor


def rows_of(slot: ExpandableSlot) -> list[Tensor]:
    router = own(slot)
    return [*router.rows.kept, router.weigh(router.rows.row)]


@torch.no_grad()
def test_poly_mixes_parameters_by_the_weights_of_the_likely_experiences() -> None:
    slot, images = grown("poly", [1, 3]), tokens(6) + torch.linspace(0, 1, 6)[:, None, None]
    torch.testing.assert_close(rows_of(slot)[1], sigmoids(own(slot).rows.row))
    records: list[SlotRecord] = []
    found = slot(images, records.append)
    for image, output, weights in zip(images, found, records[0].weights, strict=True):
        shares = expected_rows(slot, rows_of(slot), image)[0]
        torch.testing.assert_close(weights, shares)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
        down, down_bias, up, up_bias = (
            sum(shares[k] * getattr(each, name) for k, each in enumerate(slot.adapters))
            for name in ("down", "down_bias", "up", "up_bias")
        )
        hidden = (image @ down.T + down_bias).clamp_min(0)
        torch.testing.assert_close(output, hidden @ up.T + up_bias, rtol=1e-4, atol=1e-5)
    assert len({round(float(each[0]), 3) for each in records[0].weights}) > 3, "images differ"


@torch.no_grad()
def test_an_adapter_with_all_of_the_weight_is_that_adapter_bit_for_bit() -> None:
    slot = grown("poly", [3])
    own(slot).rows.row.copy_(torch.tensor([[-torch.inf, 0.5, -torch.inf]]))
    assert torch.equal(slot(tokens()), slot.adapters[1](tokens()))
    assert slot.route(tokens().mean(dim=1)).tolist() == [[0.0, 1.0, 0.0]] * 4


@torch.no_grad()
@pytest.mark.parametrize("peft", ["parallel", "lora"])
def test_splits_cut_what_is_read_and_what_is_written(peft: str) -> None:
    slot, plain = grown("poly", [2], peft, splits=3), grown("poly", [2], peft)
    plain.adapters.load_state_dict(slot.adapters.state_dict())
    own(slot).rows.row.copy_(own(plain).rows.row.expand(3, 2))
    for found, same in zip(slot(tokens()), plain(tokens()), strict=True):
        torch.testing.assert_close(found, same)  # equal weights are Poly
    row = torch.tensor([[0.0, -torch.inf], [0.3, 0.1], [-torch.inf, 0.0]])
    own(slot).rows.row.copy_(row)
    shares, mixed = sigmoids(row), {}
    for name, value in slot.adapters[0].named_parameters():
        values, cut = [dict(each.named_parameters())[name] for each in slot.adapters], None
        cut = {"down": 1, "up": 0, "up_bias": 0}.get(
            name.split("_", 1)[-1] if peft == "lora" else name
        )
        parts = range(3) if cut is not None else [None]
        pieces = []
        for part in parts:
            weights = shares.mean(dim=0) if part is None else shares[part]
            chosen = [each if part is None else each.chunk(3, dim=cut)[part] for each in values]
            pieces.append(weights[0] * chosen[0] + weights[1] * chosen[1])
        mixed[name] = pieces[0] if cut is None else torch.cat(pieces, dim=cut)
        assert mixed[name].shape == value.shape
    expected = torch.func.functional_call(slot.adapters[0], mixed, (tokens(),))
    for found, same in zip(slot(tokens()), expected, strict=True):
        torch.testing.assert_close(found, same)


@torch.no_grad()
def test_mixing_parameters_is_mixing_outputs_where_adapters_are_equal_and_not_else() -> None:
    slot, weights = grown("poly", [2]), torch.tensor([[0.3, 0.7]])
    pair = list(slot.adapters)
    apart = mix_parameters(pair, tokens(), weights[:, None]) - mix_outputs(
        pair, tokens(), weights.expand(4, 2)
    )
    assert apart.abs().max() > 0.05
    pair[1].load_state_dict(pair[0].state_dict())
    torch.testing.assert_close(
        mix_parameters(pair, tokens(), weights[:, None]),
        mix_outputs(pair, tokens(), weights.expand(4, 2)),
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["adapter", "lora", "miss", "dylora", "onebit", "compander"])
def test_one_image_s_answer_does_not_depend_on_the_batch(name: str) -> None:
    slot = grown("poly", [1, 2], name)
    whole, one = slot(tokens()), slot(tokens()[2:3])
    for found, alone in zip(_each(whole), _each(one), strict=True):
        torch.testing.assert_close(found[2:3], alone)
        assert (found[2:3] - found[3:4]).abs().max() > 0.01


def _each(output: Output) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def test_training_sees_the_newest_row_alone_and_changes_no_earlier_one() -> None:
    slot = grown("poly", [1, 2])
    slot.requires_grad_(False)
    for value in slot.newest_parameters():
        value.requires_grad = True
    slot.train()
    before = own(slot).rows.kept.clone()
    records: list[SlotRecord] = []
    slot(tokens(), records.append).square().sum().backward()
    torch.testing.assert_close(records[0].weights[0], sigmoids(own(slot).rows.row.detach())[0])
    assert own(slot).rows.row.grad.abs().min() > 0  # type: ignore[union-attr]
    trained = {name for name, value in slot.named_parameters() if value.grad is not None}
    parts = ("down", "down_bias", "up", "up_bias")
    assert trained == {"rows.row", *(f"adapters.1.{part}" for part in parts)}
    assert torch.equal(own(slot).rows.kept, before)
    assert before[0].tolist() == [[1.0]], "one adapter has all of the weight"


@torch.no_grad()
@pytest.mark.parametrize("name", SCALES)
def test_scalearn_sums_outputs_times_the_scales_of_the_likely_experiences(name: str) -> None:
    slot, images = grown(name, [2, 3], "lora"), tokens(5) + torch.linspace(0, 1, 5)[:, None, None]
    entries = 1 if "uniform" in name else DIM
    assert own(slot).rows.row.shape == (entries, 3)
    assert own(slot).rows.kept.shape == (1, entries, 2)
    outputs = [adapter(images) for adapter in slot.adapters]
    found = slot(images)
    for number, image in enumerate(images):
        scales = expected_rows(slot, rows_of(slot), image)
        for part in range(2):
            same = sum(scales[:, k] * outputs[k][part][number] for k in range(3))
            torch.testing.assert_close(found[part][number], same, rtol=1e-4, atol=1e-5)
    weights = slot.route(images.mean(dim=1))
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))


@torch.no_grad()
def test_scales_begin_at_twice_the_mean_and_training_drops_three_in_ten() -> None:
    router = build_router("scalearn", 500)
    assert isinstance(router, ExperienceRouter)
    for _ in range(4):
        router.add_adapter(seeded(4))
    row = router.rows.row
    assert abs(float(row.mean()) - 0.5) < 3e-4
    assert 0.0009 < float(row.std()) < 0.0011
    outputs = [torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]])]
    small = build_router("scalearn_uniform", 2)
    assert small.mix(
        [Fixed(each) for each in outputs], outputs[0], torch.ones(1, 1, 2)
    ).tolist() == [[[4.0, 6.0]]]
    router.rows.noise = seeded(5)
    with torch.enable_grad():
        dropped = router.weigh(router.rows.row).detach()
    assert 0.27 < float((dropped == 0).double().mean()) < 0.33
    torch.testing.assert_close(dropped[dropped != 0], (row / 0.7)[dropped != 0])
    assert torch.equal(router.weigh(router.rows.row), row), "without gradients nothing is drawn"
    router.rows.eval()
    with torch.enable_grad():
        assert torch.equal(router.weigh(router.rows.row), row)


class Fixed(nn.Module):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output.expand(len(inputs), -1, -1)


def test_the_four_forms_hold_as_many_numbers_as_the_paper_counts() -> None:
    blocks, adapters, counts = 3, 4, {}
    for name in SCALES:
        routers = [build_router(name, DIM) for _ in range(blocks)]
        for each in routers[1:]:
            each.share(routers[0])
        for each in routers:
            for _ in range(adapters):
                each.add_adapter(seeded())
        parts = [part for each in routers for part in each.parts().values()]
        counts[name] = sum(value.numel() for part in parts for value in part.parameters())
        assert sum(each.cost() for each in routers) * adapters == counts[name]
    assert counts == dict(zip(SCALES, (blocks * 4 * DIM, blocks * 4, 4 * DIM, 4), strict=True))


@torch.no_grad()
def test_blocks_that_share_scales_compute_with_the_first_one_s() -> None:
    first, second = (build_router("scalearn_shared", DIM) for _ in range(2))
    second.share(first)
    slots = [ExpandableSlot(DIM, 2, router=each) for each in (first, second)]
    for slot in slots:
        for _ in range(2):
            slot.add_adapter(seeded())
        for value in slot.adapters.parameters():
            value.normal_(generator=seeded(3))
        slot.eval()
    assert not [name for name in slots[1].state_dict() if name.startswith("rows")]
    own(slots[0]).rows.row.copy_(torch.tensor([[1.0, 0.0]]).expand(DIM, 2))
    assert torch.equal(slots[1](tokens()), slots[1].adapters[0](tokens()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["poly", "scalearn"])
def test_what_is_left_out_adds_nothing_and_strangers_stand_in_evenly(name: str) -> None:
    slot = grown(name, [2, 3])
    slot.left_out = frozenset({0})
    shares = slot.route(tokens().mean(dim=1))
    assert not shares[:, 0].any()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    # Experience 0, alone, does not know adapter 2.
    slot = grown(name, [2])
    slot.add_adapter(seeded(6))
    own(slot).rows.row[:, 2] = -torch.inf if name == "poly" else 0.0
    slot.left_out = frozenset({0, 1})
    torch.testing.assert_close(slot(tokens()), slot.adapters[2](tokens()))
    slot.left_out = frozenset({0, 1, 2})
    assert not slot(tokens()).any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["poly", *SCALES])
def test_the_state_brings_all_experiences_back(name: str) -> None:
    slot, twin = grown(name, [1, 2, 3]), grown(name, [3])
    twin.load_state_dict(slot.state_dict())
    assert torch.equal(twin(tokens()), slot(tokens()))
    assert {key.split(".")[0] for key in slot.state_dict()} == {"adapters", "rows", "finder"}


def test_what_makes_no_sense_is_refused() -> None:
    slot = ExpandableSlot(DIM, 2, router="poly")
    slot.add_adapter(seeded())
    slot.router.begin_experience(seeded())
    slot.eval()
    with pytest.raises(InputError, match="must be told which images .* got none of 2 experiences"):
        slot(tokens())
    with pytest.raises(InputError, match="`router_splits` must divide .* 6, got 4"):
        build_router("poly", DIM, {"splits": 4})
    with pytest.raises(InputError, match="`router_splits` must stay at 1 .*, got 2 with MiSS"):
        ExpandableSlot(DIM, 2, router=PolyRouter(DIM, splits=2), peft=PEFTS["miss"])
    with pytest.raises(InputError, match="parameters alone, .* got MoSA with its own '.*' each"):
        ExpandableSlot(DIM, 4, router="poly", peft=PEFTS["mosa"])
    slots = {"watch": "slots"}
    with pytest.raises(InputError, match="`router_splits` must stay at 1 with router 'scalearn'"):
        SEMAConfig().override({**slots, "router": "scalearn", "router_splits": 2})
    with pytest.raises(InputError, match="`policy` must not be per_block with router 'scalearn_s"):
        SEMAConfig().override({**slots, "router": "scalearn_shared"})
    shared = {**slots, "router": "scalearn_shared", "policy": "whole_network"}
    assert SEMAConfig().override(shared).router == "scalearn_shared"
    for name in ("poly", "learned"):
        with pytest.raises(InputError, match=f"`watch` must be slots with router '{name}'"):
            SEMAConfig().override({"router": name})
    assert find_router("poly") is PolyRouter


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poly", *SCALES])
def test_a_method_with_the_router_is_sound(name: str) -> None:
    options = {"watch": "slots", "router": name, "policy": "every_experience"}
    checks = ["answers", "backbone", "seen_classes", "resumes", "resumes_inside"]
    assert check_strategy(find_strategy("sema"), options=options, checks=checks) == []
