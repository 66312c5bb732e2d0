"""Class means in several spaces against the brief's worked numbers and plain loops."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.subspaces import SubspacePrototypes, mapped_mean

WIDTH = 5
EXPERIENCES = [[3, 0], [1], [4, 2]]


class Given(SubspacePrototypes):
    """Means that are given, whatever was added."""

    given: Tensor

    def means(self) -> Tensor:
        return self.given


def images_of(label: int, space: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 * label + space)
    return torch.randn(4, WIDTH, generator=generator) + 2 * torch.eye(WIDTH)[label]


def filled(
    experiences: list[list[int]] = EXPERIENCES, *, shift: int = 0, **options: Any
) -> SubspacePrototypes:
    head = SubspacePrototypes(WIDTH, scale=1.0, **options)
    for experience, classes in enumerate(experiences):
        head.add_classes(classes)
        for label in classes:
            for space in range(experience + 1 + shift):
                head.add(space, images_of(label, space), torch.full((4,), label))
    return head


def expected_mean(label: int, space: int) -> Tensor:
    """The mean of a class in a space, by loops over experiences and classes."""
    own = next(t for t, classes in enumerate(EXPERIENCES) if label in classes)
    if space <= own:
        return images_of(label, space).double().mean(dim=0)
    known = [each for classes in EXPERIENCES[space:] for each in classes]
    at_home = images_of(label, own).double().mean(dim=0)
    shares = [
        math.exp(
            float(cosine_similarity(at_home, images_of(each, own).double().mean(dim=0), dim=0))
        )
        for each in known
    ]
    found = torch.zeros(WIDTH, dtype=torch.float64)
    for share, each in zip(shares, known, strict=True):
        found += share / sum(shares) * images_of(each, space).double().mean(dim=0)
    return found


def test_the_briefs_example_of_a_mapped_mean() -> None:
    others = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    found = mapped_mean(torch.tensor([1.0, 0.0]), torch.eye(2), others)
    torch.testing.assert_close(found, torch.tensor([1.462, 1.076]), atol=5e-4, rtol=0)


def test_the_briefs_example_of_a_score() -> None:
    head = Given(2, alpha=0.1, scale=1.0)
    head.add_classes([0, 1])
    for space, label in ((0, 0), (0, 1), (1, 1)):  # class 0 of experience 0, class 1 of 1
        head.add(space, torch.ones(1, 2), torch.tensor([label]))
    head.given = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    found = head(torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]))
    torch.testing.assert_close(found, torch.tensor([[1.08, 0.60]]))


def test_means_are_those_of_a_loop_over_experiences_and_classes() -> None:
    means = filled().means()
    for label in range(5):
        for space in range(3):
            torch.testing.assert_close(means[label, space], expected_mean(label, space))


@pytest.mark.parametrize(("alpha", "plain"), [(0.1, None), (0.0, None), (0.3, 0.7)])
def test_scores_are_those_of_a_loop_over_classes_and_spaces(
    alpha: float, plain: float | None
) -> None:
    shift = int(plain is not None)  # one more space, in front
    head = filled(shift=shift, alpha=alpha, plain=plain)
    spaces = 3 + shift
    rows = torch.randn(6, spaces, WIDTH, generator=torch.Generator().manual_seed(1))
    means, found = head.means(), head(rows)
    for row in range(6):
        for experience, classes in enumerate(EXPERIENCES):
            for label in classes:
                expected = 0.0
                for space in range(spaces):
                    cosine = float(
                        cosine_similarity(rows[row, space].double(), means[label, space], dim=0)
                    )
                    own = space == experience + shift
                    other = plain if plain is not None and space == 0 else alpha / 2
                    expected += cosine * (1 if own else other)
                assert float(found[row, label]) == pytest.approx(expected, abs=1e-5)


def test_one_space_is_the_nearest_mean_by_cosine() -> None:
    head, plain = filled([[3, 0, 1]]), PrototypeHead(WIDTH, scale=1.0)
    plain.add_classes([3])
    for label in (3, 0, 1):
        plain.add(images_of(label, 0), torch.full((4,), label))
    rows = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(head(rows[:, None]), plain(rows))


def test_without_reweighting_it_is_one_cosine_of_all_spaces_joined() -> None:
    head = filled(reweight=False)
    rows = torch.randn(4, 3, WIDTH, generator=torch.Generator().manual_seed(3))
    expected = cosine_similarity(
        rows.flatten(1).double()[:, None], head.means().flatten(1)[None], dim=2
    )
    torch.testing.assert_close(head(rows).double(), expected, atol=1e-6, rtol=1e-5)


def test_without_mapped_means_it_is_the_mean_cosine_over_the_real_ones() -> None:
    head = filled(mapped=False)
    rows = torch.randn(4, 3, WIDTH, generator=torch.Generator().manual_seed(3))
    found = head(rows)
    for t, classes in enumerate(EXPERIENCES):
        for label in classes:
            each = [
                cosine_similarity(rows[:, j].double(), expected_mean(label, j)[None])
                for j in range(t + 1)
            ]
            expected = torch.stack(each).mean(dim=0).float()
            torch.testing.assert_close(found[:, label], expected, atol=1e-6, rtol=1e-5)


def test_real_means_never_change_and_a_mapped_one_follows_the_others_lengths() -> None:
    early, late = filled(EXPERIENCES[:2]).means(), filled().means()
    for label, space in ((3, 0), (0, 0), (1, 0), (1, 1)):
        assert torch.equal(early[label, space], late[label, space])
    assert not torch.equal(early[3, 1], late[3, 1])  # more classes to be made of
    own, at_home, there = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(4))
    found = mapped_mean(own, at_home, there)
    scaled = at_home * torch.tensor([3.0, 1, 1, 1])[:, None]
    torch.testing.assert_close(mapped_mean(3 * own, scaled, there), found)
    torch.testing.assert_close(mapped_mean(own, at_home, 3 * there), 3 * found)
    one = torch.ones(4, 1)
    torch.testing.assert_close(mapped_mean(own, at_home, one), one)  # the shares add up to 1


def test_a_class_that_returns_belongs_to_its_last_space() -> None:
    head = filled([[0, 1], [2], [0]])
    assert head.own_spaces().tolist() == [2, 0, 1]
    twice = images_of(0, 0).double().mean(dim=0)  # both experiences show the same images
    torch.testing.assert_close(head.means()[0, 0], twice)
    torch.testing.assert_close(head.means()[0, 2], images_of(0, 2).double().mean(dim=0))


def test_a_class_without_a_mean_is_never_chosen() -> None:
    head = filled([[1], [3]])
    rows = torch.randn(4, 2, WIDTH, generator=torch.Generator().manual_seed(5))
    assert (head(rows)[:, [0, 2]] == UNSEEN_LOGIT).all()
    assert (head(rows)[:, [1, 3]] > UNSEEN_LOGIT).all()


def test_batches_do_not_matter_and_a_state_brings_all_back() -> None:
    head, other = filled(), SubspacePrototypes(WIDTH, scale=1.0)
    rows = torch.randn(4, 3, WIDTH, generator=torch.Generator().manual_seed(6))
    before = head(rows)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(rows), before)
    single = SubspacePrototypes(WIDTH, scale=1.0)
    single.add_classes([4])
    for experience, classes in enumerate(EXPERIENCES):
        for label in classes:
            for space in range(experience + 1):
                for image in images_of(label, space):
                    single.add(space, image[None], torch.tensor([label]))
    torch.testing.assert_close(single(rows), before)
    changed = copy.deepcopy(head)
    changed.load_state_dict(filled(EXPERIENCES[:1]).state_dict())
    assert changed(rows[:, :1]).shape == (4, 4)  # nothing is left of the means before
