"""Methods in closed form on fewer images than classes, one image a class and classes that return."""

from typing import Any

import pytest
import torch

from cl_adapters.strategies.aper import APER
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.fecam import FeCAM
from cl_adapters.strategies.loranpac import LoRanPAC
from cl_adapters.strategies.ranpac import RanPAC

METHODS: dict[str, tuple[type[AdapterStrategy], dict[str, Any]]] = {
    "aper": (APER, {"epochs": 1}),
    "fecam": (FeCAM, {}),
    "loranpac": (LoRanPAC, {"projections": 40, "share": 1.0}),
    "ranpac": (RanPAC, {"projections": 40, "epochs": 1}),
}


def sums_of(model: Any, label: int) -> torch.Tensor:
    """What a class is known by: a sum over its images, or their mean."""
    head = model.head
    if hasattr(head, "cross"):
        return torch.as_tensor(head.cross[:, label])
    if hasattr(head, "sums"):
        return torch.as_tensor(head.sums[label])
    row = head.labels.tolist().index(label)
    return torch.as_tensor(head.means[row] * head.counts[row])


@pytest.mark.parametrize("name", METHODS)
def test_a_class_of_one_image_that_returns_is_known_by_both(name: str) -> None:
    kind, options = METHODS[name]
    trial = Trial(kind, options)
    stream = TinyStream(experiences=((2, 0), (1, 2), (3, 4)), per_class=1)
    strategy, known = trial.build(), []
    for experience in stream.benchmark.train_stream:
        strategy.train(experience)
        known.append(sums_of(strategy.model, 2).clone())
    assert not torch.equal(known[0], known[1])
    assert torch.equal(known[1], known[2])
    answers = trial.evaluate(strategy, stream)
    assert torch.isfinite(answers).all()
    assert answers.shape[1] == 5
    # Each answers the images that it has seen, one a class, as what they are.
    once = [
        (sets, label)
        for sets in (stream.train_sets[0], *stream.train_sets[2:])
        for label in sets.tensors[1].tolist()
        if label != 2
    ]
    with torch.no_grad():
        for sets, label in once:
            image = sets.tensors[0][sets.tensors[1] == label]
            assert strategy.answer(image).logits.argmax().item() == label


@pytest.mark.parametrize("name", METHODS)
def test_fewer_images_than_classes_so_far(name: str) -> None:
    kind, options = METHODS[name]
    trial = Trial(kind, options)
    # One image of a late class, when six are known: nothing can be held out, or spread.
    run = trial.train(
        trial.build(), TinyStream(experiences=((0, 1, 2, 3, 4, 5), (6,)), per_class=1)
    )
    assert torch.isfinite(run.outputs[-1]).all()
    assert set(run.outputs[0].argmax(dim=1).tolist()) <= set(range(6))
