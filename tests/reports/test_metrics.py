import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score

from cl_adapters.reports.forgetting import (
    bwt,
    forgetting_from_best,
    forgetting_from_best_before,
    forgetting_from_first,
    forgetting_over_time,
    fwt_without_baseline,
)
from cl_adapters.reports.metrics import (
    accuracy_matrix,
    class_accuracy,
    ece,
    micro_accuracy,
    task_mean_accuracy,
)
from tests.reports.conftest import make_predictions

EXAMPLE = np.array([[80, 0, 0, 0], [85, 70, 0, 0], [82, 75, 60, 0], [70, 72, 65, 90.0]])


def _loop_matrix(frame: pd.DataFrame) -> dict[tuple[int, int], float]:
    hits: dict[tuple[int, int], list[bool]] = defaultdict(list)
    names = ["experience", "target_experience", "prediction", "target"]
    for trained, target_experience, prediction, target in frame[names].to_numpy().tolist():
        hits[trained, target_experience].append(prediction == target)
    return {key: 100 * sum(answers) / len(answers) for key, answers in hits.items()}


@pytest.fixture(params=[False, True], ids=["seen", "future"])
def frame(request: pytest.FixtureRequest) -> pd.DataFrame:
    table = make_predictions([3, 1, 2, 4], 7, 0.2, seed=5, sees_future=request.param)
    return table.sample(frac=1.0, random_state=0)


def test_worked_example_of_the_field() -> None:
    assert forgetting_from_best(EXAMPLE) == pytest.approx(6.0)
    assert forgetting_from_best_before(EXAMPLE) == pytest.approx(13 / 3)
    assert round(forgetting_from_best_before(EXAMPLE), 2) == 4.33
    assert forgetting_from_first(EXAMPLE) == pytest.approx(1.0)
    assert bwt(EXAMPLE) == pytest.approx(-1.0)


def test_worked_example_without_zeros_above_the_diagonal() -> None:
    blank = np.where(np.tri(4, dtype=bool), EXAMPLE, np.nan)
    assert forgetting_from_best(blank) == pytest.approx(6.0)
    assert forgetting_from_best_before(blank) == pytest.approx(13 / 3)
    assert math.isnan(fwt_without_baseline(blank))


def test_accuracy_before_learning_is_no_knowledge_to_forget() -> None:
    lucky = np.array([[50.0, 90.0], [50.0, 60.0], [50.0, 60.0]])
    lucky = np.hstack([lucky, np.full((3, 1), 10.0)])
    assert forgetting_from_best(lucky) == pytest.approx(0.0)
    assert fwt_without_baseline(lucky) == pytest.approx((90 + 10) / 2)


def test_matrix_equals_a_plain_loop(frame: pd.DataFrame) -> None:
    matrix, oracle = accuracy_matrix(frame), _loop_matrix(frame)
    assert matrix.shape == (4, 4)
    for (t, i), value in np.ndenumerate(matrix):
        if (t, i) in oracle:
            assert value == pytest.approx(oracle[t, i])
        else:
            assert math.isnan(value)


def test_accuracies_equal_scikit_learn(frame: pd.DataFrame) -> None:
    micro, means = micro_accuracy(frame), task_mean_accuracy(accuracy_matrix(frame))
    for t in range(4):
        rows = frame[(frame["experience"] == t) & (frame["target_experience"] <= t)]
        assert micro[t] == pytest.approx(100 * accuracy_score(rows["target"], rows["prediction"]))
        parts = [
            accuracy_score(part["target"], part["prediction"])
            for _, part in rows.groupby("target_experience")
        ]
        assert means[t] == pytest.approx(100 * sum(parts) / len(parts))
    last = frame[frame["experience"] == 3]
    recalls = recall_score(last["target"], last["prediction"], average=None, labels=range(10))
    np.testing.assert_allclose(class_accuracy(frame).to_numpy(), 100 * recalls)


def test_micro_and_task_mean_differ_with_the_size_of_experiences() -> None:
    rows = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 2, 2], [1, 1, 2, 0]]
    table = pd.DataFrame(rows, columns=["experience", "target_experience", "target", "prediction"])
    assert micro_accuracy(table).tolist() == [100.0, 50.0]
    assert task_mean_accuracy(accuracy_matrix(table))[1] == pytest.approx((100 + 100 / 3) / 2)


def test_forgetting_equals_plain_loops(frame: pd.DataFrame) -> None:
    cells = _loop_matrix(frame)
    for last, value in enumerate(forgetting_over_time(accuracy_matrix(frame))):
        drops = [max(cells[t, i] for t in range(i, last + 1)) - cells[last, i] for i in range(last)]
        if drops:
            assert value == pytest.approx(sum(drops) / len(drops))
        else:
            assert math.isnan(value)


def test_one_experience_has_no_forgetting() -> None:
    single = np.array([[75.0]])
    measures = (forgetting_from_best, forgetting_from_best_before, forgetting_from_first, bwt)
    assert all(math.isnan(measure(single)) for measure in measures)
    assert math.isnan(fwt_without_baseline(single))


def test_experience_evaluated_only_at_the_end_takes_no_part() -> None:
    matrix = np.array([[np.nan, np.nan], [np.nan, np.nan], [60.0, 70.0]])
    matrix = np.hstack([matrix, [[np.nan], [np.nan], [80.0]]])
    assert math.isnan(forgetting_from_best(matrix))
    assert math.isnan(forgetting_from_first(matrix))


def test_ece_equals_a_plain_loop_with_values_on_the_edges() -> None:
    generator = np.random.default_rng(0)
    confidence = np.concatenate([generator.random(500), [0.0, 1.0, 1 / 15, 0.2, 0.4, 14 / 15]])
    is_correct = generator.random(confidence.size) < 0.5
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for value, right in zip(confidence, is_correct, strict=True):
        number = next(b for b in range(1, 16) if math.ceil(value * 15) <= b)
        bins[number].append((value, right))
    gaps = (abs(sum(v for v, _ in items) - sum(r for _, r in items)) for items in bins.values())
    assert ece(confidence, is_correct) == pytest.approx(100 * sum(gaps) / confidence.size)


def test_ece_by_hand() -> None:
    assert ece(np.array([0.95, 0.95, 0.95, 0.55]), np.array([True, True, False, True])) == (
        pytest.approx(100 * (abs(2.85 - 2) + 0.45) / 4)
    )
    assert math.isnan(ece(np.array([]), np.array([], dtype=bool)))
