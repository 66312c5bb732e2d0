"""ACMap against the brief's checklist (16.2) and plain sums."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.strategies.acmap import ACMap, ACMapConfig
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.vit.checks import tiny_backbone
from tests.strategies.watched import NAMES, Watch, images_of, in_slots, plain_set

THREE = ((2, 0), (1, 3), (4, 5))
ADAPTERS = [f"current_adapters.{name}" for name in NAMES]
MERGED = [f"merged_adapters.{name}" for name in NAMES]


def trained(*, stream: TinyStream | None = None, **options: Any) -> tuple[Any, Watch, ACMap]:
    trial = Trial(ACMap, {"size": 4, "epochs": 2, "lr": 0.05, **options})
    watch, strategy = Watch(), trial.build()
    assert isinstance(strategy, ACMap)
    strategy.plugins.append(watch)
    return trial.train(strategy, stream or TinyStream(experiences=THREE)), watch, strategy


def test_sets_start_from_the_first_and_their_running_mean_is_merged_16_2_1() -> None:
    run, watch, _ = trained()
    for current, merged in zip(ADAPTERS, MERGED, strict=True):
        sets = [state[current] for state in run.states]
        found = run.states[2][merged]
        assert torch.equal(found[0], sets[0])
        torch.testing.assert_close(found[1], (sets[0] + sets[1]) / 2)
        torch.testing.assert_close(found[2], (sets[0] + sets[1] + sets[2]) / 3)
        for start in watch.starts[1:]:
            assert torch.equal(start[current], sets[0])
    assert not torch.equal(run.states[1][ADAPTERS[2]], run.states[0][ADAPTERS[2]])


def test_the_running_mean_of_the_worked_example_16_2() -> None:
    strategy = Trial(ACMap, {"size": 4}).build()
    merged = strategy.model.merged_adapters
    for value, mean in ((1.0, 1.0), (4.0, 2.5), (7.0, 4.0)):
        for each in strategy.model.current_adapters.tensors():
            each.data.fill_(value)
        strategy._merge()
        for each in merged.at(-1):
            torch.testing.assert_close(each, torch.full_like(each, mean))


def test_after_the_limit_nothing_moves_any_more_16_2_2() -> None:
    run, watch, strategy = trained(limit=2)
    assert len(watch.batches[1]) > 0
    assert len(watch.batches[2]) == 0  # what would not be merged is not trained
    second, third = run.states[1:]
    for name in (*MERGED, "prototypes.mapping.shifts"):
        assert torch.equal(second[name], third[name])
    assert torch.equal(
        second["prototypes.measured.sums"][:4], third["prototypes.measured.sums"][:4]
    )
    images = images_of(TinyStream(experiences=THREE), 0)[0]
    with torch.no_grad():
        logits = strategy.model.eval()(images)
    assert logits.shape == (len(images), 6)


def test_after_one_experience_it_answers_by_cosines_under_its_set_16_2_3() -> None:
    stream = TinyStream(experiences=THREE[:1])
    run, *_ = trained(stream=stream)
    vit, (images, labels) = tiny_backbone(), images_of(stream, 0)
    adapters = in_slots(plain_set(vit, [run.states[0][name] for name in ADAPTERS], 1.0))
    with torch.no_grad():
        rows, asked = vit(images, adapters), vit(stream.test_sets[0].tensors[0], adapters)
    for label in (0, 2):
        mean = rows[labels == label].mean(dim=0)
        cosines = functional.cosine_similarity(asked, mean[None], dim=1)
        torch.testing.assert_close(run.outputs[0][:, label], 10 * cosines, rtol=1e-4, atol=1e-4)


def test_one_merged_set_needs_no_map_16_2_4() -> None:
    run, *_ = trained(limit=1)
    for state in run.states:
        assert not state["prototypes.mapping.shifts"].any()
    whole, *_ = trained()
    assert whole.states[2]["prototypes.mapping.shifts"][:2].abs().min() > 0


def test_answers_equal_a_loop_over_experiences_and_classes() -> None:
    stream = TinyStream(experiences=THREE)
    run, _, strategy = trained(stream=stream)
    vit = tiny_backbone()
    merged = [
        in_slots(plain_set(vit, [run.states[2][name][t] for name in MERGED], 1.0)) for t in range(3)
    ]
    tested = torch.cat([each.tensors[0] for each in stream.test_sets])
    last = images_of(stream, 2)[0]
    with torch.no_grad():
        asked, now = vit(tested, merged[2]), vit(last, merged[2]).mean(dim=0)
        for number, classes in enumerate(THREE):
            images, labels = images_of(stream, number)
            rows = vit(images, merged[number])
            shift = now - vit(last, merged[number]).mean(dim=0)
            for label in classes:
                mean = rows[labels == label].mean(dim=0) + shift
                cosines = functional.cosine_similarity(asked, mean[None], dim=1)
                found = run.outputs[2][:, label]
                torch.testing.assert_close(found, 10 * cosines, rtol=1e-4, atol=1e-4)
        before = vit.num_passes
        strategy.model.eval()(tested)
        assert strategy.backbone is not vit
        assert vit.num_passes == before
        before = strategy.backbone.num_passes
        strategy.model(tested)
        assert strategy.backbone.num_passes - before == len(tested)  # one pass


def test_an_experience_costs_a_pass_over_its_images_under_each_merged_set() -> None:
    stream = TinyStream(experiences=THREE)
    strategy = Trial(ACMap, {"size": 4, "epochs": 1}).build()
    for number, experience in enumerate(stream.benchmark.train_stream):
        before = strategy.backbone.num_passes
        strategy.train(experience)
        passes = strategy.backbone.num_passes - before
        assert passes == len(stream.train_sets[number]) * (1 + number + 1)


def test_a_cache_changes_no_answer(tmp_path: Path) -> None:
    outputs = []
    for cache in (None, FeatureCache(tmp_path)):
        trial = Trial(ACMap, {"size": 4, "epochs": 1})
        outputs.append(trial.train(trial.build(cache=cache), TinyStream(experiences=THREE)).outputs)
    for one, two in zip(*outputs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # the suite over the defaults is run each time
def test_other_modules_and_limits_are_sound() -> None:
    names = ["answers", "declares", "resumes", "resumes_inside", "small"]
    assert check_strategy(ACMap, options={"peft": "lora", "limit": 2}, checks=names) == []


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = ACMapConfig.official()
    assert config == ACMapConfig(peft_scale=0.1)
    trained_with = config.epochs, config.lr, config.batch_size, config.weight_decay
    assert trained_with == (20, 0.025, 48, 5e-4)
    assert (config.chosen[1], config.dropout, config.limit) == (64, 0.1, 10)
