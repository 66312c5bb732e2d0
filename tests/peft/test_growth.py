"""Growth policies and budgets."""

import pytest

from cl_adapters.errors import InputError
from cl_adapters.peft.growth import Budget, blocks_to_grow


@pytest.mark.parametrize(
    ("policy", "fired", "free", "expected"),
    [
        ("per_block", {9: False, 10: True}, [9, 10, 11], [10]),
        ("per_block", {9: True, 10: True}, [9, 10, 11], [9]),
        ("per_block", {9: True, 10: True}, [10, 11], [10]),
        ("per_block", {9: False, 10: False, 11: False}, [9, 10, 11], []),
        ("whole_network", {9: False, 10: True}, [9, 10, 11], [9, 10, 11]),
        ("whole_network", {9: False, 10: False, 11: False}, [9, 10, 11], []),
        ("every_experience", {}, [9, 10, 11], [9, 10, 11]),
        ("never", {9: True}, [9, 10, 11], []),
    ],
)
def test_each_policy_grows_where_it_says(policy, fired, free, expected) -> None:  # type: ignore[no-untyped-def]
    assert blocks_to_grow(policy, fired, free) == expected


def test_a_budget_is_spent_at_its_limit_and_not_before() -> None:
    budget = Budget(adapters=3, parameters=100)
    assert budget.refusal(2, 60, 40) is None
    assert budget.refusal(3, 0, 40) == "budget of 3 adapters a block is spent"
    assert budget.refusal(2, 61, 40) == "budget of 100 parameters is spent"
    assert Budget().refusal(1000, 10**9, 10**9) is None


def test_a_budget_below_one_adapter_is_refused() -> None:
    Budget(parameters=40).check(40)
    with pytest.raises(InputError, match=r"must hold one adapter, 40 parameters .*, got 39"):
        Budget(parameters=39).check(40)
