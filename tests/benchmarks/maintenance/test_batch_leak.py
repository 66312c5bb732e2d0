"""What depends on a batch is asked in batches, and what does not is the run's own answer."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.benchmarks.maintenance.batch_leak import Cell, answered, leaks, table
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.records.tables import read_predictions
from tests.bundle.runs import learn, write_pictures

OPTIONS = {"epochs": 1, "batch_size": 8, "lr": 0.02}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("leak")
    data = write_pictures(root / "pictures", each=20)
    return learn(data, root / "runs", "dualprompt", options=OPTIONS)[1]


def test_only_a_batch_of_several_changes_an_answer_and_only_if_asked(run: Path) -> None:
    cells = list(leaks(run, [6, 1000]))
    asked = {each.asked for each in cells}
    assert asked == {
        *("selection=image", "selection=batch"),
        *("prompt_pairing=key_value", "prompt_pairing=port"),
    }
    last = read_predictions(run).query("experience == experience.max()")
    own = 100 * float((last["target"] == last["prediction"]).mean())
    right = {(each.asked, each.order, each.size): each.accuracy for each in cells}
    assert len(right) == len(cells) == 20
    for (option, order, size), accuracy in right.items():
        if option in {"selection=image", "prompt_pairing=key_value"} or order == "one":
            assert accuracy == pytest.approx(own)
        assert (size == 1) == (order == "one")
    # All images in one batch vote alike in any order.
    assert right["selection=batch", "sorted", 1000] == right["selection=batch", "shuffled", 1000]


def test_a_batch_answers_under_the_expert_that_most_of_it_ask_for(run: Path) -> None:
    strategy: Any = load(run).strategy
    images = torch.randint(0, 256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    images = images.to(torch.uint8)
    inputs = strategy.backbone.inputs(images, strategy.device)
    query = strategy.backbone(inputs).detach()
    # Keys that split the images four to three.
    order = query[:, 0].argsort()
    rows = functional.normalize(query, dim=1)
    keys = [rows[order[:4]].sum(0), rows[order[4:]].sum(0)]
    for parameter, key in zip(strategy.model.keys, keys, strict=True):
        parameter.data.copy_(key)
    nearest = [
        max((0, 1), key=lambda k: float(functional.cosine_similarity(row, keys[k], dim=0)))
        for row in query
    ]
    ((most, votes), *_) = Counter(nearest).most_common()
    assert votes < 7
    with answered(strategy, selection="batch"):
        found = strategy.answer(images).logits
    assert strategy.model.config.selection == "image"
    alone = strategy.answer(images).logits
    for number, choice in enumerate(nearest):
        assert torch.allclose(found[number], alone[number], atol=1e-4) == (choice == most)


def test_methods_that_ask_no_batch_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    _, other = learn(data, tmp_path / "runs", "simplecil")
    with pytest.raises(InputError, match="selection or prompt_pairing, got 'simplecil'"):
        list(leaks(other))


def test_a_table_has_means_and_intervals_over_seeds() -> None:
    cells = [
        Cell("l2p on digits", "selection=batch", "sorted", 24, seed, accuracy)
        for seed, accuracy in enumerate((1.0, 3.0))
    ]
    assert table([*cells, Cell("l2p on digits", "selection=batch", "one", 1, 0, 2.0)]).splitlines()[
        2
    ] == ("| l2p on digits | selection=batch | 2.0 ± 12.7 | 2.0 |")
