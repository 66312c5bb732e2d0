"""Heads, prototypes and averages against plain arithmetic."""

import math

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.linear import UNSEEN_LOGIT, ExperienceHeads, cross_entropy_over
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.peft.merging import PAPER_DECAY, PAPER_STEPS, auto_decay, ema_update


def test_columns_follow_labels_whatever_the_order_of_arrival() -> None:
    heads = ExperienceHeads(4, init_std=1.0)
    seeded = torch.Generator().manual_seed(0)
    heads.add_classes([5, 1], seeded)
    heads.add_classes([0, 5], seeded)  # 5 returns: no second column
    features = torch.randn(3, 4)
    logits = heads(features)
    assert logits.shape == (3, 6)
    assert [len(layer.bias) for layer in heads.layers] == [2, 1]
    torch.testing.assert_close(logits[:, 5], heads.layers[0](features)[:, 0])
    torch.testing.assert_close(logits[:, 0], heads.layers[1](features)[:, 0])
    assert (logits[:, [2, 3, 4]] == UNSEEN_LOGIT).all()


@torch.no_grad()
def test_new_heads_are_small_and_leave_old_ones_alone() -> None:
    heads = ExperienceHeads(512)
    seeded = torch.Generator().manual_seed(0)
    heads.add_classes(range(20), seeded)
    old = heads.layers[0].weight.clone()
    assert float(old.std()) == pytest.approx(0.001, rel=0.05)
    assert not heads.layers[0].bias.any()
    heads.add_classes([20], seeded)
    assert torch.equal(old, heads.layers[0].weight)


def test_loss_over_current_classes_equals_masking_with_minus_infinity() -> None:
    logits = torch.randn(6, 5, requires_grad=True)
    targets = torch.tensor([1, 3, 3, 1, 4, 4])
    loss = cross_entropy_over([4, 1, 3], logits, targets)
    masked = logits.detach().clone()
    masked[:, [0, 2]] = -math.inf
    expected = nn.functional.cross_entropy(masked, targets)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, [0, 2]].any()


def test_prototypes_are_class_means_in_any_batching() -> None:
    features = torch.randn(20, 3)
    targets = torch.arange(20) % 4
    whole, parts = PrototypeHead(3, scale=1.0), PrototypeHead(3, scale=1.0)
    whole.add_classes(range(4))
    whole.add(features, targets)
    for start in range(0, 20, 7):
        parts.add_classes(range(4))
        parts.add(features[start : start + 7], targets[start : start + 7])
    query = torch.randn(5, 3)
    found = whole(query)
    torch.testing.assert_close(found, parts(query))
    for b in range(5):
        for c in range(4):
            mean = features[targets == c].mean(dim=0)
            cosine = float(query[b] @ mean / (query[b].norm() * mean.norm()))
            assert found[b, c].item() == pytest.approx(cosine, abs=1e-5)


def test_a_class_without_images_is_never_predicted() -> None:
    head = PrototypeHead(2)
    head.add_classes([3])
    head.add(torch.tensor([[1.0, 0.0]]), torch.tensor([3]))
    assert head(torch.tensor([[-1.0, 0.0]])).argmax().item() == 3


def test_ema_moves_every_parameter_by_its_share() -> None:
    average, source = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = [
        0.9 * a + 0.1 * s for a, s in zip(average.parameters(), source.parameters(), strict=True)
    ]
    kept = [value.clone() for value in source.parameters()]
    ema_update(average, source, 0.9)
    for found, wanted in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(found.data, wanted.data)
    assert all(torch.equal(a, b) for a, b in zip(kept, source.parameters(), strict=True))


@pytest.mark.parametrize("num_steps", [1, 9, 60, 1040, 5000])
def test_auto_decay_keeps_the_papers_move(num_steps: int) -> None:
    moved = 1 - auto_decay(num_steps) ** num_steps
    assert moved == pytest.approx(1 - PAPER_DECAY**PAPER_STEPS)
    assert moved == pytest.approx(0.099, abs=0.001)  # "about 10 %"


