"""Components of prompts against the worked numbers of the brief and plain loops."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.components import ComponentPool, apart, attention_weights, new_rows
from cl_adapters.schedule import quarter_cosine

D = 12


def test_coda_1_and_6_weights_are_cosines_of_each_image_alone() -> None:
    attention, keys = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.eye(2)
    query = torch.tensor([[1.0, 2.0]])
    weights = attention_weights(query, attention, keys)
    assert weights[0].tolist() == pytest.approx([1.0, 2 / math.sqrt(5)])
    torch.testing.assert_close(attention_weights(5 * query, attention, keys), weights)
    source = torch.Generator().manual_seed(0)
    queries, rows = torch.randn(4, D, generator=source), torch.randn(2, 6, D, generator=source)
    found = attention_weights(queries, *rows)
    assert (found < 0).any()  # no softmax
    for image in range(4):
        for m in range(6):
            attended = queries[image] * rows[0, m]
            expected = torch.nn.functional.cosine_similarity(attended, rows[1, m], dim=0)
            assert float(found[image, m]) == pytest.approx(float(expected), abs=1e-6)
    others = queries.clone()
    others[1:] = 7
    assert torch.equal(attention_weights(others, *rows)[0], found[0])


def test_coda_2_the_penalty_by_hand() -> None:
    assert apart(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item() == 0.75
    assert apart(torch.eye(3)[:2]).item() == 0


def test_the_classical_start_projects_the_draw_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows before that are not orthogonal to each other leave new ones that are not to them."""
    drawn = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: drawn.clone())
    earlier = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    (row,) = new_rows(earlier, 1, "classical", torch.Generator())
    length = math.sqrt(1.5**2 + 0.5**2 + 9)
    assert length == pytest.approx(3.391, abs=1e-3)
    assert row.tolist() == pytest.approx([-1.5 / length, 0.5 / length, 3 / length], abs=1e-6)
    dots = (earlier @ row).tolist()
    assert dots == pytest.approx([-0.442, -0.295], abs=1e-3)
    (exact,) = new_rows(earlier, 1, "qr", torch.Generator())
    assert exact.abs().tolist() == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("start", ["classical", "qr"])
def test_coda_4_new_rows_are_orthonormal_and_apart_from_all_before(start: str) -> None:
    source = torch.Generator().manual_seed(0)
    old = torch.linalg.qr(torch.randn(D, D, generator=source)).Q[:3]
    if start == "qr":
        old = old + 0.3 * torch.randn(3, D, generator=source)  # as training leaves them
    rows = new_rows(old, 4, start, source)  # type: ignore[arg-type]
    assert (rows @ rows.T - torch.eye(4)).abs().max() < 1e-5
    assert (rows @ old.T).abs().max() < 1e-5


@pytest.mark.parametrize("start", ["classical", "qr"])
def test_rows_beyond_the_width_are_of_length_one_still(start: str) -> None:
    old = torch.eye(D)[: D - 1]
    source = torch.Generator().manual_seed(0)
    rows = new_rows(old, 3, start, source)  # type: ignore[arg-type]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert (old @ rows[0]).abs().max() < 1e-5
    zeros = torch.zeros(2, D)  # name no direction, and are no reason to draw for ever
    assert torch.isfinite(new_rows(zeros, 2, start, source)).all()  # type: ignore[arg-type]


def test_prompts_are_weighed_sums_by_block_and_only_new_components_are_trained() -> None:
    pool, source = ComponentPool(2, 4, D, "qr"), torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="components must be there before they are mixed"):
        pool.mixed(torch.ones(1, D))
    for _ in range(2):
        pool.add(3, source)
    assert [value.requires_grad for value in pool.keys] == [False, True]
    queries = torch.randn(5, D, generator=source)
    mixed = pool.mixed(queries)
    assert mixed.shape == (5, 2, 4, D)
    for block in range(2):
        weights = attention_weights(
            queries, pool.joined("attention")[block], pool.joined("keys")[block]
        )
        prompts = pool.joined("prompts")[block]
        for image in range(5):
            expected = sum(weights[image, m] * prompts[m] for m in range(6))
            assert isinstance(expected, torch.Tensor)
            torch.testing.assert_close(mixed[image, block].flatten(), expected)
    torch.autograd.backward(mixed.sum())
    assert pool.prompts[0].grad is None
    assert pool.prompts[1].grad is not None
    assert sum(value.numel() for value in pool.parameters()) == 2 * 6 * (4 * D + 2 * D)
    expected_penalty = sum(
        float(apart(pool.joined(name)[block].detach()))
        for name in ("keys", "attention", "prompts")
        for block in range(2)
    )
    assert pool.penalty().detach().item() == pytest.approx(expected_penalty, rel=1e-5)
    other = ComponentPool(2, 4, D, "qr")
    other.make_room([3, 3])
    other.load_state_dict(pool.state_dict())
    torch.testing.assert_close(other.mixed(queries), mixed)


def test_coda_5_the_last_epoch_has_a_sixtieth_of_the_rate() -> None:
    for epochs in (2, 5, 20):
        assert quarter_cosine(0, epochs) == 1
        assert quarter_cosine(epochs - 1, epochs) == pytest.approx(0.0157, abs=1e-4)
    assert quarter_cosine(1, 20) == pytest.approx(0.9967, abs=1e-4)
    assert quarter_cosine(0, 1) == 1  # no division by zero
