"""Our metrics beside Avalanche's own, where the definitions agree; where not, the difference."""

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.evaluation.metrics import (
    BWT,
    Accuracy,
    ClassAccuracy,
    ConfusionMatrix,
    Forgetting,
)

from cl_adapters.reports.detail import measure_detail
from cl_adapters.reports.forgetting import (
    bwt,
    forgetting_from_best,
    forgetting_from_best_before,
    forgetting_from_first,
)
from cl_adapters.reports.metrics import accuracy_matrix, class_accuracy, micro_accuracy
from tests.reports.conftest import make_predictions

EXAMPLE = np.array([[80, 0, 0, 0], [85, 70, 0, 0], [82, 75, 60, 0], [70, 72, 65, 90.0]])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return make_predictions([3, 1, 2, 4], 15, 0.2, seed=11)


def _tensors(rows: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(rows["prediction"].to_numpy()), torch.tensor(rows["target"].to_numpy())


def _avalanche(metric: Forgetting | BWT, matrix: np.ndarray) -> float:
    # As its plugins do: first when an experience has been learned, last at the end.
    last = len(matrix) - 1
    for i in range(last):
        metric.update(i, matrix[i, i], initial=True)
        metric.update(i, matrix[last, i])
    return float(np.mean(list(metric.result().values())))


def test_accuracies_are_avalanches(frame: pd.DataFrame) -> None:
    matrix, seen = accuracy_matrix(frame), micro_accuracy(frame)
    for t in range(4):
        rows = frame[frame["experience"] == t]
        stream = Accuracy()
        stream.update(*_tensors(rows))
        assert seen[t] == pytest.approx(100 * stream.result())
        for i, part in rows.groupby("target_experience"):
            accuracy = Accuracy()
            accuracy.update(*_tensors(part))
            assert matrix[t, i] == pytest.approx(100 * accuracy.result())


def test_class_accuracy_and_confusion_are_avalanches(frame: pd.DataFrame) -> None:
    last = frame[frame["experience"] == 3]
    predictions, targets = _tensors(last)
    classes = ClassAccuracy()
    classes.update(predictions, targets, 0)
    found = class_accuracy(frame)
    for position, value in classes.result()[0].items():
        assert found[position] == pytest.approx(100 * value)
    confusion = ConfusionMatrix(num_classes=10)
    confusion.update(targets, predictions)
    ours = np.zeros((10, 10))
    for target, guess, number in measure_detail(frame, 10, {}).confusion:
        ours[target, guess] = number
    assert ours.tolist() == confusion.result().numpy().tolist()


def test_forgetting_from_first_and_bwt_are_avalanches(frame: pd.DataFrame) -> None:
    for matrix in (accuracy_matrix(frame), EXAMPLE):
        assert forgetting_from_first(matrix) == pytest.approx(_avalanche(Forgetting(), matrix))
        assert bwt(matrix) == pytest.approx(_avalanche(BWT(), matrix))


def test_the_other_definitions_differ_from_avalanches_as_the_worked_example_says() -> None:
    assert _avalanche(Forgetting(), EXAMPLE) == pytest.approx(1.0)
    assert forgetting_from_best(EXAMPLE) == pytest.approx(6.0)
    assert round(forgetting_from_best_before(EXAMPLE), 2) == 4.33
