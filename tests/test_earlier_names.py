"""Imports that earlier pages showed still work, each with a sentence that says the new place."""

import importlib
import sys
import warnings
from collections.abc import Iterator

import pytest

from cl_adapters import earlier_names
from cl_adapters.earlier_names import EARLIER_NAMES, look_up

NAMES = [(module, name) for module, names in EARLIER_NAMES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_an_earlier_name_is_the_new_one(module: str, name: str) -> None:
    new_module, _, new_name = EARLIER_NAMES[module][name].partition(":")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {new_module}.{new_name}$"):
        found = look_up(module, name)
    home = importlib.import_module(new_module)
    assert found is getattr(home, new_name)


# As the README, the guides, the templates and the docstrings of the version before had them.
SHOWN = """
from cl_adapters.adapters import AdapterSet, Slot, as_pet, find_pet
from cl_adapters.backbone import AdaptedViT
from cl_adapters.bank import AdapterBank
from cl_adapters.checks import check_adapter, tiny_backbone
from cl_adapters.heads import ExperienceHeads, cross_entropy_over
from cl_adapters.memo import Memo
from cl_adapters.plugins import Registry
from cl_adapters.pretrained import frozen_backbone, load_backbone
from cl_adapters.records import RunRecord, read_events, read_predictions
from cl_adapters.ridge import RidgeHead, choose_strength
from cl_adapters.shift import Detector, Verdict, find_detector
from cl_adapters.strategies.base import AdapterStrategy, Phase
from cl_adapters.strategies.checks import STRATEGY_CHECKS, check_strategy
from cl_adapters.strategies.config import PetConfig, StrategyConfig, TrainedConfig
from cl_adapters.strategies.frozen import FrozenPart
from cl_adapters.strategies.resuming import Point
from cl_adapters.strategies.trial import TinyStream, Trial
"""


def forget() -> None:
    """Makes this process one that has used no earlier name."""
    for module, names in EARLIER_NAMES.items():
        found = sys.modules.get(module)
        for name in names if found else ():
            vars(found).pop(name, None)
        if found and not hasattr(found, "__file__"):  # it is made up for its names alone
            del sys.modules[module]


@pytest.fixture
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.mark.usefixtures("fresh")
def test_every_import_that_was_shown_works() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=DeprecationWarning, module="__main__$")
        exec(SHOWN, {"__name__": "__main__"})
    sentences = [str(each.message) for each in told]
    assert "cl_adapters.backbone.AdaptedViT is now cl_adapters.vit.adapted_vit.AdaptedViT" in (
        sentences
    )
    assert "\n".join(sentences).count("cl_adapters.backbone.AdaptedViT is now") == 1


def test_a_name_that_never_was_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from cl_adapters.backbone import Nothing", {})
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from cl_adapters.heads import Nothing", {})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("cl_adapters.nothing")


def test_installing_twice_installs_once() -> None:
    before = list(sys.meta_path)
    earlier_names.install()
    assert sys.meta_path == before
