"""Which view an image shows: by seed, experience, moment, image and pipeline, and by nothing else."""

from itertools import product

import pytest

from cl_adapters.strategies.core.views import Augmentation, FixedViews, Views

IMAGES = [bytes([number]) * 32 for number in range(40)]


def keys(views: Views, seed: int = 0, experience: int = 1, moment: str = "epoch 0") -> list[bytes]:
    Augmentation(views, seed).set_augmentation_seed(experience, moment)
    return [views.key(image) for image in IMAGES]


@pytest.mark.parametrize("views", [Views("crops"), FixedViews(4, "crops")])
def test_each_moment_of_each_experience_and_seed_draws_its_own_views(views: Views) -> None:
    moments = list(product((0, 1), (1, 2), ("epoch 0", "epoch 1")))
    drawn = [tuple(keys(views, *each)) for each in moments]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [tuple(keys(views, *each)) for each in moments]  # the same draws the same


def test_inputs_of_other_pipelines_or_images_have_other_keys() -> None:
    for one, other in ((Views("a"), Views("b")), (FixedViews(2, "a"), FixedViews(2, "b"))):
        found = keys(one) + keys(other)
        assert len(set(found)) == len(found)


def test_fixed_views_are_the_same_for_all_seeds_and_moments() -> None:
    views = FixedViews(3, "crops")
    found = {key for seed in range(30) for key in keys(views, seed)}
    assert len(found) == 3 * len(IMAGES)
