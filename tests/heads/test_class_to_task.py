"""Which experience a class belongs to, against a plain dictionary."""

import random

import pytest
import torch

from cl_adapters.heads.class_to_task import ClassToTask


@pytest.mark.parametrize("seed", range(5))
def test_it_answers_as_a_dictionary_does(seed: int) -> None:
    draws, owners, known = random.Random(seed), ClassToTask(), {}
    for experience in range(6):
        classes = draws.sample(range(20), 4)
        owners.register(classes, experience)
        known |= dict.fromkeys(classes, experience)
        assert len(owners) == max(known) + 1
        labels = list(range(len(owners)))
        assert owners(torch.tensor(labels)).tolist() == [known.get(each, -1) for each in labels]
    assert owners.experience_of.dtype == torch.int64


def test_room_is_made_for_classes_that_no_experience_has_yet() -> None:
    owners = ClassToTask()
    owners.add_classes([3])
    owners.add_classes([1])
    assert owners.experience_of.tolist() == [-1] * 4


def test_it_returns_from_its_state_whatever_its_size() -> None:
    owners, small, large = ClassToTask(), ClassToTask(), ClassToTask()
    owners.register([2, 4], 1)
    large.register([9], 3)
    for other in (small, large):
        other.load_state_dict(owners.state_dict())
        assert other.experience_of.tolist() == [-1, -1, 1, -1, 1]