def test_decays_outside_their_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"`decay` must lie in \[0, 1\], got 1.5"):
        ema_update(nn.Linear(1, 1), nn.Linear(1, 1), 1.5)
    with pytest.raises(InputError, match="`num_steps` must be a positive integer, got 0"):
        auto_decay(0)


def test_unknown_names_come_with_near_ones() -> None:
    text = str(unknown_name("strategy", "simpelcil", ["simplecil", "lae"]))
    assert text == "unknown strategy 'simpelcil'; did you mean 'simplecil'? Known: lae, simplecil"
    assert "did you mean" not in str(unknown_name("strategy", "zzz", ["lae"]))


def test_a_cosine_head_scales_the_cosines_and_has_no_biases() -> None:
    heads = ExperienceHeads(4, cosine_scale=3.0)
    heads.add_classes([0, 2], torch.Generator().manual_seed(0))
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    weight = heads.layers[0].weight
    expected = 3 * torch.nn.functional.cosine_similarity(features[:, None], weight[None], dim=2)
    assert torch.allclose(heads(features)[:, [0, 2]], expected, atol=1e-6)
    assert torch.allclose(heads(7 * features), heads(features), atol=1e-5)
    assert [name for name, _ in heads.named_parameters()] == ["layers.0.weight"]


def test_a_learned_scale_multiplies_all_cosines_and_gets_their_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    heads = ExperienceHeads(4, cosine_scale=1.0, learn_scale=True)
    heads.add_classes([2, 0], draws)
    heads.add_classes([1], draws)
    features = torch.randn(3, 4, generator=draws)
    heads.scale.data.fill_(2.5)
    weights = torch.cat([layer.weight for layer in heads.layers])[[1, 2, 0]]
    cosines = torch.nn.functional.cosine_similarity(features[:, None], weights[None], dim=2)
    torch.testing.assert_close(heads(features), 2.5 * cosines)
    heads(features).sum().backward()
    torch.testing.assert_close(heads.scale.grad, cosines.sum().detach())
    torch.testing.assert_close(heads.joined([0, 1, 2])(features), 2.5 * cosines)
    assert "scale" in heads.state_dict()
    assert "scale" not in ExperienceHeads(4, cosine_scale=1.0).state_dict()
    with pytest.raises(InputError, match="`learn_scale` must go with `cosine_scale`"):
        ExperienceHeads(4, learn_scale=True)


@torch.no_grad()
def test_rows_that_were_joined_and_changed_go_back_with_their_biases() -> None:
    heads, draws = ExperienceHeads(3, init_std=1.0), torch.Generator().manual_seed(0)
    heads.add_classes([2, 0], draws)
    heads.add_classes([1], draws)
    features = torch.randn(5, 3, generator=draws)
    before = heads(features)
    joined = heads.joined([0, 2])
    joined.weight.mul_(2)
    joined.bias.copy_(torch.tensor([7.0, -3.0]))
    torch.testing.assert_close(heads(features), before)  # a copy, until it is given back
    heads.assign([0, 2], joined)
    expected = 2 * before + torch.tensor([7.0, 0.0, -3.0])
    expected[:, 1] = before[:, 1]
    torch.testing.assert_close(heads(features), expected)


def test_a_margin_is_taken_off_the_targets_logit() -> None:
    logits = torch.tensor([[20 * 0.9, 0.0, 20 * 0.5], [20 * 0.1, 50.0, 20 * 0.7]])
    targets = torch.tensor([0, 2])
    found = cross_entropy_over([2, 0], logits, targets, margin=20 * 0.3)
    losses = []
    for right, other in ((0.9, 0.5), (0.7, 0.1)):
        won, lost = math.exp(20 * (right - 0.3)), math.exp(20 * other)
        losses.append(-math.log(won / (won + lost)))
    assert found.item() == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_layers_of_other_classes_learn_nothing() -> None:
    heads, draws = ExperienceHeads(3), torch.Generator().manual_seed(0)
    for classes in ([4, 0], [1], [2, 3]):
        heads.add_classes(classes, draws)
    for asked, expected in (([3, 0], [True, False, True]), ([1], [False, True, False])):
        heads.train_only(asked)
        found = [[value.requires_grad for value in layer.parameters()] for layer in heads.layers]
        assert found == [[each, each] for each in expected]
