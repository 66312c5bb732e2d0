"""Where a new set begins, against plain arithmetic and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from cl_adapters.errors import InputError
from cl_adapters.strategies.core.starting import balanced, knn_accuracy
from cl_adapters.strategies.mos import MOS, MOSConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import THREE, build, images_of


def test_the_accuracy_of_neighbours_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(36) % 3
    features = torch.randn(36, 4, generator=generator) + labels[:, None]
    for neighbours in (1, 5):
        model = KNeighborsClassifier(neighbours, algorithm="brute")
        expected = cross_val_score(model, features.numpy(), labels.numpy(), cv=LeaveOneOut())
        assert knn_accuracy(features, labels, neighbours) == pytest.approx(np.mean(expected))


def test_the_first_images_of_each_class_are_asked() -> None:
    labels = torch.tensor([0, 0, 1, 0, 2, 1, 0, 1])
    images = torch.arange(8.0)[:, None]
    found = balanced(zip(images.split(3), labels.split(3), strict=True), 2)
    assert found[0][:, 0].tolist() == [0, 1, 2, 4, 5]
    assert found[1].tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("start", ["last", "mean", "knn", "fresh"])
def test_a_new_set_begins_where_the_option_says(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], start: str
) -> None:
    # Steps of no length worth the name: what a set ends as is what it began as.
    strategy = build(tiny_vit, start=start, merge="none", lr=1e-12, weight_decay=0, epochs=1)
    stream, model = make_stream(THREE).train_stream, strategy.model
    strategy.train(stream[0])
    first = [value.clone() for value in model.frozen_adapters.at(0)]
    strategy.train(stream[1])
    with torch.no_grad():
        for value in (*model.frozen_adapters.tensors(), *model.current_adapters.tensors()):
            value[-1] += 1  # the second set, and the last block of what training stands at
    strategy._separates = lambda stored: ((0.9, 0.2)[stored], 2)
    sets = [[value[k].clone() for value in model.frozen_adapters.tensors()] for k in range(2)]
    stands = [value.detach().clone() for value in model.current_adapters.tensors()]
    strategy.train(stream[2])
    fresh = strategy.config.build_stack(tiny_vit, 3).tensors()  # seed 0, the third experience
    expected = {
        "last": stands,
        "mean": [(one + two) / 2 for one, two in zip(*sets, strict=True)],
        "knn": sets[0],
        "fresh": [value.detach() for value in fresh],
    }[start]
    for value, begun in zip(model.frozen_adapters.at(2), expected, strict=True):
        torch.testing.assert_close(value, begun, rtol=1e-6, atol=1e-6)
    for value, before in zip(model.frozen_adapters.at(0), first, strict=True):
        assert torch.equal(value, before)


def test_knn_asks_the_features_of_each_stored_set(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, start="knn", epochs=1)
    stream = make_stream(THREE).train_stream
    strategy.train(stream[:2])
    asked = []
    separates = strategy._separates
    strategy._separates = lambda stored: asked.append((stored, separates(stored))) or asked[-1][1]
    strategy.train(stream[2])
    images, labels = images_of(stream[2])
    for stored, (share, classes) in asked:
        with torch.no_grad():
            features = tiny_vit(images, strategy.model.frozen_adapters.choose(stored))
        model = KNeighborsClassifier(5, algorithm="brute")
        scores = cross_val_score(model, features.numpy(), labels.numpy(), cv=LeaveOneOut())
        assert (share, classes) == (pytest.approx(np.mean(scores)), 2)
    assert [stored for stored, _ in asked] == [0, 1]


def test_nearest_asks_detectors() -> None:
    with pytest.raises(InputError, match="`start` must be nearest only where detectors are asked"):
        MOSConfig().override({"start": "nearest"})
    assert MOSConfig(start="nearest", policy="per_block").start == "nearest"
    assert MOS.config_class.official().start == "last"
