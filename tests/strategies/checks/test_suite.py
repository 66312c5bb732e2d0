"""Every strategy passes the conformance suite; each planted offender fails it with the rule it breaks."""

import os
import random
import re
from typing import Any

import numpy as np
import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.strategies import STRATEGY_NAMES, find_strategy
from cl_adapters.strategies.checks.suite import STRATEGY_CHECKS, check_strategy
from cl_adapters.strategies.simplecil import SimpleCIL
from tests.marks import by_default
from tests.strategies.checks.offenders import KEPT, OFFENDERS, BeginsAgain, Needy, Silent

# Avalanche's methods share one class of ours: by default those that keep images, answers or
# gradients pass what looks at one trial. `make slow` asks all of all.
QUICK = ("avalanche:Replay", "avalanche:GDumb", "avalanche:LwF", "avalanche:AGEM")
OF_ONE_TRIAL = (
    "describes", "answers", "backbone", "declares", "data_to_come", "test_labels", "seen_classes",
    "seeds", "resumes", "resumes_inside",
)  # fmt: skip
NAMES = STRATEGY_NAMES.names()
# What takes most of a trial's time, made small: what is checked does not depend on it.
SMALL = {
    "hide_prompt": {"guess_epochs": 1, "alignment_epochs": 2},
    "loranpac": {"projections": 64},
    "ranpac": {"projections": 64},
    "sema": {"descriptor_epochs": 2},
}
OURS = [name for name in NAMES if not name.startswith("avalanche:") and name != "joint"]
# By default these pass what trains once more only where they differ from the rest: prototypes, a
# two copies that vote, modules that grow, and sets that grow.
WHOLE = ("simplecil", "sema", "mos", "lae")
TRAINS_ANEW = ("small", "released", "growth", "global_state", "relabelled", "bf16")
OTHERS = [each for each in STRATEGY_CHECKS if each not in TRAINS_ANEW]
IN_PARTS = [name for name in OURS if name not in WHOLE]


@pytest.mark.parametrize(
    "name", by_default([each for each in NAMES if each not in IN_PARTS], WHOLE)
)
def test_every_strategy_passes_the_suite(name: str) -> None:
    assert check_strategy(find_strategy(name), options=SMALL.get(name, {})) == []


@pytest.mark.parametrize("name", IN_PARTS)
@pytest.mark.parametrize(
    "checks", [OTHERS, pytest.param(TRAINS_ANEW, marks=pytest.mark.slow)], ids=["one", "anew"]
)
def test_the_rest_pass_it_in_two_parts(name: str, checks: list[str]) -> None:
    found = check_strategy(find_strategy(name), options=SMALL.get(name, {}), checks=checks)
    assert found == []


@pytest.mark.parametrize("name", QUICK)
def test_methods_of_avalanche_pass_what_looks_at_one_trial(name: str) -> None:
    assert check_strategy(find_strategy(name), checks=OF_ONE_TRIAL) == []


@pytest.fixture
def settings() -> Any:
    """Puts back what the offenders change."""
    states = random.getstate(), np.random.get_state(), torch.get_num_threads()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_num_threads(states[2])
    os.environ.pop("CL_ADAPTERS_TEST", None)
    KEPT.clear()


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("kind", "name", "sentence"), OFFENDERS, ids=lambda each: getattr(each, "__name__", None)
)
def test_offenders_fail_with_the_rule_that_they_break(
    kind: type[SimpleCIL], name: str, sentence: str
) -> None:
    found = check_strategy(kind, checks=[name])
    assert any(re.search(sentence, each) for each in found), found
    assert all(each.startswith(f"{name}: ") and "\n" not in each for each in found)


def test_options_without_a_word_are_found() -> None:
    assert check_strategy(Silent, checks=["describes"]) == [
        (
            "describes: the class must have a docstring, whose first line `cl-adapters list` "
            "shows, got none"
        ),
        "describes: option `mystery` must have a description, got none",
    ]
    with pytest.raises(
        InputError, match="option of Needy must have a default .* none for `needed`"
    ):
        check_strategy(Needy, checks=["describes"])


def test_one_that_always_begins_again_need_not_resume() -> None:
    assert check_strategy(BeginsAgain, checks=["resumes"]) == []


def test_every_check_has_an_offender() -> None:
    assert {name for _, name, _ in OFFENDERS} | {"describes"} == set(STRATEGY_CHECKS)


def test_an_unknown_check_or_option_is_refused() -> None:
    with pytest.raises(InputError, match="unknown check 'seed'; did you mean 'seeds'"):
        check_strategy(SimpleCIL, checks=["seed"])
    with pytest.raises(InputError, match="unknown option 'epoks'"):
        check_strategy(SimpleCIL, options={"epoks": 1})
