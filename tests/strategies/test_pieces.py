"""Heads are pieces: those that fit a method run in it soundly, the others are refused with reason."""

import pytest

from cl_adapters.errors import InputError
from cl_adapters.heads import ExperienceHeads
from cl_adapters.ridge import RidgeHead
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks import check_strategy
from cl_adapters.strategies.trial import Trial

SOME = ["answers", "backbone", "seen_classes", "resumes"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simplecil", {"head": "ridge"}),
        ("simplecil", {"head": "discriminant"}),
        ("finetune", {"head": "cosine", "pet": "lora"}),
        ("lae", {"head": "cosine", "pet": "prefix"}),
        ("joint", {"head": "cosine"}),
    ],
)
def test_heads_that_fit_are_sound(name: str, options: dict[str, str]) -> None:
    assert check_strategy(find_strategy(name), options=options, checks=SOME) == []


def test_the_option_chooses_the_head() -> None:
    ridge = Trial(find_strategy("simplecil"), {"head": "ridge"}).build().model.head
    assert isinstance(ridge, RidgeHead)
    cosine = Trial(find_strategy("finetune"), {"head": "cosine"}).build().model.heads
    assert isinstance(cosine, ExperienceHeads)
    assert cosine.cosine_scale == 10


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("simplecil", "linear", "got 'linear': it is trained by gradient descent, and this method"),
        ("lae", "ridge", "got 'ridge': it is set in closed form from features that stay as they"),
        ("finetune", "cosin", "unknown head 'cosin'; did you mean 'cosine'"),
    ],
)
def test_heads_that_make_no_sense_are_refused(name: str, head: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_strategy(name).config_class().override({"head": head})
