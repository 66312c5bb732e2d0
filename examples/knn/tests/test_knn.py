"""KNN against a plain loop and the rules of every strategy."""

import math

import pytest
import torch
from cl_adapters_knn.knn import KNN

from cl_adapters.strategies.checks.suite import STRATEGY_CHECKS, check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.vit.checks import tiny_backbone


@pytest.mark.parametrize("name", STRATEGY_CHECKS)
def test_knn_is_sound(name: str) -> None:
    assert check_strategy(KNN, checks=[name]) == []


@pytest.mark.parametrize("neighbours", [1, 5, 1000])
def test_the_nearest_images_of_all_experiences_vote(neighbours: int) -> None:
    trial = Trial(KNN, {"neighbours": neighbours, "temperature": 0.1})
    stream, network = TinyStream(), tiny_backbone()
    outputs = trial.train(trial.build(), stream).outputs[-1]
    images, labels, asked = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    with torch.no_grad():
        known, tested = network(images).double(), network(asked).double()
    for row, output in zip(tested, outputs, strict=True):
        cosines = [float(row @ each / (row.norm() * each.norm())) for each in known]
        order = sorted(range(len(cosines)), key=lambda index: -cosines[index])[:neighbours]
        weights = {index: math.exp(cosines[index] / 0.1) for index in order}
        for label in range(7):
            votes = sum(weight for index, weight in weights.items() if labels[index] == label)
            share = votes / sum(weights.values())
            assert float(output[label].exp()) == pytest.approx(share, abs=1e-4)
