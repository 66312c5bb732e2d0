"""The study of detectors: what is asked, what counts as seen, and its table."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.studies.detecting import Seen, asked, frozen_features, table
from cl_adapters.errors import InputError
from cl_adapters.strategies.core.detection import DetectorConfig
from tests.bundle.runs import write_pictures

RECIPE = """
increment = 2
backbone = "test_vit"
weights = "random"
image_size = 32
"""


def around(place: float, seed: int, count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return place + torch.randn(count, 4, generator=generator), torch.arange(count) % 4


@pytest.mark.parametrize("name", ["mmd", "class_mmd", "mahalanobis"])
def test_what_is_far_from_all_kinds_is_seen_and_what_returns_is_known(name: str) -> None:
    kinds = ["near", "near", "far", "near", "far", "farther"]
    places = {"near": 0.0, "far": 9.0, "farther": -15.0}
    experiences = [around(places[kind], number) for number, kind in enumerate(kinds)]
    config = DetectorConfig(detector=name, detect_batch_size=25, false_alarm=0.005)
    found = list(asked(config, kinds, experiences))
    assert [each.experience for each in found] == [1, 2, 3, 4, 5]
    assert [each.is_new for each in found] == [False, True, False, False, True]
    assert [each.fired for each in found] == [each.is_new for each in found]
    assert [each.is_right for each in found] == [not each.is_new for each in found]


def test_one_window_is_enough_to_be_strange() -> None:
    plain, strange = around(0.0, 0), around(0.0, 1)
    strange[0][:30] += 9
    config = DetectorConfig(detector="mmd", detect_batch_size=30, false_alarm=0.005)
    (seen,) = asked(config, ["a", "b"], [plain, strange])
    assert seen == Seen(1, is_new=True, fired=True, is_right=False)


def test_the_table_counts_what_was_seen() -> None:
    seen = [
        Seen(1, is_new=True, fired=True, is_right=False),
        Seen(2, is_new=True, fired=False, is_right=False),
        Seen(3, is_new=False, fired=True, is_right=True),
        Seen(4, is_new=False, fired=False, is_right=True),
        Seen(5, is_new=False, fired=False, is_right=False),
    ]
    row = table({"ks": seen, "mmd": seen[:2]}).splitlines()[2:]
    assert [[cell.strip() for cell in each.strip("|").split("|")] for each in row] == [
        ["`ks`", "1 of 2", "1 of 3", "1 of 2"],
        ["`mmd`", "1 of 2", "-", "-"],
    ]


def test_features_are_of_training_images_experience_by_experience(tmp_path: Path) -> None:
    recipe = tmp_path / "plain.toml"
    pictures = write_pictures(tmp_path / "data", each=6)
    recipe.write_text(RECIPE + f'data = "{pictures}"\n')
    (config,) = expand({"strategy": "simplecil"}, recipe=recipe, seeds=1, settings=())
    with pytest.raises(InputError, match="must have domains that are known, or data sets"):
        frozen_features(config)
    recipe.write_text('stream = "digits-shift"\nmax_images_per_class = 14\ntest_images = 20\n')
    (config,) = expand({"strategy": "simplecil"}, recipe=recipe, seeds=1, settings=())
    kinds, found = frozen_features(config)
    assert len(kinds) == len(found) == 14
    assert kinds[0] == kinds[1] != kinds[2]
    for features, labels in found:
        assert features.shape == (len(labels), found[0][0].shape[1])
        assert not features.requires_grad
