"""The head KAC against plain loops."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.heads.alignment import Alignment, align_head
from cl_adapters.heads.gaussians import ClassGaussians
from cl_adapters.heads.linear import UNSEEN_LOGIT, ExperienceHeads


def random_head(classes: list[int], features: int = 4) -> ExperienceHeads:
    heads = ExperienceHeads(features, is_radial=True)
    source = torch.Generator().manual_seed(0)
    heads.add_classes(classes, source)
    with torch.no_grad():
        for value in heads.parameters():
            value.normal_(generator=source)
    return heads


def test_logits_equal_a_loop_over_features_and_places() -> None:
    heads = random_head([3, 1])
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    logits = heads(features)
    assert logits.shape == (5, 4)
    assert (logits[:, [0, 2]] == UNSEEN_LOGIT).all()
    assert heads.basis is not None
    gain, shift = heads.basis.norm.weight.tolist(), heads.basis.norm.bias.tolist()
    weight = heads.layers[0].weight.detach()
    assert weight.shape == (2, 4 * 16)
    for row, values in enumerate(features.tolist()):
        mean = sum(values) / 4
        spread = math.sqrt(sum((each - mean) ** 2 for each in values) / 4 + 1e-5)
        for index, label in enumerate([3, 1]):
            expected = 0.0
            for channel, value in enumerate(values):
                x = gain[channel] * (value - mean) / spread + shift[channel]
                for place in range(16):
                    at = -2 + place * 4 / 15
                    share = float(weight[index, 16 * channel + place])
                    expected += share * math.exp(-(((x - at) / (4 / 15)) ** 2))
            assert float(logits[row, label].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_new_classes_start_at_zero_without_biases_and_leave_the_old_alone() -> None:
    heads = ExperienceHeads(8, is_radial=True)
    heads.add_classes([0, 1], torch.Generator())
    assert not heads(torch.randn(3, 8)).any()
    assert sum(value.numel() for value in heads.layers.parameters()) == 2 * 16 * 8
    heads.layers[0].weight.data.fill_(1)
    heads.add_classes([2], torch.Generator())
    assert bool((heads.layers[0].weight == 1).all())


def test_rows_that_are_aligned_apart_come_back_and_the_norm_stays() -> None:
    heads = random_head([0, 1])
    features = torch.randn(6, 4)
    head = heads.joined([1, 0])
    torch.testing.assert_close(head(features), heads(features)[:, [1, 0]])
    heads.assign([1, 0], head)
    before = {name: value.clone() for name, value in heads.state_dict().items()}
    classes = ClassGaussians(4, "diagonal")
    for label in (0, 1):
        classes.add(label, torch.randn(8, 4) + 2 * label)
    joined = heads.joined([0, 1])
    align_head(joined, classes, torch.Generator().manual_seed(0), Alignment(epochs=1, batch_size=8))
    heads.assign([0, 1], joined)
    changed = [name for name, value in heads.state_dict().items() if not value.equal(before[name])]
    assert changed == ["layers.0.weight"]


def test_it_is_no_cosine_head() -> None:
    with pytest.raises(InputError, match="`is_radial` must go without `cosine_scale`, got 10.0"):
        ExperienceHeads(4, cosine_scale=10.0, is_radial=True)
