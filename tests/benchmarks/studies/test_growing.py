"""The study of what growth can be worth: what is asked, who answers, and its table."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.studies.growing import (
    answered,
    by_regime,
    held_out,
    regimes_of,
    study,
    table,
)
from cl_adapters.errors import InputError
from tests.bundle.runs import CLASSES, write_pictures

RECIPE = """
increment = 2
backbone = "test_vit"
weights = "random"
image_size = 32
"""
SETS = """
scenario = "datasets"
dataset_order = "near,far,near"
[[datasets]]
name = "near"
data = "{near}"
[[datasets]]
name = "far"
data = "{far}"
"""


def test_regimes_return_and_one_image_in_four_is_asked() -> None:
    assert regimes_of(["clean", "blur", "clean", "noise"]) == [0, 1, 0, 2]
    marks = held_out(torch.tensor([3, 3, 3, 3, 3, 3, 3, 3, 9, 9, 9]))
    assert marks.nonzero().flatten().tolist() == [3, 7]


def _nearest(features: Tensor, labels: Tensor) -> "Nearest":
    return Nearest(features, labels)


class Nearest:
    """One neighbour, as a classifier to look through."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __call__(self, asked: Tensor) -> Tensor:
        nearest = torch.cdist(asked, self.features).argmin(dim=1)
        return torch.nn.functional.one_hot(self.labels[nearest], int(self.labels.max()) + 1)


def test_a_regime_of_its_own_knows_its_classes_alone() -> None:
    learned = [
        (torch.tensor([[0.0], [1.0]]), torch.tensor([4, 7])),
        (torch.tensor([[0.4], [5.0]]), torch.tensor([7, 9])),
    ]
    asked = torch.tensor([[0.3], [0.3], [4.0]])
    assert answered(_nearest, learned, asked).tolist() == [7, 7, 9]
    found = torch.tensor([0, 1, 0])
    assert answered(_nearest, learned, asked, found).tolist() == [4, 7, 7]


def test_the_regime_of_an_image_is_that_of_its_likeliest_class() -> None:
    generator = torch.Generator().manual_seed(0)

    def around(place: tuple[float, float]) -> Tensor:
        return torch.tensor(place) + torch.randn(30, 2, generator=generator)

    # Both regimes know class 5, elsewhere; between the places of one lies one of the other.
    learned = [
        (torch.cat([around((0, 0)), around((40, 0))]), torch.tensor([5] * 30 + [6] * 30)),
        (torch.cat([around((20, 0)), around((0, 50))]), torch.tensor([5] * 30 + [8] * 30)),
    ]
    asked = torch.tensor([[1.0, 1], [21, 1], [39, -1], [1, 48]])
    assert by_regime(learned, asked).tolist() == [0, 1, 0, 1]


def test_a_stream_is_answered_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_adapters.benchmarks.studies.growing._PROJECTIONS", 40)
    recipe = tmp_path / "sets.toml"
    near = write_pictures(tmp_path / "near", each=16)
    # Two sets may share no image, and what is drawn depends on a class's number.
    far = write_pictures(tmp_path / "far", classes=(*CLASSES, "x", "y"), each=16)
    for name in CLASSES:
        shutil.rmtree(far / name)
    recipe.write_text(RECIPE + SETS.format(near=near, far=far))
    (config,) = expand({"strategy": "simplecil"}, recipe=recipe, seeds=1, settings=())
    found = list(study(config, [1], ["first", "fresh"], epochs=1))
    assert found == list(study(config, [1], ["first", "fresh"], epochs=1))
    names = [name for name, told, _ in found if told == "ridge, one a regime"]
    assert names == [
        "frozen", "first", "frozen + first", "grown in 1 blocks, first",
        "first + grown in 1 blocks, first", "frozen + grown in 1 blocks, first",
        "grown in 1 blocks, fresh", "first + grown in 1 blocks, fresh",
        "frozen + grown in 1 blocks, fresh",
    ]  # fmt: skip
    assert len(found) == 1 + 4 * len(names)
    assert all(0 <= share <= 100 for *_, share in found)
    text = table({(name, told): [share, 50.0] for name, told, share in found})
    assert len(text.splitlines()) == 2 + len(names)
    with pytest.raises(InputError, match="`blocks` must be from 1 to 6, got 1, 9"):
        next(study(config, [1, 9], ["first"], epochs=1))


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "plain.toml"
    recipe.write_text(RECIPE + f'data = "{write_pictures(tmp_path / "data", each=6)}"\n')
    (config,) = expand({"strategy": "simplecil"}, recipe=recipe, seeds=1, settings=())
    with pytest.raises(InputError, match="must have domains that are known, or data sets"):
        next(study(config, [1], ["first"], epochs=1))
