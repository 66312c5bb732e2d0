"""Retrieval against the authors' per-image loop over all features."""

import pytest
import torch
from torch import Tensor

from cl_adapters.peft.retrieval import retrieve


class Table:
    """Answers from a table of all logits, (T, B, C), and counts what it is asked."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.asked: list[tuple[int, int]] = []
        self.batches = 0

    def __call__(self, rows: Tensor, adapters: Tensor) -> Tensor:
        self.batches += 1
        self.asked += list(zip(rows.tolist(), adapters.tolist(), strict=True))
        return self.logits[adapters, rows]


def exhaustive(
    first: int, class_to_task: list[int], answers: Tensor, rounds: int
) -> tuple[Tensor, list[int]]:
    """One image: answers is (T, C)."""
    visited = [first]
    while True:
        logits = answers[visited[-1]]
        owner = class_to_task[int(logits.argmax())]
        if owner == visited[-1] or len(visited) == rounds:
            return logits, visited
        visited.append(owner)


@pytest.mark.parametrize("rounds", [1, 2, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_loop_over_images(seed: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sets, images, classes = 5, 40, 11
    class_to_task = torch.randint(sets, (classes,), generator=generator)
    logits = torch.randn(sets, images, classes, generator=generator)
    first = torch.randint(sets, (images,), generator=generator)
    table = Table(logits)
    found = retrieve(first, class_to_task, table, max_rounds=rounds)
    for image in range(images):
        expected, visited = exhaustive(
            int(first[image]), class_to_task.tolist(), logits[:, image], rounds
        )
        assert torch.equal(found.logits[image], expected)
        assert torch.equal(found.first_logits[image], logits[first[image], image])
        assert [each for each in found.visited[image].tolist() if each >= 0] == visited
        wanted = {(image, each) for each in visited}
        assert {each for each in table.asked if each[0] == image} == wanted
    assert len(table.asked) == len(set(table.asked))  # an adapter is asked once for an image
    assert table.batches <= rounds


def test_an_image_that_confirms_itself_is_asked_once() -> None:
    class_to_task = torch.tensor([0, 1])
    table = Table(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    found = retrieve(torch.tensor([1]), class_to_task, table)
    assert table.asked == [(0, 1)]
    assert found.visited.tolist() == [[1, -1, -1, -1]]


def test_two_adapters_that_pass_an_image_to_and_fro_end_after_the_last_round() -> None:
    class_to_task = torch.tensor([0, 1])
    table = Table(torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]))
    found = retrieve(torch.tensor([0]), class_to_task, table, max_rounds=4)
    assert found.visited.tolist() == [[0, 1, 0, 1]]
    assert found.logits.tolist() == [[1.0, 0.0]]
    assert table.asked == [(0, 0), (0, 1)]


def test_no_image_asks_nothing() -> None:
    table = Table(torch.zeros(2, 0, 3))
    found = retrieve(torch.zeros(0, dtype=torch.int64), torch.tensor([0, 1, 1]), table)
    assert found.logits.shape == (0, 3)
    assert table.batches == 0
