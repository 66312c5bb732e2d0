"""Options under the names they had before are today's, each with one sentence."""

import re
import warnings
from typing import Any

import pytest

from cl_adapters.errors import InputError
from cl_adapters.strategies import find_strategy

RENAMED: list[tuple[str, str, str, Any]] = [
    ("lae", "pet", "peft", "lora"),
    ("finetune", "pet", "peft", "prefix"),
    ("mos", "pet", "peft", "adapter"),
    ("mos", "width", "size", 3),
    ("mos", "guess", "task_predictor", "prototypes"),
    ("sema", "pet", "peft", "lora"),
    ("sema", "width", "size", 3),
    ("sema", "classifier", "head", "linear"),
    ("sema", "memo_megabytes", "cache_megabytes", 7.0),
]


@pytest.mark.parametrize(("strategy", "old", "new", "value"), RENAMED)
def test_an_earlier_name_gives_todays_option_with_one_sentence(
    strategy: str, old: str, new: str, value: Any
) -> None:
    kind = find_strategy(strategy).config_class
    expected = kind(**{new: value})
    assert getattr(expected, new) == value
    assert getattr(kind(), new) != value
    sentence = f"option `{old}` is now `{new}`"
    makers: list[Any] = [lambda: kind(**{old: value}), lambda: kind().override({old: value})]
    for make in makers:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert make() == expected
        assert [(each.category, str(each.message)) for each in told] == [
            (DeprecationWarning, sentence)
        ]


def test_todays_name_wins_and_todays_names_say_nothing() -> None:
    kind = find_strategy("mos").config_class
    with pytest.warns(DeprecationWarning, match="option `width` is now `size`"):
        assert kind(width=3, size=5).size == 5  # type: ignore[call-arg, attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(size=5).override({"peft": "lora"})  # type: ignore[call-arg]


def test_the_text_none_is_no_value_where_an_option_may_have_none() -> None:
    official = find_strategy("dualprompt").config_class.official()
    found: Any = official.override({"clip_norm": "none", "pool_size": "None", "prompts": "none"})
    assert (found.clip_norm, found.pool_size, found.prompts) == (None, None, "none")
    assert found.override({"clip_norm": "2"}).clip_norm == 2
    with pytest.raises(InputError, match="option `length`: .*, got 'none'"):
        official.override({"length": "none"})


def test_a_name_that_was_never_an_option_here_is_refused() -> None:
    # LAE had no `guess`: another method's earlier name is no option of this one.
    with pytest.raises(InputError, match=re.escape("unknown option 'guess'")):
        find_strategy("lae").config_class().override({"guess": "prototypes"})
