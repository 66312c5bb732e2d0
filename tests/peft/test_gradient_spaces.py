"""DualGPM against hand arithmetic and plain loops over singular vectors of NumPy's."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cl_adapters.errors import InputError
from cl_adapters.peft.gradient_spaces import GradientSpace

FOUR = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))


def moment(size: int, seed: int, decay: float = 0.5) -> Tensor:
    """Second moments of inputs whose directions differ in strength."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(300, size, generator=generator) * decay ** torch.arange(size)
    rows = rows @ torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return rows.T @ rows / len(rows)


def span(space: GradientSpace) -> np.ndarray:
    """The projector onto the directions in use."""
    basis = space.basis.double().numpy()
    inside = basis @ basis.T
    return np.eye(len(basis)) - inside if bool(space.is_free) else inside


def test_a_first_experience_uses_the_directions_below_the_threshold() -> None:
    # Checklist 10.8.2: of squares 16, 9, 4, 1 the cumulated shares are 0.533, 0.833, 0.967, 1.
    for threshold, count in ((0.5, 1), (0.6, 1), (0.9, 2), (0.95, 2)):
        space = GradientSpace(4)
        space.update(FOUR, threshold)
        assert space.num_used == count, threshold
        expected = np.diag([1.0] * count + [0.0] * (4 - count))
        np.testing.assert_allclose(span(space), expected, atol=1e-6)


def test_the_strongest_free_directions_are_rows_of_length_one() -> None:
    # Checklist 10.8.1, before the division by the root of 3.
    space = GradientSpace(4)
    space._set(torch.eye(4)[:, :1])
    rows = space.free_directions(FOUR, 2).abs()
    torch.testing.assert_close(rows, torch.eye(4)[1:3])
    # Checklist 10.8.4: in this form no row reaches what is in use.
    space = GradientSpace(8)
    space.update(moment(8, 0), 0.9)
    assert not bool(space.is_free)
    rows = space.free_directions(moment(8, 1), 3)
    assert float((rows @ space.basis).abs().max()) < 1e-6
    torch.testing.assert_close(rows @ rows.T, torch.eye(3))


def test_where_fewer_directions_are_free_the_others_are_nothing() -> None:
    space = GradientSpace(4)
    space._set(torch.eye(4)[:, 2:3])
    space.is_free.fill_(value=True)
    rows = space.free_directions(FOUR, 3)
    assert rows[0].abs().tolist() == [0, 0, 1, 0]
    assert not rows[1:].any()
    space._set(torch.zeros(4, 0))
    assert not space.free_directions(FOUR, 6).any()
    space.update(FOUR, 0.9)
    assert space.num_used == 4


def oracle(moments: list[np.ndarray], thresholds: list[float]) -> list[tuple[np.ndarray, bool]]:
    """The two forms as the brief has them, with NumPy, a direction at a time."""
    found, used, is_free = [], np.zeros((len(moments[0]), 0)), False
    for m, eps in zip(moments, thresholds, strict=True):
        size, total = len(m), (np.linalg.svd(m)[1] ** 2).sum()
        if used.shape[1] == 0 and not is_free:
            u, s, _ = np.linalg.svd(m)
            count = 0
            while count < size and (s[: count + 1] ** 2).sum() / total < eps:
                count += 1
            used = u[:, : max(count, 1)]
        elif not is_free:
            u, s, _ = np.linalg.svd(m - used @ used.T @ m)
            covered, more = 1 - (s**2).sum() / total, 0
            while covered < eps:
                covered += s[more] ** 2 / total
                more += 1
            used = np.hstack([used, u[:, :more]])
        else:
            u, s, _ = np.linalg.svd(used @ used.T @ m)
            rest, fewer = (s**2).sum() / total, 0
            while rest >= 1 - eps:
                rest -= s[fewer] ** 2 / total
                fewer += 1
            v = u[:, :fewer]
            left = np.linalg.svd(used - v @ v.T @ used)[0]
            used = left[:, : used.shape[1] - fewer]
        if not is_free and used.shape[1] > size / 2:
            used, is_free = np.linalg.svd(used)[0][:, used.shape[1] :], True
        found.append((used @ used.T, is_free))
    return found


