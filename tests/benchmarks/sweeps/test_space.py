"""What is searched: ranges from a config's rules, ranges of the user's own, and what is refused."""

from pathlib import Path
from typing import Literal

import pytest
from optuna.distributions import CategoricalDistribution as Choices
from optuna.distributions import FloatDistribution as Reals
from optuna.distributions import IntDistribution as Whole
from pydantic import Field

from cl_adapters.benchmarks.sweeps.space import read_space, space_table
from cl_adapters.errors import InputError
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.lae import LAEConfig
from cl_adapters.strategies.mos import MOSConfig
from cl_adapters.strategies.sema import SEMAConfig


class Config(StrategyConfig):
    lr: float = Field(default=0.02, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    blend: float = Field(default=0.5, ge=0, le=1)
    rare: float = Field(default=0.01, gt=0, le=1)
    close: float = Field(default=3.0, gt=2)
    most: float = Field(default=0.9, gt=0, le=5)
    steps: int = Field(default=8, ge=1, le=20)
    below: int = Field(default=5, gt=0, lt=9)
    rounds: int = Field(default=0, ge=0)
    warm: int = Field(default=3, ge=0)
    merge: Literal["never", "late"] = "late"
    sign: bool = True
    name: str = "a"
    size: int | None = None
    threshold: float | Literal["auto"] = "auto"
    megabytes: float = Field(default=10, ge=0, json_schema_extra={"resource": True})


def test_ranges_follow_from_type_rules_and_value() -> None:
    assert read_space(Config(), []) == {
        "batch_size": Whole(6, 96, log=True),  # four times either side of 24
        "lr": Reals(0.002, 0.2, log=True),  # ten times either side
        "dropout": Reals(0, 0.99),  # all that is allowed; a hundredth from what is not
        "blend": Reals(0, 1),
        "rare": Reals(0.001, 0.1, log=True),  # near its lower bound
        "close": Reals(2.5, 30, log=True),  # 0.3 is not allowed, nor is 2
        "most": Reals(0.05, 5),
        "steps": Whole(1, 20),
        "below": Whole(1, 8),  # what lies next to what is not
        "warm": Whole(0, 12),  # zero has no logarithm
        "merge": Choices(["never", "late"]),
        "sign": Choices([False, True]),
    }


def test_options_of_another_detector_are_not_searched() -> None:
    of_descriptor = {"min_shift", "signed", "standardize", "descriptor_epochs"}
    assert of_descriptor.isdisjoint(read_space(SEMAConfig(), []))
    assert of_descriptor <= read_space(SEMAConfig().override(SLOTS), []).keys()
    assert "min_shift" in read_space(SEMAConfig(), ["min_shift"]), "who asks for one gets it"


def test_the_value_in_use_is_the_middle() -> None:
    assert read_space(Config(lr=0.5), ["lr"]) == {"lr": Reals(0.05, 5, log=True)}


@pytest.mark.parametrize("config", [SEMAConfig(), MOSConfig(), LAEConfig()])
def test_every_method_can_be_searched_as_it_is(config: StrategyConfig) -> None:
    space = read_space(config, [])
    assert {"lr", "epochs", "batch_size"} <= set(space)
    assert "cache_megabytes" not in space
    assert "router_splits" not in space  # which no router but one has
    assert len(space_table(space, config)) == len(space) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.001:0.1", Reals(0.001, 0.1, log=True)),
        ("lr=0.05:0.1", Reals(0.05, 0.1)),
        ("lr=0.001:0.1:linear", Reals(0.001, 0.1)),
        ("lr=0.05:0.1:log", Reals(0.05, 0.1, log=True)),
        ("epochs=4:8", Whole(4, 8)),
        ("epochs=4:40", Whole(4, 40, log=True)),
        ("peft=adapter,lora", Choices(["adapter", "lora"])),
        ("size=4,8", Choices([4, 8])),
        ("size=4:8", Whole(4, 8)),
        ("ema_decay=auto,0.99", Choices(["auto", 0.99])),
        ("ema_decay=0.9:0.999", Reals(0.9, 0.999)),
        ("drop_last", Choices([False, True])),
        ("drop_last=true", Choices([True])),
        ("lr=0.1", Choices([0.1])),  # dull but right
    ],
)
def test_what_users_say(text: str, expected: object) -> None:
    name = text.partition("=")[0]
    assert read_space(LAEConfig(), [text]) == {name: expected}


def test_a_group_of_options_is_searched_by_its_parts() -> None:
    assert read_space(SEMAConfig(), ["budget.adapters=2:6"]) == {"budget.adapters": Whole(2, 6)}


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('lr = "0.001:0.1"\npeft = ["adapter", "lora"]\ndrop_last = true\nsize = [4, 8]')
    told = ["lr=0.001:0.1", "peft=adapter,lora", "drop_last", "size=4,8"]
    assert read_space(LAEConfig(), [str(path)]) == read_space(LAEConfig(), told)
    assert read_space(LAEConfig(), ["lr,drop_last", "peft=lora"]).keys() == {
        "lr", "drop_last", "peft",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr=0.1:1", "unknown option 'lrr'; did you mean 'lr'"),
        ("bill.adapters=1:2", "unknown option 'bill.adapters'"),
        ("lr=-1:1", "--space lr: option `lr`: Input should be greater than 0, got -1"),
        ("epochs=0:5", "--space epochs: option `epochs`: Input should be greater than or equal"),
        ("ema_decay=0.9:2", "`ema_decay` must be 'auto' or lie in [0, 1], got 2"),
        ("epochs=2:9", "`freeze_epochs` must be below `epochs`, 2, got 3"),
        ("peft=adapter,lorra", "--space peft: option `peft`: unknown peft 'lorra'"),
        ("peft=1:5", "--space peft must be choices such as a,b, got the range '1:5'"),
        ("peft", "--space peft must be given choices or a range"),
        ("lr=", "--space lr must be given at least one choice"),
        ("lr=0.1:0.01", "--space lr must be a range from low to high, got '0.1:0.01'"),
        ("lr=a:b", "--space lr must be low:high with numbers, got 'a:b'"),
        ("lr=0:1:log", "--space lr must begin above 0 to be logarithmic"),
        ("lr=0.1:1:cubic", "unknown scale 'cubic'"),
        ("lr=0.1:inf", "--space lr must be a range from low to high"),
        ("lr=nan:1", "--space lr must be a range from low to high"),
        ("epochs=4:6.5", "--space epochs must have whole numbers as ends, got '4:6.5'"),
        ("nowhere.toml", "--space 'nowhere.toml' must be a readable TOML file"),
    ],
)
def test_bad_spaces_end_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_space(LAEConfig(), [text])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ends_may_need_each_other() -> None:
    """Two epochs go with fewer than three frozen ones, which are searched as well."""
    found = read_space(LAEConfig(), ["epochs=2:9", "freeze_epochs=0:5"])
    assert found == {"epochs": Whole(2, 9), "freeze_epochs": Whole(0, 5)}


def test_a_bad_value_in_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("lr = 0.1")
    with pytest.raises(InputError, match="key `lr` of .* must be a list of choices"):
        read_space(LAEConfig(), [str(path)])
