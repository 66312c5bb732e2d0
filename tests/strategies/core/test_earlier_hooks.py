"""A method written for the earlier names is the same method, with one sentence a name."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.simplecil import PrototypeClassifier, SimpleCIL, SimpleCILConfig

DATA = Path(__file__).parent / "data"
TEMPLATES = Path(__file__).parents[3] / "benchmarks" / "templates"


def written_before() -> type[AdapterStrategy]:
    """Returns class means as a method of statistics was written before."""

    class Old(AdapterStrategy):
        """SimpleCIL under the names of before."""

        config_class = SimpleCILConfig
        learns_by_gradient = False
        trains_on_frozen_rows = True

        def build_model(self, backbone: Any) -> Any:  # type: ignore[override]
            self.config: Any
            head = self.config.build_head(backbone.embed_dim, self.config.cosine_scale)
            assert isinstance(self.seed, int)
            return PrototypeClassifier(backbone, head)

        def grow(self, classes: Sequence[int], generator: torch.Generator) -> None:
            assert isinstance(generator, torch.Generator)
            self.model.head.add_classes(classes)

        def frozen_part(self) -> Any:
            return self.freeze(self.backbone, self.backbone)

        def accumulate(self, inputs: Tensor, targets: Tensor) -> Tensor:
            with self.autocast():
                features = self.model.features(inputs)
            self.model.head.add(features, targets)
            logits: Tensor = self.model.head(features)
            return logits

        def end_experience(self) -> None:
            with self.timed("nothing", 3):
                self.note("ended", inputs_repeat=self.inputs_come_again)

    return Old


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    assert all(each.category is DeprecationWarning for each in caught)
    assert {each.filename for each in caught} == {__file__}  # the sentence names the author's line
    return [str(each.message) for each in caught]


def test_it_trains_and_predicts_the_same_and_each_name_has_one_sentence(tmp_path: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        old = written_before()
    assert sorted(told(caught)) == [
        "Old.build_model(self, backbone) is now a class method with config and seed",
        "Old.frozen_part is now frozen_features",
        "Old.grow is now add_classes",
        "Old.trains_on_frozen_rows is now trains_on_features",
    ]
    stream = TinyStream()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trial = Trial(old)
        strategy = trial.build(cache=None)
        run = trial.train(strategy, stream)
        assert strategy.frozen_features() is not None
    assert set(told(caught)) == {
        "Old.autocast is now features.autocast",
        "Old.freeze is now features.feature_extractor",
        "Old.inputs_come_again is now augmentation.inputs_repeat",
        "Old.note is now log_event",
        "Old.timed is now events.timed",
    }
    new = Trial(SimpleCIL)
    expected = new.train(new.build(), stream)
    for one, other in zip(run.outputs, expected.outputs, strict=True):
        assert torch.equal(one, other)
    for name, value in expected.states[-1].items():
        assert torch.equal(run.states[-1][name], value)
    assert strategy.timings["nothing"][1] == 3
    assert [event.as_line()["inputs_repeat"] for each in run.events for event in each] == [True] * 3


def test_what_the_earlier_template_wrote_is_what_todays_writes(tmp_path: Path) -> None:
    """Everything that `cl-adapters new strategy` gave out before still runs, bit for bit."""
    (tmp_path / "before.py").write_text((DATA / "my_strategy_before.txt").read_text())
    runs, stream = [], TinyStream()
    for place in (tmp_path / "before.py", TEMPLATES / "my_strategy.py"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trial = Trial(find_strategy(f"{place}:MyStrategy"), {"peft": "lora"})
            runs.append(trial.train(trial.build(), stream))
        if place.name == "before.py":
            sentences = {str(each.message) for each in caught}
            assert {each.category for each in caught} == {DeprecationWarning}
            assert {
                "MyStrategy.grow is now add_classes",
                "MyStrategyConfig.build is now build_adapters",
                "ExperienceHeads.grow is now add_classes",
            } <= sentences
        else:
            assert caught == []
    before, today = runs
    assert all(map(torch.equal, before.outputs, today.outputs))
    assert before.states[-1].keys() == today.states[-1].keys()
    for name, value in before.states[-1].items():
        assert torch.equal(value, today.states[-1][name])


def test_by_default_a_line_says_its_sentence_once() -> None:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        old = written_before()
    strategy = Trial(old).build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            strategy.note("again")
    assert len(caught) == 1


def test_subclasses_of_it_say_nothing_more_and_new_names_say_nothing() -> None:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        old = written_before()
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Younger(old):  # type: ignore[misc, valid-type]
            def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
                super().add_classes(classes, generator)

        assert issubclass(Younger, AdapterStrategy)
        Trial(SimpleCIL).build()


def test_what_never_was_is_missing() -> None:
    strategy = Trial(SimpleCIL).build()
    with pytest.raises(AttributeError, match="'SimpleCIL' object has no attribute 'growl'"):
        strategy.growl  # noqa: B018