def test_both_forms_equal_a_loop_over_directions() -> None:
    size, thresholds = 12, [0.9, 0.99, 0.995, 0.999, 0.9995, 0.9999]
    moments = [moment(size, seed, 0.75) for seed in range(len(thresholds))]
    space, forms, free = GradientSpace(size), [], []
    expected = oracle([each.double().numpy() for each in moments], thresholds)
    for each, threshold, (inside, is_free) in zip(moments, thresholds, expected, strict=True):
        space.update(each, threshold)
        basis = space.basis.double().numpy()
        np.testing.assert_allclose(basis @ basis.T, inside, atol=1e-5)
        # Checklist 10.8.6.
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
        assert bool(space.is_free) == is_free
        forms.append(bool(space.is_free))
        free.append(size - space.num_used)
        # What is projected away is what is in use.
        left = (np.eye(size) - span(space)) @ each.double().numpy()
        np.testing.assert_allclose(space.project(each.double()).numpy(), left, atol=1e-5)
    assert forms[0] is False
    assert forms[-1] is True
    assert forms == sorted(forms), "never converted back"
    # Checklist 10.8.7: `retain` never grows.
    assert free == sorted(free, reverse=True)
    assert len(set(free)) > 3


def test_conversion_keeps_the_span() -> None:
    # Checklist 10.8.7: the projectors of the two forms add up to the identity.
    before = GradientSpace(6)
    before._begin(moment(6, 3, 0.9).double(), 0.97)
    assert before.num_used > 3
    after = GradientSpace(6)
    after.update(moment(6, 3, 0.9), 0.97)
    assert bool(after.is_free)
    both = before.basis @ before.basis.T + after.basis @ after.basis.T
    torch.testing.assert_close(both, torch.eye(6), atol=1e-5, rtol=0)


def test_the_published_first_form_keeps_what_is_in_use_as_if_it_were_free() -> None:
    space = GradientSpace(4)
    space.update(FOUR, 0.95, published=True)  # two of four: half
    assert bool(space.is_free)
    left = space.project(FOUR)
    assert left.diagonal().tolist() == pytest.approx([4, 3, 0, 0], abs=1e-5)
    other = GradientSpace(4)
    other.update(FOUR, 0.6, published=True)
    assert not bool(other.is_free)
    with pytest.raises(InputError, match=r"at most half .* `first_form` 'published'.* got 3 of 4"):
        GradientSpace(4).update(FOUR, 1.0, published=True)


def test_a_basis_on_a_gpu_meets_moments_on_the_cpu() -> None:
    # Tensors without numbers, which refuse what tensors on two devices refuse.
    with FakeTensorMode():
        space = GradientSpace(4)
        space.basis = torch.zeros(4, 1, device="cuda")
        assert space.project(torch.zeros(4, 4, dtype=torch.float64)).device.type == "cpu"


@pytest.mark.gpu
def test_a_space_on_a_gpu_uses_the_directions_that_one_on_the_cpu_does() -> None:
    one, other = GradientSpace(12), GradientSpace(12).to("cuda")
    for seed, threshold in enumerate((0.9, 0.99, 0.999, 0.9999)):
        for space in (one, other):
            space.update(moment(12, seed, 0.75), threshold)
        assert other.basis.device.type == "cuda"
        assert bool(other.is_free) == bool(one.is_free)
        torch.testing.assert_close(other.basis.cpu(), one.basis)
        asked = moment(12, seed + 9)
        torch.testing.assert_close(other.free_directions(asked, 2), one.free_directions(asked, 2))


def test_inputs_that_are_nothing_change_nothing() -> None:
    space = GradientSpace(4)
    space.update(torch.zeros(4, 4), 0.9)
    assert space.num_used == 0
    space.update(FOUR, 0.9)
    space.update(torch.zeros(4, 4), 0.9)
    assert space.num_used == 2


def test_a_state_of_any_size_is_taken_over() -> None:
    one, other = GradientSpace(4), GradientSpace(4)
    one.update(FOUR, 0.99)
    other.load_state_dict(one.state_dict())
    assert bool(other.is_free) == bool(one.is_free)
    assert torch.equal(other.basis, one.basis)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_thresholds_are_shares(threshold: float) -> None:
    with pytest.raises(InputError, match=r"`threshold` must lie in \(0, 1\], got"):
        GradientSpace(4).update(FOUR, threshold)
