"""Ways to score with EASE's means, against plain loops and against a run's own answers."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from cl_adapters.benchmarks.maintenance.subspaces import accuracies, scored
from cl_adapters.errors import InputError
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.records.tables import read_predictions
from tests.bundle.runs import learn, write_pictures

WAYS = {"as it is", "own", "real", "equal", "first", "centred", "told"}


def test_scores_equal_plain_loops() -> None:
    draws = torch.Generator().manual_seed(0)
    head = SubspacePrototypes(5)
    head.add_classes(range(4))
    homes = (0, 0, 1, 1)  # two experiences of two classes
    for label, home in enumerate(homes):
        for space in range(home + 1):
            rows = torch.randn(3, 5, generator=draws)
            head.add(space, rows, torch.full((3,), label))
    features = torch.randn(6, 2, 5, generator=draws)
    targets = torch.tensor([0, 1, 2, 3, 0, 2])
    found, means = scored(head, features, targets), head.means().float()
    assert set(found) == WAYS
    known = [[c for c, home in enumerate(homes) if home >= space] for space in (0, 1)]
    middle = [torch.stack([means[c, space] for c in known[space]]).mean(0) for space in (0, 1)]
    for row in range(6):
        for c, home in enumerate(homes):
            each = [cosine_similarity(features[row, j], means[c, j], dim=0) for j in (0, 1)]
            moved = features[row, home] - middle[home], means[c, home] - middle[home]
            told = each[home] if homes[int(targets[row])] == home else -torch.inf
            expected = {
                "own": each[home],
                "real": torch.stack(each[: home + 1]).mean(),
                "equal": torch.stack(each).mean(),
                "first": each[0],
                "centred": cosine_similarity(*moved, dim=0),
                "told": told,
                "as it is": 10 * (each[home] + 0.1 * each[1 - home]),
            }
            for way, value in expected.items():
                assert float(found[way][row, c]) == pytest.approx(float(value), abs=1e-5)


def test_a_runs_own_way_has_its_own_accuracy(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    options = {"epochs": 1, "batch_size": 8, "size": 4}
    _, run = learn(data, tmp_path / "runs", "ease", options=options)
    found = accuracies(run)
    last = read_predictions(run).query("experience == experience.max()")
    right = 100 * float((last["target"] == last["prediction"]).mean())
    assert found["as it is"] == pytest.approx(right)
    assert found["told"] >= found["own"]
    _, other = learn(data, tmp_path / "runs", "simplecil")
    with pytest.raises(InputError, match="runs must be of ease, got 'simplecil'"):
        accuracies(other)
