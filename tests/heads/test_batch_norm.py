"""The batch-normalised head against torch's own layer."""

import pytest
import torch
from torch import nn

from cl_adapters.heads.batch_norm import BatchNormHeads, Statistics


def made(statistics: Statistics = "first") -> BatchNormHeads:
    heads = BatchNormHeads(6, init_std=1.0, statistics=statistics)
    heads.add_classes([0, 1], torch.Generator().manual_seed(0))
    return heads


def batch(seed: int, count: int = 8) -> torch.Tensor:
    return 3 + 2 * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_it_is_torchs_layer_before_a_linear_one() -> None:
    heads, norm = made(), nn.BatchNorm1d(6, affine=False, eps=1e-6)
    for seed in range(3):
        torch.testing.assert_close(heads(batch(seed)), heads.layers[0](norm(batch(seed))))
    torch.testing.assert_close(heads.mean, norm.running_mean)
    torch.testing.assert_close(heads.variance, norm.running_var)
    heads.eval()
    norm.eval()
    torch.testing.assert_close(heads(batch(9)), heads.layers[0](norm(batch(9))))
    before = heads.mean.clone()
    with torch.no_grad():
        heads.train()(batch(4))
    assert torch.equal(heads.mean, before)


def test_an_answer_does_not_hang_on_its_batch() -> None:
    heads = made()
    heads(batch(0))
    heads.eval()
    rows = batch(1, 12)
    parts = torch.cat([heads(rows[[index]]) for index in range(12)])
    torch.testing.assert_close(parts, heads(rows), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("statistics", ["first", "running"])
def test_statistics_stay_with_the_first_experience_or_run(statistics: Statistics) -> None:
    heads = made(statistics)
    heads(batch(0))
    before = heads.mean.clone()
    heads.add_classes([2], torch.Generator().manual_seed(1))
    heads(batch(1) + 10)
    assert torch.equal(heads.mean, before) == (statistics == "first")


def test_a_batch_of_one_image_reads_what_is_known_and_changes_nothing() -> None:
    heads = made()
    heads(batch(0))
    before = heads.mean.clone()
    single = heads(batch(1, 1))
    assert torch.equal(heads.mean, before)
    torch.testing.assert_close(single, heads.eval()(batch(1, 1)))


def test_joined_rows_answer_as_the_head_and_keep_their_statistics() -> None:
    heads = made("running")
    heads(batch(0))
    heads.add_classes([5], torch.Generator().manual_seed(1))
    heads.eval()
    joined = heads.joined([5, 0])
    answers = joined(batch(2))
    torch.testing.assert_close(answers, heads(batch(2))[:, [5, 0]])
    heads.train()(batch(3) + 10)
    assert torch.equal(joined(batch(2)), answers)


def test_a_twin_with_its_state_goes_on_the_same() -> None:
    heads, twin = made(), made()
    heads(batch(0))
    twin.load_state_dict(heads.state_dict())
    for seed in (1, 2):
        assert torch.equal(heads(batch(seed)), twin(batch(seed)))
    assert torch.equal(heads.variance, twin.variance)
